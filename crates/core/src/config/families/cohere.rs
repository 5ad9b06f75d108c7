//! Cohere: parallel blocks with one norm, rotary in pairs, scaled logits. Defaults: `transformers` `CohereConfig`.

use super::Family;
use crate::config::common::{LlamaDefaults, attention_biases, llama_like};
use crate::config::{Layout, ModelConfig, Norm, QkNorm, QkSpan, RawConfig, RotaryStyle};
use crate::error::Result;

pub(super) const FAMILY: Family = Family { model_type: "cohere", resolve, harmless: &["model_max_length"] };

pub(super) const DEFAULTS: LlamaDefaults = LlamaDefaults {
    d_vocab: 256000,
    d_model: 8192,
    d_mlp: 22528,
    n_layers: 40,
    n_heads: 64,
    n_context: 8192,
    eps: ("layer_norm_eps", 1e-5),
    theta: 500_000.0,
    tied: true,
    rotary_style: RotaryStyle::Pairs,
    ..LlamaDefaults::LLAMA
};

fn resolve(raw: &RawConfig) -> Result<ModelConfig> {
    let mut config = llama_like(raw, FAMILY.model_type, &DEFAULTS)?;
    cohere(raw, &mut config)?;
    if raw.flag("use_qk_norm", false)? {
        config.qk_norm = Some(QkNorm::new(config.norm, QkSpan::HeadOwnGain));
    }
    Ok(config)
}

/// The block that Cohere's first and second models share.
pub(super) fn cohere(raw: &RawConfig, config: &mut ModelConfig) -> Result<()> {
    config.biases = attention_biases(raw)?;
    config.norm = Norm { bias: false, ..Norm::layer(config.norm.eps) };
    config.parallel = true;
    config.layout = Layout { ln2: None, ..Layout::LLAMA };
    config.logit_scale = raw.positive("logit_scale", 0.0625)?;
    Ok(())
}
