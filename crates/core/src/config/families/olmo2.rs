//! OLMo 2: norms after the sublayers and none before, queries and keys normed over all heads. Defaults: `transformers` `Olmo2Config`.

use super::Family;
use crate::config::common::{LlamaDefaults, attention_biases, llama_like};
use crate::config::{Layout, ModelConfig, QkNorm, QkSpan, RawConfig};
use crate::error::Result;

pub(super) const FAMILY: Family = Family { model_type: "olmo2", resolve, harmless: &[] };

const DEFAULTS: LlamaDefaults = LlamaDefaults { d_vocab: 50304, eps: ("rms_norm_eps", 1e-5), ..LlamaDefaults::LLAMA };

fn resolve(raw: &RawConfig) -> Result<ModelConfig> {
    let mut config = llama_like(raw, FAMILY.model_type, &DEFAULTS)?;
    olmo2(raw, &mut config)?;
    Ok(config)
}

/// The block that OLMo 2 and 3 share.
pub(super) fn olmo2(raw: &RawConfig, config: &mut ModelConfig) -> Result<()> {
    config.biases = attention_biases(raw)?;
    config.qk_norm = Some(QkNorm::new(config.norm, QkSpan::AllHeads));
    config.layout = Layout {
        ln1: None,
        ln1_post: Some("layers.{l}.post_attention_layernorm"),
        ln2: None,
        ln2_post: Some("layers.{l}.post_feedforward_layernorm"),
        ..Layout::LLAMA
    };
    Ok(())
}
