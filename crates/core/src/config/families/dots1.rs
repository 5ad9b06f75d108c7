//! dots.llm1: Qwen 3 with DeepSeek's router and a shared expert. Defaults: `transformers` `Dots1Config`.

use super::Family;
use super::glm4_moe::{ExpertDefaults, experts_like_deepseek, shared_experts};
use crate::config::common::{LlamaDefaults, attention_biases, llama_like, sliding_window, windows};
use crate::config::{ModelConfig, QkNorm, QkSpan, RawConfig, limits};
use crate::error::Result;

pub(super) const FAMILY: Family = Family { model_type: "dots1", resolve, harmless: &["output_router_logits"] };

const DEFAULTS: LlamaDefaults = LlamaDefaults {
    d_vocab: 152064,
    d_model: 4608,
    d_mlp: 10944,
    n_layers: 62,
    n_key_value_heads: Some(32),
    ..LlamaDefaults::LLAMA
};

fn resolve(raw: &RawConfig) -> Result<ModelConfig> {
    let mut config = llama_like(raw, FAMILY.model_type, &DEFAULTS)?;
    config.biases = attention_biases(raw)?;
    config.qk_norm = Some(QkNorm::new(config.norm, QkSpan::Head));
    let window = sliding_window(raw, 4096)?;
    let first_window = raw.count_from_0("max_window_layers", 62, limits::LAYERS)?;
    config.windows = windows(raw, config.n_layers, window, |l| window.is_some() && l >= first_window)?;
    let defaults = ExpertDefaults { n_experts: None, top_k: None, d_mlp: 1408, normalized: false };
    let experts = Some(raw.either("n_routed_experts", "num_local_experts")?);
    experts_like_deepseek(raw, &mut config, experts, defaults)?;
    shared_experts(raw, &mut config, "n_shared_experts", None)?;
    let first = raw.count_from_0("first_k_dense_replace", 0, limits::LAYERS)?;
    config.dense_layers = (0..config.n_layers.min(first)).collect();
    Ok(config)
}
