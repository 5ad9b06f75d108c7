//! Mixtral: Mistral with experts. Defaults: `transformers` `MixtralConfig`.

use super::Family;
use crate::config::common::{LlamaDefaults, llama_like};
use crate::config::{Gating, Layout, MlpKind, MlpNames, ModelConfig, RawConfig, Routing, limits};
use crate::error::Result;

pub(super) const FAMILY: Family = Family {
    model_type: "mixtral",
    resolve,
    harmless: &["output_router_logits", "router_aux_loss_coef", "router_jitter_noise"],
};

const DEFAULTS: LlamaDefaults = LlamaDefaults {
    d_mlp: 14336,
    n_key_value_heads: Some(8),
    n_context: 131072,
    eps: ("rms_norm_eps", 1e-5),
    theta: 1_000_000.0,
    ..LlamaDefaults::LLAMA
};

/// Where the experts lie.
pub(super) const EXPERTS: MlpNames = MlpNames::Experts {
    router: "layers.{l}.block_sparse_moe.gate",
    experts: [
        "layers.{l}.block_sparse_moe.experts.{e}.w1",
        "layers.{l}.block_sparse_moe.experts.{e}.w3",
        "layers.{l}.block_sparse_moe.experts.{e}.w2",
    ],
    dense: ["", "", ""], // every layer has experts
};

fn resolve(raw: &RawConfig) -> Result<ModelConfig> {
    let mut config = llama_like(raw, FAMILY.model_type, &DEFAULTS)?;
    config.windows = vec![raw.optional_count("sliding_window", limits::CONTEXT)?; config.n_layers];
    let n_experts = raw.count("num_local_experts", 8, limits::EXPERTS)?;
    let top_k = raw.count("num_experts_per_tok", 2, n_experts)?;
    // the softmax over all experts is renormalised over the chosen: the softmax over the chosen
    config.mlp = MlpKind::Experts {
        n_experts,
        top_k,
        gating: Gating::SoftmaxOfChosen,
        routing: Routing::default(),
        shared: None,
        swiglu: None,
    };
    config.layout = Layout { mlp: EXPERTS, stacked: Some(super::qwen3_moe::STACKED), ..Layout::LLAMA };
    Ok(config)
}
