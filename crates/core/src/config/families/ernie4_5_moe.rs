//! ERNIE 4.5 with experts: chosen by their softmax and a stored correction, and a shared one. Defaults: `transformers`
//! `Ernie4_5_MoeConfig`.

use super::{Family, qwen3_moe};
use crate::config::common::{LlamaDefaults, llama_like};
use crate::config::{
    Correction, Gating, MlpKind, ModelConfig, RawConfig, RotaryStyle, Routing, SharedExpertNames, SharedMlpNames,
    limits,
};
use crate::error::Result;

pub(super) const FAMILY: Family = Family {
    model_type: "ernie4_5_moe",
    resolve,
    harmless: &["moe_capacity", "output_router_logits", "router_aux_loss_coef"],
};

const DEFAULTS: LlamaDefaults = LlamaDefaults {
    d_vocab: 103424,
    d_model: 2560,
    d_mlp: 12288,
    n_layers: 28,
    n_heads: 20,
    n_key_value_heads: Some(4),
    n_context: 131072,
    eps: ("rms_norm_eps", 1e-5),
    theta: 500_000.0,
    tied: true,
    rotary_style: RotaryStyle::Pairs,
    ..LlamaDefaults::LLAMA
};

fn resolve(raw: &RawConfig) -> Result<ModelConfig> {
    let mut config = llama_like(raw, FAMILY.model_type, &DEFAULTS)?;
    raw.must_be_off("use_bias", "biases beside experts without are not implemented")?;
    if raw.positive("moe_norm_min", 1e-12)? > 1e-9 {
        return Err(raw.unsupported("moe_norm_min", "a bound that gates can reach is not implemented"));
    }
    let n_experts = raw.count(raw.either("moe_num_experts", "num_experts")?, 64, limits::EXPERTS)?;
    let top_k = raw.count(raw.either("moe_k", "num_experts_per_tok")?, 6, n_experts)?;
    let routing = Routing { corrected: true, ..Routing::default() };
    config.d_mlp = raw.count("moe_intermediate_size", 1536, limits::D_MLP)?;
    let shared = config.d_mlp * raw.count_from_0("moe_num_shared_experts", 2, limits::EXPERTS)?;
    let shared = (shared > 0).then_some(shared);
    config.mlp = MlpKind::Experts { n_experts, top_k, gating: Gating::SoftmaxOfChosen, routing, shared, swiglu: None };
    config.dense_layers = dense_layers(raw, config.n_layers)?;
    config.layout.mlp = qwen3_moe::EXPERTS;
    config.layout.router_correction =
        Some(Correction { name: "layers.{l}.mlp.moe_statics.e_score_correction_bias", in_a_row: true });
    config.layout.shared_expert = Some(SharedExpertNames {
        mlp: SharedMlpNames::Gated([
            "layers.{l}.mlp.shared_experts.gate_proj",
            "layers.{l}.mlp.shared_experts.up_proj",
            "layers.{l}.mlp.shared_experts.down_proj",
        ]),
        score: None,
    });
    Ok(config)
}

/// Experts from one layer to another, −1 for the last, in every so-many-th.
fn dense_layers(raw: &RawConfig, n_layers: usize) -> Result<Vec<usize>> {
    let first = raw.count_from_0("moe_layer_start_index", 1, limits::LAYERS)?;
    let key = "moe_layer_end_index";
    let to_the_last = raw.value(key).is_none_or(|value| value == -1);
    let last = if to_the_last { n_layers - 1 } else { raw.count_from_0(key, n_layers, limits::LAYERS)? };
    let step = raw.count("moe_layer_interval", 1, limits::LAYERS)?;
    Ok((0..n_layers).filter(|l| (l + 1) % step != 0 || *l < first || *l > last).collect())
}
