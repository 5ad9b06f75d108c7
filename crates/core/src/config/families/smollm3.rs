//! SmolLM 3: Llama with layers that have no positions. Defaults: `transformers` `SmolLM3Config`.

use super::Family;
use crate::config::common::{LlamaDefaults, llama_biases, llama_like, windows};
use crate::config::{ModelConfig, Positions, RawConfig, limits};
use crate::error::Result;

pub(super) const FAMILY: Family = Family { model_type: "smollm3", resolve, harmless: &["max_window_layers"] };

const DEFAULTS: LlamaDefaults = LlamaDefaults {
    d_vocab: 128256,
    d_model: 2048,
    n_layers: 36,
    n_heads: 16,
    n_key_value_heads: Some(4),
    n_context: 32768,
    theta: 2_000_000.0,
    tied: true,
    ..LlamaDefaults::LLAMA
};

fn resolve(raw: &RawConfig) -> Result<ModelConfig> {
    let mut config = llama_like(raw, FAMILY.model_type, &DEFAULTS)?;
    config.biases = llama_biases(raw)?;
    let interval = raw.count("no_rope_layer_interval", 4, limits::LAYERS)?;
    let with_rope = raw.counts("no_rope_layers")?;
    let with_rope =
        with_rope.unwrap_or_else(|| (1..=config.n_layers).map(|l| usize::from(l % interval != 0)).collect());
    if with_rope.len() != config.n_layers {
        let expected = format!("{} numbers", config.n_layers);
        return Err(raw.invalid("no_rope_layers", format!("{} numbers", with_rope.len()), expected));
    }
    let window = super::qwen2::window(raw, None)?;
    config.windows = windows(raw, config.n_layers, window, |l| window.is_some() && with_rope[l] == 0)?;
    if let Positions::Rotary { layers } = &mut config.positions {
        layers.iter_mut().zip(with_rope).filter(|(_, with)| *with == 0).for_each(|(rotary, _)| *rotary = None);
    }
    Ok(config)
}
