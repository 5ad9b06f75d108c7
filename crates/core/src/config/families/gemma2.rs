//! Gemma 2: norms after the sublayers too, capped scores and logits, every other layer with a window. Defaults: `transformers` `Gemma2Config`.

use super::Family;
use crate::config::common::{LlamaDefaults, attention_biases, llama_like, windows};
use crate::config::{Layout, ModelConfig, RawConfig, limits};
use crate::error::Result;

pub(super) const FAMILY: Family =
    Family { model_type: "gemma2", resolve, harmless: &["hidden_act", "cache_implementation", "sliding_window_size"] };

pub(super) const DEFAULTS: LlamaDefaults = LlamaDefaults {
    d_vocab: 256000,
    d_model: 2304,
    d_mlp: 9216,
    n_layers: 26,
    n_heads: 8,
    n_key_value_heads: Some(4),
    d_head: Some(256),
    n_context: 8192,
    tied: true,
    activation: ("hidden_activation", "gelu_pytorch_tanh"),
    ..LlamaDefaults::LLAMA
};

fn resolve(raw: &RawConfig) -> Result<ModelConfig> {
    let mut config = llama_like(raw, FAMILY.model_type, &DEFAULTS)?;
    gemma2(raw, &mut config)?;
    caps_and_windows(raw, &mut config)?;
    Ok(config)
}

/// Caps of scores and logits, and windows in every other layer.
pub(super) fn caps_and_windows(raw: &RawConfig, config: &mut ModelConfig) -> Result<()> {
    config.score_cap = raw.optional_positive_or("attn_logit_softcapping", 50.0)?;
    config.logit_cap = raw.optional_positive_or("final_logit_softcapping", 30.0)?;
    let window = raw.count("sliding_window", 4096, limits::CONTEXT)?;
    config.windows = windows(raw, config.n_layers, Some(window), |l| l % 2 == 0)?;
    Ok(())
}

/// The block that Gemma 2 and 3 share: four norms, scores by a scale of their own.
pub(super) fn gemma2(raw: &RawConfig, config: &mut ModelConfig) -> Result<()> {
    super::gemma::gemma(raw, config)?;
    config.biases = attention_biases(raw)?;
    config.attention_scale = vec![raw.positive("query_pre_attn_scalar", 256.0)?.powf(-0.5); config.n_layers];
    config.layout = Layout {
        ln1_post: Some("layers.{l}.post_attention_layernorm"),
        ln2: Some("layers.{l}.pre_feedforward_layernorm"),
        ln2_post: Some("layers.{l}.post_feedforward_layernorm"),
        ..Layout::LLAMA
    };
    Ok(())
}
