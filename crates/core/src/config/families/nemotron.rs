//! Nemotron: layer norms by 1 + weight, a plain MLP with relu², rotary on half of each head. Defaults: `transformers` `NemotronConfig`.

use super::Family;
use crate::config::common::{LlamaDefaults, llama_biases, llama_like};
use crate::config::{Gain, Layout, MlpKind, MlpNames, ModelConfig, Norm, RawConfig};
use crate::error::Result;

pub(super) const FAMILY: Family = Family { model_type: "nemotron", resolve, harmless: &[] };

const DEFAULTS: LlamaDefaults = LlamaDefaults {
    d_vocab: 256000,
    d_model: 6144,
    d_mlp: 24576,
    n_heads: 48,
    n_context: 4096,
    eps: ("norm_eps", 1e-5),
    activation: ("hidden_act", "relu2"),
    rotary_share: Some(0.5),
    ..LlamaDefaults::LLAMA
};

fn resolve(raw: &RawConfig) -> Result<ModelConfig> {
    let mut config = llama_like(raw, FAMILY.model_type, &DEFAULTS)?;
    config.biases = llama_biases(raw)?;
    config.norm = Norm { gain: Gain::OnePlusWeight, ..Norm::layer(config.norm.eps) };
    config.mlp = MlpKind::Plain;
    config.layout =
        Layout { mlp: MlpNames::Plain(["layers.{l}.mlp.up_proj", "layers.{l}.mlp.down_proj"]), ..Layout::LLAMA };
    Ok(config)
}
