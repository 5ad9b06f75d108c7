//! Mellum 2: Qwen 3 with experts, windows and rotary positions by layer type. Defaults: `transformers` `MellumConfig`.

use super::{Family, qwen3_moe};
use crate::config::common::{LlamaDefaults, attention_biases, dense_layers, llama_like, sliding_window, windows};
use crate::config::{Gating, MlpKind, ModelConfig, QkNorm, QkSpan, RawConfig, rope};
use crate::error::Result;

pub(super) const FAMILY: Family = Family {
    model_type: "mellum",
    resolve,
    harmless: &[
        // further layers that guess the tokens after the next one
        "mtp_layer_types",
        "mtp_mlp_layer_types",
        "num_mtp_layers",
        "num_nextn_predict_layers",
        "output_router_logits",
        "router_aux_loss_coef",
    ],
};

const DEFAULTS: LlamaDefaults = LlamaDefaults {
    d_vocab: 98304,
    d_model: 2304,
    d_mlp: 7168,
    n_layers: 28,
    n_key_value_heads: Some(4),
    d_head: Some(128),
    n_context: 131072,
    ..LlamaDefaults::LLAMA
};

fn resolve(raw: &RawConfig) -> Result<ModelConfig> {
    for key in ["rope_theta", "rope_scaling"] {
        if raw.has(key) {
            return Err(raw.unsupported(key, "the class reads rope_parameters only"));
        }
    }
    let mut config = llama_like(raw, FAMILY.model_type, &DEFAULTS)?;
    config.biases = attention_biases(raw)?;
    config.qk_norm = Some(QkNorm::new(config.norm, QkSpan::Head));
    let window = sliding_window(raw, 1024)?;
    config.windows = windows(raw, config.n_layers, window, |_| false)?;
    rope::by_layer_type(raw, &mut config, 500_000.0, 10_000.0)?;
    qwen3_moe::experts(raw, &mut config, [64, 8, 896])?;
    let normalized = raw.flag("norm_topk_prob", true)?;
    if let MlpKind::Experts { gating, .. } = &mut config.mlp {
        *gating = if normalized { Gating::SoftmaxOfChosen } else { Gating::Softmax };
    }
    for key in ["mlp_only_layers", "decoder_sparse_step"] {
        if raw.has(key) {
            return Err(raw.unsupported(key, "the class reads mlp_layer_types"));
        }
    }
    config.dense_layers = dense_layers(raw, config.n_layers, |_| false)?;
    Ok(config)
}
