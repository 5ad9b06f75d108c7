//! OLMoE: experts, and a norm of all query heads together, and of all key heads. Defaults: `transformers` `OlmoeConfig`.

use super::Family;
use crate::config::common::{LlamaDefaults, attention_biases, llama_like};
use crate::config::{Gating, MlpKind, ModelConfig, QkNorm, QkSpan, RawConfig, Routing, limits};
use crate::error::Result;

pub(super) const FAMILY: Family =
    Family { model_type: "olmoe", resolve, harmless: &["output_router_logits", "router_aux_loss_coef"] };

const DEFAULTS: LlamaDefaults = LlamaDefaults {
    d_vocab: 50304,
    d_model: 2048,
    d_mlp: 2048,
    n_layers: 16,
    n_heads: 16,
    n_context: 4096,
    eps: ("rms_norm_eps", 1e-5),
    ..LlamaDefaults::LLAMA
};

fn resolve(raw: &RawConfig) -> Result<ModelConfig> {
    let mut config = llama_like(raw, FAMILY.model_type, &DEFAULTS)?;
    config.biases = attention_biases(raw)?;
    config.qk_norm = Some(QkNorm::new(config.norm, QkSpan::AllHeads));
    if raw.optional_positive("clip_qkv")?.is_some() {
        return Err(raw.unsupported("clip_qkv", "clipping after the norm of queries and keys is not implemented"));
    }
    experts(raw, &mut config, [64, 8])?;
    Ok(config)
}

/// Experts in every layer, as wide as `intermediate_size`; `defaults` are those of their number and of how many a token
/// gets.
pub(super) fn experts(raw: &RawConfig, config: &mut ModelConfig, defaults: [usize; 2]) -> Result<()> {
    let n_experts =
        raw.count("num_local_experts", raw.count("num_experts", defaults[0], limits::EXPERTS)?, limits::EXPERTS)?;
    let top_k = raw.count("num_experts_per_tok", defaults[1], n_experts)?;
    let gating = if raw.flag("norm_topk_prob", false)? { Gating::SoftmaxOfChosen } else { Gating::Softmax };
    config.mlp = MlpKind::Experts { n_experts, top_k, gating, routing: Routing::default(), shared: None, swiglu: None };
    config.layout.mlp = super::qwen3_moe::EXPERTS;
    config.layout.stacked = Some(super::qwen3_moe::STACKED);
    Ok(())
}
