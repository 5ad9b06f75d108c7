//! Arcee (AFM): Llama with a plain MLP of relu². Defaults: `transformers` `ArceeConfig`.

use super::Family;
use crate::config::common::{LlamaDefaults, llama_biases, llama_like};
use crate::config::{Layout, MlpKind, MlpNames, ModelConfig, RawConfig};
use crate::error::Result;

pub(super) const FAMILY: Family = Family { model_type: "arcee", resolve, harmless: &[] };

const DEFAULTS: LlamaDefaults = LlamaDefaults {
    d_model: 2560,
    d_mlp: 18432,
    n_context: 4096,
    eps: ("rms_norm_eps", 1e-5),
    activation: ("hidden_act", "relu2"),
    ..LlamaDefaults::LLAMA
};

fn resolve(raw: &RawConfig) -> Result<ModelConfig> {
    let mut config = llama_like(raw, FAMILY.model_type, &DEFAULTS)?;
    config.biases = llama_biases(raw)?;
    config.mlp = MlpKind::Plain;
    config.layout =
        Layout { mlp: MlpNames::Plain(["layers.{l}.mlp.up_proj", "layers.{l}.mlp.down_proj"]), ..Layout::LLAMA };
    Ok(config)
}
