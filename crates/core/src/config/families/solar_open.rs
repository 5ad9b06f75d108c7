//! Solar Open: Llama with DeepSeek's router and a shared expert in every layer. Defaults: `transformers` `SolarOpenConfig`.

use super::Family;
use super::glm4_moe::{ExpertDefaults, experts_like_deepseek, shared_experts};
use crate::config::common::{LlamaDefaults, llama_like};
use crate::config::{ModelConfig, RawConfig};
use crate::error::Result;

pub(super) const FAMILY: Family = Family { model_type: "solar_open", resolve, harmless: &["output_router_logits"] };

const DEFAULTS: LlamaDefaults = LlamaDefaults {
    d_vocab: 196608,
    n_layers: 48,
    n_heads: 64,
    n_key_value_heads: Some(8),
    d_head: Some(128),
    n_context: 131072,
    eps: ("rms_norm_eps", 1e-5),
    theta: 1_000_000.0,
    ..LlamaDefaults::LLAMA
};

fn resolve(raw: &RawConfig) -> Result<ModelConfig> {
    let mut config = llama_like(raw, FAMILY.model_type, &DEFAULTS)?;
    config.biases.qkv = raw.flag("attention_bias", false)?; // never on the output
    let defaults = ExpertDefaults { n_experts: Some(128), top_k: Some(8), d_mlp: 1280, normalized: true };
    let experts = Some(raw.either("n_routed_experts", "num_local_experts")?);
    experts_like_deepseek(raw, &mut config, experts, defaults)?;
    shared_experts(raw, &mut config, "n_shared_experts", Some(1))?;
    Ok(config)
}
