//! Mistral: Llama with a sliding window in every layer. Defaults: `transformers` `MistralConfig`.

use super::Family;
use crate::config::common::{LlamaDefaults, llama_like};
use crate::config::{ModelConfig, RawConfig, limits};
use crate::error::Result;

pub(super) const FAMILY: Family = Family { model_type: "mistral", resolve, harmless: &[] };

const DEFAULTS: LlamaDefaults =
    LlamaDefaults { d_mlp: 14336, n_key_value_heads: Some(8), n_context: 131072, ..LlamaDefaults::LLAMA };

fn resolve(raw: &RawConfig) -> Result<ModelConfig> {
    let mut config = llama_like(raw, FAMILY.model_type, &DEFAULTS)?;
    // absent: 4096; null: no window
    let window =
        if raw.is_null("sliding_window") { None } else { Some(raw.count("sliding_window", 4096, limits::CONTEXT)?) };
    config.windows = vec![window; config.n_layers];
    Ok(config)
}
