//! Code World Model: Llama with windows in three of four layers. Defaults: `transformers` `CwmConfig`.

use super::Family;
use crate::config::common::{LlamaDefaults, llama_like, windows};
use crate::config::{ModelConfig, Positions, RawConfig, RotaryScaling, limits, rope};
use crate::error::Result;

pub(super) const FAMILY: Family = Family { model_type: "cwm", resolve, harmless: &[] };

const DEFAULTS: LlamaDefaults = LlamaDefaults {
    d_vocab: 128256,
    d_model: 6144,
    d_mlp: 21504,
    n_layers: 64,
    n_heads: 48,
    n_key_value_heads: Some(8),
    d_head: Some(128),
    n_context: 131072,
    eps: ("rms_norm_eps", 1e-5),
    theta: 1_000_000.0,
    ..LlamaDefaults::LLAMA
};

/// What the class takes where the config does not speak of rotary positions at all.
const SCALING: RotaryScaling = RotaryScaling::Llama3 { factor: 16.0, low: 1.0, high: 4.0, original: 8192 };

fn resolve(raw: &RawConfig) -> Result<ModelConfig> {
    let mut config = llama_like(raw, FAMILY.model_type, &DEFAULTS)?;
    config.biases.mlp = raw.flag("mlp_bias", false)?;
    if let (false, Positions::Rotary { layers }) = (rope::names_a_scaling(raw)?, &mut config.positions) {
        layers.iter_mut().flatten().for_each(|rotary| rotary.scaling = SCALING);
    }
    let window = raw.count("sliding_window", 8192, limits::CONTEXT)?;
    config.windows = windows(raw, config.n_layers, Some(window), |l| l % 4 != 0)?;
    Ok(config)
}
