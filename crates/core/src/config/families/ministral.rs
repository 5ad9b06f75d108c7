//! Ministral: Mistral with a window in some layers or in all. Defaults: `transformers` `MinistralConfig`.

use super::Family;
use crate::config::common::{LlamaDefaults, llama_like, sliding_window, windows};
use crate::config::{ModelConfig, RawConfig};
use crate::error::Result;

pub(super) const FAMILY: Family = Family { model_type: "ministral", resolve, harmless: &[] };

const DEFAULTS: LlamaDefaults =
    LlamaDefaults { d_mlp: 14336, n_key_value_heads: Some(8), n_context: 131072, ..LlamaDefaults::LLAMA };

fn resolve(raw: &RawConfig) -> Result<ModelConfig> {
    let mut config = llama_like(raw, FAMILY.model_type, &DEFAULTS)?;
    let window = sliding_window(raw, 4096)?;
    config.windows = windows(raw, config.n_layers, window, |_| window.is_some())?;
    Ok(config)
}
