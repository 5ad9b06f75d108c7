//! Phi 1 and 2: parallel blocks with one norm, rotary on half of each head, an unembedding with a bias. Defaults:
//! `transformers` `PhiConfig`.

use super::{Family, gpt2};
use crate::config::common::{LlamaDefaults, llama_like};
use crate::config::{Biases, Layout, MlpKind, MlpNames, ModelConfig, Norm, QkNorm, QkSpan, RawConfig};
use crate::error::Result;

pub(super) const FAMILY: Family = Family { model_type: "phi", resolve, harmless: &[] };

const DEFAULTS: LlamaDefaults = LlamaDefaults {
    d_vocab: 51200,
    d_model: 2048,
    d_mlp: 8192,
    n_layers: 24,
    eps: ("layer_norm_eps", 1e-5),
    activation: ("hidden_act", "gelu_new"),
    rotary_share: Some(0.5),
    ..LlamaDefaults::LLAMA
};

const LAYOUT: Layout = Layout {
    ln2: None,
    attn_out: "layers.{l}.self_attn.dense",
    mlp: MlpNames::Plain(["layers.{l}.mlp.fc1", "layers.{l}.mlp.fc2"]),
    qk_norm: ["layers.{l}.self_attn.q_layernorm", "layers.{l}.self_attn.k_layernorm"],
    ln_final: "final_layernorm",
    ..Layout::LLAMA
};

fn resolve(raw: &RawConfig) -> Result<ModelConfig> {
    let mut config = llama_like(raw, FAMILY.model_type, &DEFAULTS)?;
    config.norm = Norm::layer(config.norm.eps);
    config.parallel = true;
    config.mlp = MlpKind::Plain;
    config.biases = Biases { unembed: true, ..gpt2::ALL_BIASES };
    if raw.flag("qk_layernorm", false)? {
        config.qk_norm = Some(QkNorm::new(config.norm, QkSpan::Head));
    }
    config.layout = LAYOUT;
    Ok(config)
}
