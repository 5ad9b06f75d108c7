//! Gemma: Llama with norms by 1 + weight and the embedding times √d. Defaults: `transformers` `GemmaConfig`.

use super::Family;
use crate::config::common::{LlamaDefaults, activation, attention_biases, llama_like};
use crate::config::{Gain, ModelConfig, RawConfig};
use crate::error::Result;
use crate::ops::Activation;

pub(super) const FAMILY: Family = Family { model_type: "gemma", resolve, harmless: &[] };

const DEFAULTS: LlamaDefaults = LlamaDefaults {
    d_vocab: 256000,
    d_model: 3072,
    d_mlp: 24576,
    n_layers: 28,
    n_heads: 16,
    n_key_value_heads: Some(16),
    d_head: Some(256),
    n_context: 8192,
    tied: true,
    activation: ("hidden_act", "gelu_pytorch_tanh"),
    ..LlamaDefaults::LLAMA
};

fn resolve(raw: &RawConfig) -> Result<ModelConfig> {
    let mut config = llama_like(raw, FAMILY.model_type, &DEFAULTS)?;
    config.biases = attention_biases(raw)?;
    gemma(raw, &mut config)?;
    // the class reads "gelu" as the tanh form, with which all Gemmas were trained; those of Gemma 2 and 3 do not
    if config.activation == Activation::Gelu {
        config.activation = Activation::GeluNew;
    }
    // transformers 4 read this key where it stood, 5 does not
    if raw.has("hidden_activation") && activation(raw, "hidden_activation", "gelu_pytorch_tanh")? != config.activation {
        return Err(
            raw.unsupported("hidden_activation", "releases of the class disagree whether it or hidden_act holds")
        );
    }
    Ok(config)
}

/// What all Gemmas share.
pub(super) fn gemma(raw: &RawConfig, config: &mut ModelConfig) -> Result<()> {
    raw.must_be_off("use_bidirectional_attention", "only causal attention is implemented")?;
    config.norm.gain = Gain::OnePlusWeight;
    config.embed_scale = (config.d_model as f64).sqrt();
    Ok(())
}
