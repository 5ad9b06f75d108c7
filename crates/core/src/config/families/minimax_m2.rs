//! MiniMax-M2: queries and keys normed over all heads, Mixtral's experts with a sigmoid router. Defaults: `transformers`
//! `MiniMaxM2Config`.

use super::{Family, mixtral};
use crate::config::common::{LlamaDefaults, llama_like};
use crate::config::{Correction, Gating, MlpKind, ModelConfig, Positions, QkNorm, QkSpan, RawConfig, Routing, limits};
use crate::error::Result;

pub(super) const FAMILY: Family = Family {
    model_type: "minimax_m2",
    resolve,
    harmless: &["output_router_logits", "router_aux_loss_coef", "router_jitter_noise"],
};

const DEFAULTS: LlamaDefaults = LlamaDefaults {
    d_vocab: 200064,
    d_model: 3072,
    d_mlp: 1536,
    n_layers: 62,
    n_heads: 48,
    n_key_value_heads: Some(8),
    d_head: Some(128),
    n_context: 196608,
    theta: 5_000_000.0,
    rotary_share: Some(1.0),
    ..LlamaDefaults::LLAMA
};

fn resolve(raw: &RawConfig) -> Result<ModelConfig> {
    let mut config = llama_like(raw, FAMILY.model_type, &DEFAULTS)?;
    rotary_dim(raw, &mut config)?;
    config.qk_norm = Some(QkNorm::new(config.norm, QkSpan::AllHeads));
    let n_experts = raw.count(raw.either("num_local_experts", "num_experts")?, 256, limits::EXPERTS)?;
    let top_k = raw.count("num_experts_per_tok", 8, n_experts)?;
    let routing = Routing { corrected: true, ..Routing::default() };
    let gating = Gating::SigmoidOfChosen;
    config.mlp = MlpKind::Experts { n_experts, top_k, gating, routing, shared: None, swiglu: None };
    config.layout.mlp = mixtral::EXPERTS;
    config.layout.router_correction =
        Some(Correction { name: "layers.{l}.block_sparse_moe.e_score_correction_bias", in_a_row: false });
    Ok(config)
}

/// `rotary_dim`, the older spelling of a share of each head; a share beside it has priority.
fn rotary_dim(raw: &RawConfig, config: &mut ModelConfig) -> Result<()> {
    let Some(dim) = raw.optional_count("rotary_dim", config.d_head)? else { return Ok(()) };
    if raw.has("rope_parameters") || raw.has("rope_scaling") || raw.has("partial_rotary_factor") {
        return match config.rotary(0) {
            Some(rotary) if rotary.dim == dim => Ok(()),
            _ => Err(raw.unsupported("rotary_dim", "the other keys of the rotary positions say something else")),
        };
    }
    if !dim.is_multiple_of(2) {
        return Err(raw.invalid("rotary_dim", dim, "an even number"));
    }
    if let Positions::Rotary { layers } = &mut config.positions {
        layers.iter_mut().flatten().for_each(|rotary| rotary.dim = dim);
    }
    Ok(())
}
