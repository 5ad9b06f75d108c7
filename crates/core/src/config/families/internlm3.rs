//! InternLM 3: Llama, with its own names for the biases. Defaults: `transformers` `InternLM3Config`, whose model is Llama's class.

use super::Family;
use crate::config::common::{LlamaDefaults, llama_like};
use crate::config::{Biases, ModelConfig, RawConfig};
use crate::error::Result;

pub(super) const FAMILY: Family = Family { model_type: "internlm3", resolve, harmless: &[] };

const DEFAULTS: LlamaDefaults = LlamaDefaults {
    d_vocab: 128512,
    d_mlp: 10240,
    n_layers: 48,
    n_key_value_heads: Some(2),
    d_head: Some(128),
    n_context: 32768,
    eps: ("rms_norm_eps", 1e-5),
    ..LlamaDefaults::LLAMA
};

fn resolve(raw: &RawConfig) -> Result<ModelConfig> {
    let mut config = llama_like(raw, FAMILY.model_type, &DEFAULTS)?;
    let attention = raw.flag(raw.either("qkv_bias", "attention_bias")?, false)?;
    let mlp = raw.flag(raw.either("bias", "mlp_bias")?, false)?;
    if attention != mlp {
        return Err(raw.unsupported("qkv_bias", "the class wants the same of qkv_bias and bias"));
    }
    config.biases = Biases { qkv: attention, attn_out: attention, mlp, ..Biases::default() };
    Ok(config)
}
