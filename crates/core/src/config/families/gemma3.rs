//! Gemma 3 (text): Gemma 2 with normed queries and keys, and rotary positions of two speeds. Defaults: `transformers` `Gemma3TextConfig`.

use super::Family;
use crate::config::common::{LlamaDefaults, llama_like, windows};
use crate::config::{ModelConfig, QkNorm, QkSpan, RawConfig, limits, rope};
use crate::error::Result;

pub(super) const FAMILY: Family = Family {
    model_type: "gemma3_text",
    resolve,
    harmless: &["attn_logit_softcapping", "hidden_act", "cache_implementation"],
};

const DEFAULTS: LlamaDefaults =
    LlamaDefaults { d_vocab: 262_208, n_context: 131_072, theta: 1_000_000.0, ..super::gemma2::DEFAULTS };

fn resolve(raw: &RawConfig) -> Result<ModelConfig> {
    let mut config = llama_like(raw, FAMILY.model_type, &DEFAULTS)?;
    super::gemma2::gemma2(raw, &mut config)?;
    config.qk_norm = Some(QkNorm::new(config.norm, QkSpan::Head));
    config.logit_cap = raw.optional_positive("final_logit_softcapping")?;
    let window = raw.count("sliding_window", 4096, limits::CONTEXT)?;
    let nth = raw.count(raw.either("sliding_window_pattern", "_sliding_window_pattern")?, 6, limits::LAYERS)?;
    config.windows = windows(raw, config.n_layers, Some(window), |l| (l + 1) % nth != 0)?;
    // older configs: rope_theta and rope_scaling are of the full layers, rope_local_base_freq of the others
    let local = raw.positive("rope_local_base_freq", 10_000.0)?;
    rope::by_layer_type(raw, &mut config, 1_000_000.0, local)?;
    Ok(config)
}
