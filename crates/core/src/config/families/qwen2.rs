//! Qwen 2: Llama with biases on queries, keys and values. Defaults: `transformers` `Qwen2Config`.

use super::Family;
use crate::config::common::{LlamaDefaults, llama_like, windows};
use crate::config::{ModelConfig, RawConfig, limits};
use crate::error::Result;

pub(super) const FAMILY: Family = Family { model_type: "qwen2", resolve, harmless: &[] };

const DEFAULTS: LlamaDefaults = LlamaDefaults {
    d_vocab: 151936,
    d_mlp: 22016,
    n_key_value_heads: Some(32),
    n_context: 32768,
    ..LlamaDefaults::LLAMA
};

fn resolve(raw: &RawConfig) -> Result<ModelConfig> {
    let mut config = llama_like(raw, FAMILY.model_type, &DEFAULTS)?;
    raw.must_be_off("use_mrope", "rotary positions of several axes are for images")?;
    config.biases.qkv = true;
    let window = window(raw, Some(4096))?;
    let first = raw.count_from_0("max_window_layers", 28, limits::LAYERS)?;
    config.windows = windows(raw, config.n_layers, window, |l| window.is_some() && l >= first)?;
    Ok(config)
}

/// `sliding_window`, where `use_sliding_window` is on; `default` where the key is missing, none where it is `null`.
pub(super) fn window(raw: &RawConfig, default: Option<usize>) -> Result<Option<usize>> {
    let found = raw.optional_count("sliding_window", limits::CONTEXT)?;
    let window = if raw.is_null("sliding_window") { None } else { found.or(default) };
    Ok(if raw.flag("use_sliding_window", false)? { window } else { None })
}
