//! Granite with experts, one of which every token gets in full. Defaults: `transformers` `GraniteMoeSharedConfig`.

use super::Family;
use crate::config::{MlpKind, ModelConfig, RawConfig, SharedExpertNames, SharedMlpNames, limits};
use crate::error::Result;

pub(super) const FAMILY: Family =
    Family { model_type: "granitemoeshared", resolve, harmless: &["output_router_logits", "router_aux_loss_coef"] };

fn resolve(raw: &RawConfig) -> Result<ModelConfig> {
    let mut config = super::granitemoe::granitemoe(raw, FAMILY.model_type)?;
    shared_expert(raw, &mut config)?;
    Ok(config)
}

/// `shared_intermediate_size`, 0 for no shared expert.
pub(super) fn shared_expert(raw: &RawConfig, config: &mut ModelConfig) -> Result<()> {
    let width = raw.count_from_0("shared_intermediate_size", 0, limits::D_MLP)?;
    if let MlpKind::Experts { shared, .. } = &mut config.mlp {
        *shared = (width > 0).then_some(width);
    }
    config.layout.shared_expert = Some(SharedExpertNames {
        mlp: SharedMlpNames::GateUp(["layers.{l}.shared_mlp.input_linear", "layers.{l}.shared_mlp.output_linear"]),
        score: None,
    });
    Ok(())
}
