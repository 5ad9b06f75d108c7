//! Jais 2: Llama with layer norms, biases and a plain MLP of relu². Defaults: `transformers` `Jais2Config`.

use super::Family;
use crate::config::common::{LlamaDefaults, llama_like};
use crate::config::{Biases, Layout, MlpKind, MlpNames, ModelConfig, Norm, RawConfig};
use crate::error::Result;

pub(super) const FAMILY: Family = Family { model_type: "jais2", resolve, harmless: &[] };

const DEFAULTS: LlamaDefaults = LlamaDefaults {
    d_vocab: 150272,
    d_model: 3328,
    d_mlp: 26624,
    n_heads: 26,
    n_context: 8192,
    eps: ("layer_norm_eps", 1e-5),
    activation: ("hidden_act", "relu2"),
    ..LlamaDefaults::LLAMA
};

fn resolve(raw: &RawConfig) -> Result<ModelConfig> {
    let mut config = llama_like(raw, FAMILY.model_type, &DEFAULTS)?;
    let attention = raw.flag("attention_bias", true)?;
    config.biases =
        Biases { qkv: attention, attn_out: attention, mlp: raw.flag("mlp_bias", true)?, ..Biases::default() };
    config.norm = Norm::layer(config.norm.eps);
    config.mlp = MlpKind::Plain;
    config.layout =
        Layout { mlp: MlpNames::Plain(["layers.{l}.mlp.up_proj", "layers.{l}.mlp.down_proj"]), ..Layout::LLAMA };
    Ok(config)
}
