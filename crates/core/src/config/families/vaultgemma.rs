//! VaultGemma: Gemma 2 without norms after the sublayers. Defaults: `transformers` `VaultGemmaConfig`.

use super::{Family, gemma2};
use crate::config::common::llama_like;
use crate::config::{Layout, ModelConfig, RawConfig};
use crate::error::Result;

pub(super) const FAMILY: Family =
    Family { model_type: "vaultgemma", resolve, harmless: &["hidden_act", "cache_implementation"] };

fn resolve(raw: &RawConfig) -> Result<ModelConfig> {
    let mut config = llama_like(raw, FAMILY.model_type, &gemma2::DEFAULTS)?;
    gemma2::gemma2(raw, &mut config)?;
    gemma2::caps_and_windows(raw, &mut config)?;
    config.layout = Layout { ln2: Some("layers.{l}.pre_feedforward_layernorm"), ..Layout::LLAMA };
    Ok(config)
}
