//! EXAONE 4: norms after the sublayers only, normed queries and keys; where some layers have windows, only those have
//! positions. Defaults: `transformers` `Exaone4Config`.

use super::Family;
use crate::config::common::{LlamaDefaults, llama_like, sliding_window, windows};
use crate::config::{Layout, ModelConfig, QkNorm, QkSpan, RawConfig, limits, rope};
use crate::error::Result;

pub(super) const FAMILY: Family = Family { model_type: "exaone4", resolve, harmless: &[] };

const DEFAULTS: LlamaDefaults = LlamaDefaults {
    d_vocab: 102400,
    d_mlp: 16384,
    n_key_value_heads: Some(32),
    eps: ("rms_norm_eps", 1e-5),
    ..LlamaDefaults::LLAMA
};

fn resolve(raw: &RawConfig) -> Result<ModelConfig> {
    let mut config = llama_like(raw, FAMILY.model_type, &DEFAULTS)?;
    config.qk_norm = Some(QkNorm::new(config.norm, QkSpan::Head));
    config.layout = Layout {
        ln1: None,
        ln1_post: Some("layers.{l}.post_attention_layernorm"),
        ln2: None,
        ln2_post: Some("layers.{l}.post_feedforward_layernorm"),
        ..Layout::LLAMA
    };
    windows_of(raw, &mut config)?;
    Ok(config)
}

/// Windows, and rotary positions in layers with one; in all layers where the config has none.
pub(super) fn windows_of(raw: &RawConfig, config: &mut ModelConfig) -> Result<()> {
    let window = sliding_window(raw, 4096)?;
    let nth = if raw.has("layer_types") {
        raw.ignore(&["sliding_window_pattern"]); // a number or a text like "LLLG", read only without the list
        1
    } else {
        raw.count("sliding_window_pattern", 4, limits::LAYERS)?
    };
    config.windows = windows(raw, config.n_layers, window, |l| (l + 1) % nth != 0)?;
    if window.is_some() {
        rope::only_in_windows(config);
    }
    Ok(())
}
