//! ERNIE 4.5: Llama with rotary in pairs and one switch for all biases. Defaults: `transformers` `Ernie4_5Config`.

use super::Family;
use crate::config::common::{LlamaDefaults, llama_like};
use crate::config::{Biases, ModelConfig, RawConfig, RotaryStyle};
use crate::error::Result;

pub(super) const FAMILY: Family = Family { model_type: "ernie4_5", resolve, harmless: &[] };

const DEFAULTS: LlamaDefaults = LlamaDefaults {
    d_vocab: 103424,
    d_model: 1024,
    d_mlp: 3072,
    n_layers: 18,
    n_heads: 16,
    n_key_value_heads: Some(2),
    d_head: Some(128),
    n_context: 131072,
    eps: ("rms_norm_eps", 1e-5),
    theta: 500_000.0,
    tied: true,
    rotary_style: RotaryStyle::Pairs,
    ..LlamaDefaults::LLAMA
};

fn resolve(raw: &RawConfig) -> Result<ModelConfig> {
    let mut config = llama_like(raw, FAMILY.model_type, &DEFAULTS)?;
    let all = raw.flag("use_bias", false)?;
    config.biases = Biases { qkv: all, attn_out: all, mlp: all, ..Biases::default() };
    Ok(config)
}
