//! Helium: Llama with rotary in pairs. Defaults: `transformers` `HeliumConfig`.

use super::Family;
use crate::config::common::{LlamaDefaults, llama_biases, llama_like};
use crate::config::{Biases, ModelConfig, RawConfig, RotaryStyle};
use crate::error::Result;

pub(super) const FAMILY: Family = Family { model_type: "helium", resolve, harmless: &[] };

const DEFAULTS: LlamaDefaults = LlamaDefaults {
    d_vocab: 48000,
    d_model: 2560,
    d_mlp: 7040,
    n_layers: 24,
    n_heads: 20,
    n_key_value_heads: Some(20),
    d_head: Some(128),
    n_context: 4096,
    eps: ("rms_norm_eps", 1e-8),
    theta: 100_000.0,
    rotary_style: RotaryStyle::Pairs,
    ..LlamaDefaults::LLAMA
};

fn resolve(raw: &RawConfig) -> Result<ModelConfig> {
    let mut config = llama_like(raw, FAMILY.model_type, &DEFAULTS)?;
    config.biases = Biases { attn_out: false, ..llama_biases(raw)? };
    Ok(config)
}
