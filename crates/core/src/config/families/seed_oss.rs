//! Seed-OSS: Llama with biases on queries, keys and values, and the output's by itself. Defaults: `transformers` `SeedOssConfig`.

use super::Family;
use crate::config::common::{LlamaDefaults, llama_like};
use crate::config::{Biases, ModelConfig, RawConfig};
use crate::error::Result;

pub(super) const FAMILY: Family = Family { model_type: "seed_oss", resolve, harmless: &["residual_dropout"] };

const DEFAULTS: LlamaDefaults = LlamaDefaults {
    d_vocab: 155136,
    d_mlp: 27648,
    n_layers: 64,
    n_heads: 80,
    n_key_value_heads: Some(8),
    d_head: Some(128),
    n_context: 524288,
    ..LlamaDefaults::LLAMA
};

fn resolve(raw: &RawConfig) -> Result<ModelConfig> {
    let mut config = llama_like(raw, FAMILY.model_type, &DEFAULTS)?;
    config.biases = Biases {
        qkv: raw.flag("attention_bias", true)?,
        attn_out: raw.flag("attention_out_bias", false)?,
        mlp: raw.flag("mlp_bias", false)?,
        ..Biases::default()
    };
    Ok(config)
}
