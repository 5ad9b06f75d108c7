//! Qwen 3 with experts. Defaults: `transformers` `Qwen3MoeConfig`.

use super::Family;
use crate::config::common::{LlamaDefaults, attention_biases, llama_like};
use crate::config::{Gating, Layout, MlpKind, MlpNames, ModelConfig, QkNorm, QkSpan, RawConfig, Routing, limits};
use crate::error::Result;

pub(super) const FAMILY: Family = Family {
    model_type: "qwen3_moe",
    resolve,
    harmless: &["max_window_layers", "output_router_logits", "router_aux_loss_coef"],
};

const DEFAULTS: LlamaDefaults = LlamaDefaults {
    d_vocab: 151936,
    d_model: 2048,
    d_mlp: 6144,
    n_layers: 24,
    n_key_value_heads: Some(4),
    n_context: 32768,
    ..LlamaDefaults::LLAMA
};

/// Where experts lie that are kept one by one, and the MLPs of layers without.
pub(super) const EXPERTS: MlpNames = MlpNames::Experts {
    router: "layers.{l}.mlp.gate",
    experts: [
        "layers.{l}.mlp.experts.{e}.gate_proj",
        "layers.{l}.mlp.experts.{e}.up_proj",
        "layers.{l}.mlp.experts.{e}.down_proj",
    ],
    dense: ["layers.{l}.mlp.gate_proj", "layers.{l}.mlp.up_proj", "layers.{l}.mlp.down_proj"],
};

/// The same as transformers 5 holds them; Mixtral's have these names, too.
pub(super) const STACKED: [&str; 3] =
    ["layers.{l}.mlp.gate", "layers.{l}.mlp.experts.gate_up_proj", "layers.{l}.mlp.experts.down_proj"];

fn resolve(raw: &RawConfig) -> Result<ModelConfig> {
    let mut config = llama_like(raw, FAMILY.model_type, &DEFAULTS)?;
    config.biases = attention_biases(raw)?;
    config.qk_norm = Some(QkNorm::new(config.norm, QkSpan::Head));
    config.windows = vec![super::qwen2::window(raw, Some(4096))?; config.n_layers];
    experts(raw, &mut config, [128, 8, 768])?;
    Ok(config)
}

/// Experts that are kept one by one, and which layers have them; `defaults` are those of their number, of how many a
/// token gets, and of their width.
pub(super) fn experts(raw: &RawConfig, config: &mut ModelConfig, defaults: [usize; 3]) -> Result<()> {
    let n_experts = raw.count(raw.either("num_experts", "num_local_experts")?, defaults[0], limits::EXPERTS)?;
    let top_k = raw.count("num_experts_per_tok", defaults[1], n_experts)?;
    let gating = if raw.flag("norm_topk_prob", false)? { Gating::SoftmaxOfChosen } else { Gating::Softmax };
    config.mlp = MlpKind::Experts { n_experts, top_k, gating, routing: Routing::default(), shared: None, swiglu: None };
    config.d_mlp = raw.count("moe_intermediate_size", defaults[2], limits::D_MLP)?;
    let step = raw.count("decoder_sparse_step", 1, limits::LAYERS)?;
    let dense = raw.counts("mlp_only_layers")?.unwrap_or_default();
    config.dense_layers = (0..config.n_layers).filter(|l| dense.contains(l) || (l + 1) % step != 0).collect();
    config.layout = Layout { mlp: EXPERTS, stacked: Some(STACKED), ..Layout::LLAMA };
    Ok(())
}
