//! StarCoder 2: layer norms, a plain MLP, biases. Defaults: `transformers` `Starcoder2Config`.

use super::Family;
use crate::config::common::{LlamaDefaults, llama_like};
use crate::config::{Biases, Layout, MlpKind, MlpNames, ModelConfig, Norm, RawConfig, limits};
use crate::error::Result;

pub(super) const FAMILY: Family = Family {
    model_type: "starcoder2",
    resolve,
    harmless: &[
        "attention_softmax_in_fp32",
        "scale_attention_softmax_in_fp32",
        "activation_function",
        "layer_norm_epsilon",
        "embedding_dropout",
        "residual_dropout",
    ],
};

const DEFAULTS: LlamaDefaults = LlamaDefaults {
    d_vocab: 49152,
    d_model: 3072,
    d_mlp: 12288,
    n_layers: 30,
    n_heads: 24,
    n_key_value_heads: Some(2),
    n_context: 4096,
    eps: ("norm_epsilon", 1e-5),
    tied: true,
    activation: ("hidden_act", "gelu_pytorch_tanh"),
    ..LlamaDefaults::LLAMA
};

fn resolve(raw: &RawConfig) -> Result<ModelConfig> {
    let mut config = llama_like(raw, FAMILY.model_type, &DEFAULTS)?;
    raw.must_be_on("scale_attn_weights", "the class scales them whatever it says")?;
    for (key, only) in [("mlp_type", "default"), ("norm_type", "layer_norm")] {
        if raw.text(key)?.is_some_and(|text| text != only) {
            return Err(raw.unsupported(key, &format!("the class has no other form than {only}")));
        }
    }
    let bias = raw.flag("use_bias", true)?;
    config.biases = Biases { qkv: bias, attn_out: bias, mlp: bias, ..Biases::default() };
    config.norm = Norm::layer(config.norm.eps);
    config.mlp = MlpKind::Plain;
    config.layout = Layout { mlp: MlpNames::Plain(["layers.{l}.mlp.c_fc", "layers.{l}.mlp.c_proj"]), ..Layout::LLAMA };
    config.windows = vec![raw.optional_count("sliding_window", limits::CONTEXT)?; config.n_layers];
    Ok(config)
}
