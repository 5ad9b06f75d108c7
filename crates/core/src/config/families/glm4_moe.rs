//! GLM 4.5 (with experts): DeepSeek's router, a shared expert, rotary on half of each head. Defaults: `transformers` `Glm4MoeConfig`.

use super::{Family, qwen3_moe};
use crate::config::common::{LlamaDefaults, llama_like};
use crate::config::{
    Correction, Gating, MlpKind, ModelConfig, QkNorm, QkSpan, RawConfig, Routing, SharedExpertNames, SharedMlpNames,
    limits,
};
use crate::error::Result;

pub(super) const FAMILY: Family = Family {
    model_type: "glm4_moe",
    resolve,
    // further layers that guess the tokens after the next one; their tensors are refused where they are stored
    harmless: &["num_mtp_layers", "num_nextn_predict_layers", "output_router_logits"],
};

const DEFAULTS: LlamaDefaults = LlamaDefaults {
    d_vocab: 151552,
    d_mlp: 10944,
    n_layers: 46,
    n_heads: 96,
    n_key_value_heads: Some(8),
    n_context: 131072,
    eps: ("rms_norm_eps", 1e-5),
    rotary_share: Some(0.5),
    ..LlamaDefaults::LLAMA
};

fn resolve(raw: &RawConfig) -> Result<ModelConfig> {
    let mut config = llama_like(raw, FAMILY.model_type, &DEFAULTS)?;
    config.biases.qkv = raw.flag("attention_bias", false)?; // never on the output
    if raw.flag("use_qk_norm", false)? {
        config.qk_norm = Some(QkNorm::new(config.norm, QkSpan::Head));
    }
    let defaults = ExpertDefaults { n_experts: Some(128), top_k: Some(8), d_mlp: 1408, normalized: true };
    let experts = Some(raw.either("n_routed_experts", "num_local_experts")?);
    experts_like_deepseek(raw, &mut config, experts, defaults)?;
    shared_experts(raw, &mut config, "n_shared_experts", Some(1))?;
    let first = raw.count_from_0("first_k_dense_replace", 1, limits::LAYERS)?;
    config.dense_layers = (0..config.n_layers.min(first)).collect();
    Ok(config)
}

/// Defaults of a family with DeepSeek's router; `None`: the class has none.
pub(super) struct ExpertDefaults {
    pub n_experts: Option<usize>,
    pub top_k: Option<usize>,
    pub d_mlp: usize,
    pub normalized: bool,
}

/// Experts that are chosen by the sigmoid of their logits and a stored correction, in groups if the config says so
/// (`Glm4MoeTopkRouter`); `n_experts` is the key of their number.
pub(super) fn experts_like_deepseek(
    raw: &RawConfig,
    config: &mut ModelConfig,
    n_experts: Option<&str>,
    defaults: ExpertDefaults,
) -> Result<()> {
    let n_experts = raw.count_or(n_experts.unwrap_or("num_experts"), defaults.n_experts, limits::EXPERTS)?;
    let top_k = raw.count_or("num_experts_per_tok", defaults.top_k, n_experts)?;
    let normalized = raw.flag("norm_topk_prob", defaults.normalized)?;
    let gating = if normalized { Gating::SigmoidOfChosen } else { Gating::Sigmoid };
    let scale = raw.positive("routed_scaling_factor", 1.0)?;
    let routing = Routing { corrected: true, groups: groups(raw, n_experts, top_k)?, scale };
    config.mlp = MlpKind::Experts { n_experts, top_k, gating, routing, shared: None, swiglu: None };
    config.d_mlp = raw.count("moe_intermediate_size", defaults.d_mlp, limits::D_MLP)?;
    config.layout.mlp = qwen3_moe::EXPERTS;
    config.layout.router_correction =
        Some(Correction { name: "layers.{l}.mlp.gate.e_score_correction_bias", in_a_row: false });
    Ok(())
}

/// `n_group` groups of experts, of which `topk_group` are chosen from.
fn groups(raw: &RawConfig, n_experts: usize, top_k: usize) -> Result<Option<[usize; 2]>> {
    let n = raw.count("n_group", 1, n_experts)?;
    let kept = raw.count("topk_group", 1, n)?;
    let size = n_experts / n;
    if !n_experts.is_multiple_of(n) || size < 2 || top_k > kept * size {
        let found = format!("{n} groups of {n_experts} experts, {top_k} chosen from {kept} of them");
        return Err(raw.invalid("n_group", found, "equal groups of two experts or more, with enough to choose from"));
    }
    Ok((n > 1).then_some([n, kept]))
}

/// A shared expert as wide as so many experts, which is added in full.
pub(super) fn shared_experts(
    raw: &RawConfig,
    config: &mut ModelConfig,
    key: &str,
    default: Option<usize>,
) -> Result<()> {
    let width = config.d_mlp * raw.count_or(key, default, limits::EXPERTS)?;
    if let MlpKind::Experts { shared, .. } = &mut config.mlp {
        *shared = Some(width);
    }
    config.layout.shared_expert = Some(SharedExpertNames {
        mlp: SharedMlpNames::Gated([
            "layers.{l}.mlp.shared_experts.gate_proj",
            "layers.{l}.mlp.shared_experts.up_proj",
            "layers.{l}.mlp.shared_experts.down_proj",
        ]),
        score: None,
    });
    Ok(())
}
