//! Granite with experts, windows and attention sinks. Defaults: `transformers` `GraniteMoeSWAConfig`.

use super::{Family, granite_swa, granitemoe, granitemoeshared};
use crate::config::{MlpNames, ModelConfig, RawConfig, Stacking};
use crate::error::Result;

pub(super) const FAMILY: Family =
    Family { model_type: "granitemoe_swa", resolve, harmless: &["output_router_logits", "router_aux_loss_coef"] };

fn resolve(raw: &RawConfig) -> Result<ModelConfig> {
    let mut config = granitemoe::granitemoe(raw, FAMILY.model_type)?;
    granitemoeshared::shared_expert(raw, &mut config)?;
    granite_swa::windows_and_sinks(raw, &mut config)?;
    config.layout.mlp = MlpNames::StackedExperts {
        stacking: Stacking::RowsInBlocks,
        router: "layers.{l}.block_sparse_moe.router",
        gate_up: "layers.{l}.block_sparse_moe.experts.gate_up_proj",
        output: "layers.{l}.block_sparse_moe.experts.down_proj",
    };
    Ok(config)
}
