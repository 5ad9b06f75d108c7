//! Granite with experts, in stacked tensors. Defaults: `transformers` `GraniteMoeConfig`.

use super::Family;
use crate::config::common::{LlamaDefaults, attention_biases, llama_like};
use crate::config::{Gating, Layout, MlpKind, MlpNames, ModelConfig, RawConfig, Routing, Stacking, limits};
use crate::error::Result;

pub(super) const FAMILY: Family =
    Family { model_type: "granitemoe", resolve, harmless: &["output_router_logits", "router_aux_loss_coef"] };

fn resolve(raw: &RawConfig) -> Result<ModelConfig> {
    granitemoe(raw, FAMILY.model_type)
}

/// The block that all Granites with experts share.
pub(super) fn granitemoe(raw: &RawConfig, family: &'static str) -> Result<ModelConfig> {
    let mut config = llama_like(raw, family, &LlamaDefaults::LLAMA)?;
    super::granite::multipliers(raw, &mut config)?;
    config.biases = attention_biases(raw)?;
    let n_experts = raw.count("num_local_experts", 8, limits::EXPERTS)?;
    let top_k = raw.count("num_experts_per_tok", 2, n_experts)?;
    config.mlp = MlpKind::Experts {
        n_experts,
        top_k,
        gating: Gating::SoftmaxOfChosen,
        routing: Routing::default(),
        shared: None,
        swiglu: None,
    };
    config.layout = Layout {
        mlp: MlpNames::StackedExperts {
            stacking: Stacking::RowsInBlocks,
            router: "layers.{l}.block_sparse_moe.router.layer",
            gate_up: "layers.{l}.block_sparse_moe.input_linear.weight",
            output: "layers.{l}.block_sparse_moe.output_linear.weight",
        },
        stacked: Some([
            "layers.{l}.block_sparse_moe.router",
            "layers.{l}.block_sparse_moe.experts.gate_up_proj",
            "layers.{l}.block_sparse_moe.experts.down_proj",
        ]),
        ..Layout::LLAMA
    };
    Ok(config)
}
