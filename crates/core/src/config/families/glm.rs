//! GLM: Llama with gate and up in one matrix, rotary in pairs on half of each head. Defaults: `transformers` `GlmConfig`.

use super::Family;
use crate::config::common::llama_like;
use crate::config::{Layout, MlpNames, ModelConfig, RawConfig};
use crate::error::Result;

pub(super) const FAMILY: Family = Family { model_type: "glm", resolve, harmless: &[] };

fn resolve(raw: &RawConfig) -> Result<ModelConfig> {
    let mut config = llama_like(raw, FAMILY.model_type, &super::glm4::DEFAULTS)?;
    config.biases.qkv = raw.flag("attention_bias", true)?; // never on the output
    config.layout =
        Layout { mlp: MlpNames::GateUp(["layers.{l}.mlp.gate_up_proj", "layers.{l}.mlp.down_proj"]), ..Layout::LLAMA };
    Ok(config)
}
