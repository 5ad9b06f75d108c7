//! OLMo: Llama with layer norms that have no weights, and clipped queries, keys and values. Defaults: `transformers` `OlmoConfig`.

use super::Family;
use crate::config::common::{LlamaDefaults, attention_biases, llama_like};
use crate::config::{Gain, ModelConfig, Norm, NormKind, RawConfig};
use crate::error::Result;

pub(super) const FAMILY: Family = Family { model_type: "olmo", resolve, harmless: &["rms_norm_eps"] };

const DEFAULTS: LlamaDefaults = LlamaDefaults { d_vocab: 50304, ..LlamaDefaults::LLAMA };

fn resolve(raw: &RawConfig) -> Result<ModelConfig> {
    let mut config = llama_like(raw, FAMILY.model_type, &DEFAULTS)?;
    config.biases = attention_biases(raw)?;
    // ε is fixed in OlmoLayerNorm
    config.norm = Norm { kind: NormKind::LayerNorm, eps: 1e-5, gain: Gain::None, bias: false };
    config.clip_qkv = raw.optional_positive("clip_qkv")?;
    Ok(config)
}
