//! Flint: Qwen 3 with windows, positions in the layers with one only, attention sinks, sigmoid gates and a shared expert. Defaults: `transformers` `FlintConfig`.

use super::{Family, qwen3_moe};
use crate::config::common::{LlamaDefaults, attention_biases, llama_like, windows};
use crate::config::{
    Gating, MlpKind, ModelConfig, QkNorm, QkSpan, RawConfig, SharedExpertNames, SharedMlpNames, limits, rope,
};
use crate::error::Result;

pub(super) const FAMILY: Family =
    Family { model_type: "flint", resolve, harmless: &["output_router_logits", "router_aux_loss_coef"] };

const DEFAULTS: LlamaDefaults = LlamaDefaults {
    d_vocab: 150144,
    d_model: 2048,
    d_mlp: 6144,
    n_layers: 49,
    n_key_value_heads: Some(4),
    d_head: Some(128),
    n_context: 262144,
    ..LlamaDefaults::LLAMA
};

fn resolve(raw: &RawConfig) -> Result<ModelConfig> {
    let mut config = llama_like(raw, FAMILY.model_type, &DEFAULTS)?;
    config.biases = attention_biases(raw)?;
    config.qk_norm = Some(QkNorm::new(config.norm, QkSpan::Head));
    let (last, window) = (config.n_layers - 1, raw.count("sliding_window", 513, limits::CONTEXT)?);
    config.windows = windows(raw, config.n_layers, Some(window), |l| l >= 2 && l % 4 != 1 && l != last)?;
    rope::only_in_windows(&mut config);
    experts(raw, &mut config)?;
    config.attention_sinks = true;
    config.layout.sinks = Some("layers.{l}.self_attn.softmax_offset");
    config.layout.shared_expert = Some(SharedExpertNames {
        mlp: SharedMlpNames::Gated([
            "layers.{l}.mlp.shared_expert.gate_proj",
            "layers.{l}.mlp.shared_expert.up_proj",
            "layers.{l}.mlp.shared_expert.down_proj",
        ]),
        score: None,
    });
    Ok(config)
}

/// As Qwen's, with sigmoids in place of the softmax; without a list the first two layers have none.
fn experts(raw: &RawConfig, config: &mut ModelConfig) -> Result<()> {
    qwen3_moe::experts(raw, config, [256, 6, 512])?;
    let normalized = raw.flag("norm_topk_prob", true)?;
    if let MlpKind::Experts { gating, shared, .. } = &mut config.mlp {
        *gating = if normalized { Gating::SigmoidOfChosen } else { Gating::Sigmoid };
        *shared = Some(raw.count("shared_expert_intermediate_size", 1024, limits::D_MLP)?);
    }
    if !raw.has("mlp_only_layers") {
        let first_two = (0..config.n_layers.min(2)).filter(|l| !config.dense_layers.contains(l)).collect::<Vec<_>>();
        config.dense_layers.extend(first_two);
        config.dense_layers.sort_unstable();
    }
    Ok(())
}
