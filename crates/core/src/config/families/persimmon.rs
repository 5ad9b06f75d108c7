//! Persimmon: layer norms, also of every query and key, a plain MLP of relu², rotary on half of each head. Defaults:
//! `transformers` `PersimmonConfig`.

use super::{Family, gpt2};
use crate::config::common::{LlamaDefaults, llama_like};
use crate::config::{Layout, MlpKind, MlpNames, ModelConfig, Norm, QkNorm, QkSpan, Qkv, RawConfig};
use crate::error::Result;

pub(super) const FAMILY: Family = Family { model_type: "persimmon", resolve, harmless: &[] };

const DEFAULTS: LlamaDefaults = LlamaDefaults {
    d_vocab: 262144,
    d_mlp: 16384,
    n_layers: 36,
    n_heads: 64,
    n_context: 16384,
    eps: ("layer_norm_eps", 1e-5),
    activation: ("hidden_act", "relu2"),
    rotary_share: Some(0.5),
    ..LlamaDefaults::LLAMA
};

const LAYOUT: Layout = Layout {
    qkv: Qkv::ByGroup("layers.{l}.self_attn.query_key_value"),
    attn_out: "layers.{l}.self_attn.dense",
    mlp: MlpNames::Plain(["layers.{l}.mlp.dense_h_to_4h", "layers.{l}.mlp.dense_4h_to_h"]),
    qk_norm: ["layers.{l}.self_attn.q_layernorm", "layers.{l}.self_attn.k_layernorm"],
    ln_final: "final_layernorm",
    ..Layout::LLAMA
};

fn resolve(raw: &RawConfig) -> Result<ModelConfig> {
    let mut config = llama_like(raw, FAMILY.model_type, &DEFAULTS)?;
    config.norm = Norm::layer(config.norm.eps);
    config.mlp = MlpKind::Plain;
    config.biases = gpt2::ALL_BIASES;
    if raw.flag("qk_layernorm", true)? {
        config.qk_norm = Some(QkNorm::new(config.norm, QkSpan::Head));
    }
    config.layout = LAYOUT;
    Ok(config)
}
