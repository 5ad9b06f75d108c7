//! Qwen 2 (1.5) with experts, one of which every token gets. Defaults: `transformers` `Qwen2MoeConfig`.

use super::{Family, qwen3_moe};
use crate::config::common::{LlamaDefaults, llama_like, sliding_window, windows};
use crate::config::{MlpKind, ModelConfig, RawConfig, SharedExpertNames, SharedMlpNames, limits};
use crate::error::Result;

pub(super) const FAMILY: Family =
    Family { model_type: "qwen2_moe", resolve, harmless: &["output_router_logits", "router_aux_loss_coef"] };

const DEFAULTS: LlamaDefaults = LlamaDefaults {
    d_vocab: 151936,
    d_model: 2048,
    d_mlp: 5632,
    n_layers: 24,
    n_heads: 16,
    n_key_value_heads: Some(16),
    n_context: 32768,
    ..LlamaDefaults::LLAMA
};

fn resolve(raw: &RawConfig) -> Result<ModelConfig> {
    let mut config = llama_like(raw, FAMILY.model_type, &DEFAULTS)?;
    config.biases.qkv = raw.flag("qkv_bias", true)?;
    let on = raw.flag("use_sliding_window", false)?;
    raw.ignore(&["sliding_window"]); // 0 where it is off
    let window = if on { sliding_window(raw, 4096)? } else { None };
    let first_full = raw.count_from_0("max_window_layers", 28, limits::LAYERS)?;
    config.windows = windows(raw, config.n_layers, window, |l| on && l % 2 == 0 && l < first_full)?;
    qwen3_moe::experts(raw, &mut config, [60, 4, 1408])?;
    if let MlpKind::Experts { shared, .. } = &mut config.mlp {
        *shared = Some(raw.count("shared_expert_intermediate_size", 5632, limits::D_MLP)?);
    }
    config.layout.shared_expert = Some(SharedExpertNames {
        mlp: SharedMlpNames::Gated([
            "layers.{l}.mlp.shared_expert.gate_proj",
            "layers.{l}.mlp.shared_expert.up_proj",
            "layers.{l}.mlp.shared_expert.down_proj",
        ]),
        score: Some("layers.{l}.mlp.shared_expert_gate"),
    });
    Ok(config)
}
