//! GLM 4: norms before and after the sublayers, rotary in pairs on half of each head. Defaults: `transformers` `Glm4Config`.

use super::Family;
use crate::config::common::{LlamaDefaults, llama_like};
use crate::config::{Layout, MlpNames, ModelConfig, RawConfig, RotaryStyle};
use crate::error::Result;

pub(super) const FAMILY: Family = Family { model_type: "glm4", resolve, harmless: &[] };

pub(super) const DEFAULTS: LlamaDefaults = LlamaDefaults {
    d_vocab: 151552,
    d_mlp: 13696,
    n_layers: 40,
    n_key_value_heads: Some(2),
    d_head: Some(128),
    n_context: 131072,
    eps: ("rms_norm_eps", 1.5625e-7),
    rotary_share: Some(0.5),
    rotary_style: RotaryStyle::Pairs,
    ..LlamaDefaults::LLAMA
};

fn resolve(raw: &RawConfig) -> Result<ModelConfig> {
    let mut config = llama_like(raw, FAMILY.model_type, &DEFAULTS)?;
    config.biases.qkv = raw.flag("attention_bias", true)?; // never on the output
    config.layout = Layout {
        ln1_post: Some("layers.{l}.post_self_attn_layernorm"),
        ln2_post: Some("layers.{l}.post_mlp_layernorm"),
        mlp: MlpNames::GateUp(["layers.{l}.mlp.gate_up_proj", "layers.{l}.mlp.down_proj"]),
        ..Layout::LLAMA
    };
    Ok(config)
}
