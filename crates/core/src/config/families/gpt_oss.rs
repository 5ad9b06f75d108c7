//! gpt-oss: attention sinks, experts in stacked tensors with a clamped gate, every other layer with a window, yarn. Defaults: `transformers` `GptOssConfig`.

use super::Family;
use crate::config::common::{LlamaDefaults, llama_like, windows};
use crate::config::{
    Biases, ClampedSwiglu, Gating, Layout, MlpKind, MlpNames, ModelConfig, Positions, RawConfig, RotaryScaling,
    Routing, Stacking, limits, rope,
};
use crate::error::Result;

pub(super) const FAMILY: Family = Family {
    model_type: "gpt_oss",
    resolve,
    harmless: &["output_router_logits", "router_aux_loss_coef", "initial_context_length"],
};

const DEFAULTS: LlamaDefaults = LlamaDefaults {
    d_vocab: 201088,
    d_model: 2880,
    d_mlp: 2880,
    n_layers: 36,
    n_heads: 64,
    n_key_value_heads: Some(8),
    d_head: Some(64),
    n_context: 131072,
    eps: ("rms_norm_eps", 1e-5),
    theta: 150_000.0,
    ..LlamaDefaults::LLAMA
};

fn resolve(raw: &RawConfig) -> Result<ModelConfig> {
    let mut config = llama_like(raw, FAMILY.model_type, &DEFAULTS)?;
    if let (false, Positions::Rotary { layers }) = (rope::names_a_scaling(raw)?, &mut config.positions) {
        layers.iter_mut().flatten().for_each(|rotary| rotary.scaling = class_scaling());
    }
    let attention = raw.flag("attention_bias", true)?;
    config.biases = Biases { qkv: attention, attn_out: attention, mlp: true, router: true, unembed: false };
    config.attention_sinks = true;
    let window = raw.count("sliding_window", 128, limits::CONTEXT)?;
    config.windows = windows(raw, config.n_layers, Some(window), |l| l % 2 == 0)?;
    let n_experts = raw.count("num_local_experts", 128, limits::EXPERTS)?;
    let top_k = raw.count("num_experts_per_tok", 4, n_experts)?;
    if raw.optional_count("experts_per_token", n_experts)?.is_some_and(|n| n != top_k) {
        return Err(raw.unsupported("experts_per_token", &format!("num_experts_per_tok says {top_k}")));
    }
    let alpha = raw.positive("swiglu_alpha", 1.702)?;
    let limit = raw.positive("swiglu_limit", 7.0)?;
    config.mlp = MlpKind::Experts {
        n_experts,
        top_k,
        gating: Gating::SoftmaxOfChosen,
        routing: Routing::default(),
        shared: None,
        swiglu: Some(ClampedSwiglu { alpha, limit }),
    };
    config.layout = Layout {
        sinks: Some("layers.{l}.self_attn.sinks"),
        mlp: MlpNames::StackedExperts {
            stacking: Stacking::ColumnsInTurn,
            router: "layers.{l}.mlp.router",
            gate_up: "layers.{l}.mlp.experts.gate_up_proj",
            output: "layers.{l}.mlp.experts.down_proj",
        },
        ..Layout::LLAMA
    };
    Ok(config)
}

/// What the class takes where the config says nothing.
fn class_scaling() -> RotaryScaling {
    let factor: f64 = 32.0;
    RotaryScaling::Yarn {
        factor,
        beta_fast: 32.0,
        beta_slow: 1.0,
        truncate: false,
        original: 4096,
        attention_factor: 0.1 * factor.ln() + 1.0,
    }
}
