//! Qwen 3: Llama with a norm of every query and key head. Defaults: `transformers` `Qwen3Config`.

use super::Family;
use crate::config::common::{LlamaDefaults, attention_biases, llama_like, windows};
use crate::config::{ModelConfig, QkNorm, QkSpan, RawConfig, limits};
use crate::error::Result;

pub(super) const FAMILY: Family = Family { model_type: "qwen3", resolve, harmless: &[] };

const DEFAULTS: LlamaDefaults = LlamaDefaults {
    d_vocab: 151936,
    d_mlp: 22016,
    n_key_value_heads: Some(32),
    d_head: Some(128),
    n_context: 32768,
    ..LlamaDefaults::LLAMA
};

fn resolve(raw: &RawConfig) -> Result<ModelConfig> {
    let mut config = llama_like(raw, FAMILY.model_type, &DEFAULTS)?;
    config.biases = attention_biases(raw)?;
    config.qk_norm = Some(QkNorm::new(config.norm, QkSpan::Head));
    let window = super::qwen2::window(raw, Some(4096))?;
    let first = raw.count_from_0("max_window_layers", 28, limits::LAYERS)?;
    config.windows = windows(raw, config.n_layers, window, |l| window.is_some() && l >= first)?;
    Ok(config)
}
