//! Llama 1 to 3. Defaults: `transformers` `LlamaConfig`.

use super::Family;
use crate::config::common::{LlamaDefaults, llama_biases, llama_like};
use crate::config::{ModelConfig, RawConfig};
use crate::error::Result;

pub(super) const FAMILY: Family =
    Family { model_type: "llama", resolve, harmless: &["is_llama_config", "max_sequence_length"] };

const DEFAULTS: LlamaDefaults = LlamaDefaults::LLAMA;

fn resolve(raw: &RawConfig) -> Result<ModelConfig> {
    let mut config = llama_like(raw, FAMILY.model_type, &DEFAULTS)?;
    config.biases = llama_biases(raw)?;
    raw.must_be_off("rope_interleaved", "the class turns halves of a head, not pairs")?;
    Ok(config)
}
