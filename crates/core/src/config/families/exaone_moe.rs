//! K-EXAONE: normed queries and keys, positions in the layers with a window only, DeepSeek's router, a shared expert. Defaults:
//! `transformers` `ExaoneMoeConfig`.

use super::Family;
use super::exaone4::windows_of;
use super::glm4_moe::{ExpertDefaults, experts_like_deepseek, shared_experts};
use crate::config::common::{LlamaDefaults, dense_layers, llama_like};
use crate::config::{Correction, MlpKind, ModelConfig, QkNorm, QkSpan, RawConfig, limits};
use crate::error::Result;

pub(super) const FAMILY: Family = Family { model_type: "exaone_moe", resolve, harmless: &["output_router_logits"] };

const DEFAULTS: LlamaDefaults = LlamaDefaults {
    d_vocab: 102400,
    d_mlp: 16384,
    n_key_value_heads: Some(32),
    eps: ("rms_norm_eps", 1e-5),
    ..LlamaDefaults::LLAMA
};

fn resolve(raw: &RawConfig) -> Result<ModelConfig> {
    let mut config = llama_like(raw, FAMILY.model_type, &DEFAULTS)?;
    config.qk_norm = Some(QkNorm::new(config.norm, QkSpan::Head));
    windows_of(raw, &mut config)?;
    let defaults = ExpertDefaults { n_experts: Some(64), top_k: Some(8), d_mlp: 1024, normalized: true };
    experts_like_deepseek(raw, &mut config, None, defaults)?;
    if let MlpKind::Experts { routing, .. } = &mut config.mlp {
        routing.scale = raw.positive("routed_scaling_factor", 2.5)?;
    }
    shared_experts(raw, &mut config, "num_shared_experts", Some(1))?;
    config.layout.router_correction =
        Some(Correction { name: "layers.{l}.mlp.e_score_correction_bias", in_a_row: false });
    let first = raw.count_from_0("first_k_dense_replace", 1, limits::LAYERS)?;
    config.dense_layers = dense_layers(raw, config.n_layers, |l| l < first)?;
    Ok(config)
}
