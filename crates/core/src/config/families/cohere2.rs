//! Cohere 2 (Command R7B, A): Cohere with windows in most layers, and rotary positions in those only. Defaults: `transformers` `Cohere2Config`.

use super::Family;
use crate::config::common::{LlamaDefaults, llama_like, sliding_window, windows};
use crate::config::{ModelConfig, RawConfig, limits, rope};
use crate::error::Result;

pub(super) const FAMILY: Family = Family { model_type: "cohere2", resolve, harmless: &["cache_implementation"] };

const DEFAULTS: LlamaDefaults = LlamaDefaults { theta: 10_000.0, ..super::cohere::DEFAULTS };

fn resolve(raw: &RawConfig) -> Result<ModelConfig> {
    let mut config = llama_like(raw, FAMILY.model_type, &DEFAULTS)?;
    super::cohere::cohere(raw, &mut config)?;
    only_as_its_class(raw)?;
    let window = sliding_window(raw, 4096)?;
    let nth = raw.count("sliding_window_pattern", 4, limits::LAYERS)?;
    if !raw.has("layer_types") && raw.optional_count("layer_switch", limits::LAYERS)?.is_some_and(|n| n != nth) {
        return Err(raw.unsupported("layer_switch", &format!("the class takes every {nth}th layer without a window")));
    }
    raw.ignore(&["layer_switch"]); // repeats the pattern
    config.windows = windows(raw, config.n_layers, window, |l| (l + 1) % nth != 0)?;
    rope::only_in_windows(&mut config);
    Ok(config)
}

/// Keys of published configs that its class does not read: they may only say what it does anyway.
fn only_as_its_class(raw: &RawConfig) -> Result<()> {
    if raw.positive("rotary_pct", 1.0)? != 1.0 {
        return Err(raw.unsupported("rotary_pct", "the class turns whole heads"));
    }
    raw.must_be_off("use_qk_norm", "the class has no norm of queries and keys")?;
    for key in ["use_embedding_sharing", "use_gated_activation", "use_parallel_block", "use_parallel_embedding"] {
        raw.must_be_on(key, "the class has no other form")?;
    }
    for (key, only) in [("position_embedding_type", "rope_gptj"), ("order_of_interleaved_layers", "local_attn_first")] {
        if raw.text(key)?.is_some_and(|text| text != only) {
            return Err(raw.unsupported(key, &format!("the class has no other form than {only}")));
        }
    }
    Ok(())
}
