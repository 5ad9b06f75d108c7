//! HunYuan with experts, one of which every token gets in full. Defaults: `transformers` `HunYuanMoEV1Config`.

use super::{Family, hunyuan_v1_dense};
use crate::config::{
    Gating, MlpKind, MlpNames, ModelConfig, RawConfig, Routing, SharedExpertNames, SharedMlpNames, limits,
};
use crate::error::Result;

pub(super) const FAMILY: Family =
    Family { model_type: "hunyuan_v1_moe", resolve, harmless: &["eod_token_id", "output_router_logits"] };

fn resolve(raw: &RawConfig) -> Result<ModelConfig> {
    let mut config = hunyuan_v1_dense::hunyuan(raw, FAMILY.model_type)?;
    let n_experts = raw.count(raw.either("num_experts", "num_local_experts")?, 1, limits::EXPERTS)?;
    let (gating, routing) = (Gating::SoftmaxOfChosen, Routing::default());
    let (top_k, shared) = (top_k(raw, n_experts)?, Some(config.d_mlp));
    config.mlp = MlpKind::Experts { n_experts, top_k, gating, routing, shared, swiglu: None };
    config.layout.mlp = MlpNames::Experts {
        router: "layers.{l}.mlp.gate.wg",
        experts: [
            "layers.{l}.mlp.experts.{e}.gate_proj",
            "layers.{l}.mlp.experts.{e}.up_proj",
            "layers.{l}.mlp.experts.{e}.down_proj",
        ],
        dense: ["", "", ""], // every layer has experts
    };
    config.layout.shared_expert = Some(SharedExpertNames {
        mlp: SharedMlpNames::Gated([
            "layers.{l}.mlp.shared_mlp.gate_proj",
            "layers.{l}.mlp.shared_mlp.up_proj",
            "layers.{l}.mlp.shared_mlp.down_proj",
        ]),
        score: None,
    });
    Ok(config)
}

/// `moe_topk`: one number, or a list with one per layer, all the same.
fn top_k(raw: &RawConfig, n_experts: usize) -> Result<usize> {
    let key = raw.either("moe_topk", "num_experts_per_tok")?;
    match raw.value(key) {
        Some(value) if value.is_array() => match raw.counts(key)?.unwrap_or_default()[..] {
            [first, ref others @ ..] if others.iter().all(|n| *n == first) && (1..=n_experts).contains(&first) => {
                Ok(first)
            }
            _ => Err(raw.unsupported(key, "every layer must choose the same number of experts")),
        },
        _ => raw.count(key, 1, n_experts),
    }
}
