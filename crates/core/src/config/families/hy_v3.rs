//! HunYuan 3: normed queries and keys, sigmoid router with a correction, a shared expert. Defaults: `transformers` `HYV3Config`.

use super::{Family, qwen3_moe};
use crate::config::common::{LlamaDefaults, attention_biases, dense_layers, llama_like};
use crate::config::{
    Correction, Gating, MlpKind, MlpNames, ModelConfig, QkNorm, QkSpan, RawConfig, Routing, SharedExpertNames,
    SharedMlpNames, limits,
};
use crate::error::Result;

pub(super) const FAMILY: Family = Family {
    model_type: "hy_v3",
    resolve,
    harmless: &["enable_moe_fp32_combine", "output_router_logits"], // the precision of a sum, f32 here in any case
};

const DEFAULTS: LlamaDefaults = LlamaDefaults {
    d_vocab: 120832,
    d_mlp: 13312,
    n_layers: 80,
    n_heads: 64,
    n_key_value_heads: Some(8),
    d_head: Some(128),
    n_context: 131072,
    eps: ("rms_norm_eps", 1e-5),
    theta: 11_158_840.0,
    ..LlamaDefaults::LLAMA
};

fn resolve(raw: &RawConfig) -> Result<ModelConfig> {
    let mut config = llama_like(raw, FAMILY.model_type, &DEFAULTS)?;
    config.biases = attention_biases(raw)?;
    raw.must_be_off("mlp_bias", "biases beside experts without are not implemented")?;
    config.qk_norm = Some(QkNorm::new(config.norm, QkSpan::Head));
    let n_experts = raw.count(raw.either("num_experts", "num_local_experts")?, 192, limits::EXPERTS)?;
    let top_k = raw.count("num_experts_per_tok", 8, n_experts)?;
    let scale = raw.positive("router_scaling_factor", 2.826)?;
    let routing = Routing { corrected: true, groups: None, scale };
    config.d_mlp = raw.count("moe_intermediate_size", 1536, limits::D_MLP)?;
    let shared = Some(config.d_mlp * raw.count("num_shared_experts", 1, limits::EXPERTS)?);
    config.mlp = MlpKind::Experts { n_experts, top_k, gating: Gating::SigmoidOfChosen, routing, shared, swiglu: None };
    config.dense_layers = dense_layers(raw, config.n_layers, |l| l == 0)?;
    if let MlpNames::Experts { experts, dense, .. } = qwen3_moe::EXPERTS {
        config.layout.mlp = MlpNames::Experts { router: "layers.{l}.mlp.router.gate", experts, dense };
    }
    config.layout.router_correction = Some(Correction { name: "layers.{l}.mlp.expert_bias", in_a_row: false });
    config.layout.shared_expert = Some(SharedExpertNames {
        mlp: SharedMlpNames::Gated([
            "layers.{l}.mlp.shared_mlp.gate_proj",
            "layers.{l}.mlp.shared_mlp.up_proj",
            "layers.{l}.mlp.shared_mlp.down_proj",
        ]),
        score: None,
    });
    Ok(config)
}
