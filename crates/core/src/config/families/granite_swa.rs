//! Granite with windows, attention sinks, and a θ for every layer. Defaults: `transformers` `GraniteSWAConfig`.

use super::Family;
use crate::config::common::{LlamaDefaults, llama_biases, llama_like, sliding_window, windows};
use crate::config::{ModelConfig, Positions, RawConfig};
use crate::error::Result;

pub(super) const FAMILY: Family = Family { model_type: "granite_swa", resolve, harmless: &[] };

const DEFAULTS: LlamaDefaults = LlamaDefaults {
    d_vocab: 100352,
    d_model: 2560,
    d_mlp: 8192,
    n_layers: 24,
    n_heads: 20,
    n_key_value_heads: Some(4),
    n_context: 8192,
    eps: ("rms_norm_eps", 1e-5),
    tied: true,
    ..LlamaDefaults::LLAMA
};

fn resolve(raw: &RawConfig) -> Result<ModelConfig> {
    let mut config = llama_like(raw, FAMILY.model_type, &DEFAULTS)?;
    super::granite::multipliers(raw, &mut config)?;
    config.biases = llama_biases(raw)?;
    windows_and_sinks(raw, &mut config)?;
    Ok(config)
}

/// What both Granites with windows add.
pub(super) fn windows_and_sinks(raw: &RawConfig, config: &mut ModelConfig) -> Result<()> {
    let window = sliding_window(raw, 128)?;
    config.windows = windows(raw, config.n_layers, window, |l| l % 4 != 0)?;
    config.attention_sinks = true;
    config.layout.sinks = Some("layers.{l}.self_attn.sinks");
    thetas(raw, config)
}

/// `layer_rope_theta`: the θ of every layer, 0 for none at all.
fn thetas(raw: &RawConfig, config: &mut ModelConfig) -> Result<()> {
    let Some(thetas) = raw.not_negatives("layer_rope_theta")? else { return Ok(()) };
    if thetas.len() != config.n_layers {
        let (found, expected) = (format!("{} numbers", thetas.len()), format!("{} numbers", config.n_layers));
        return Err(raw.invalid("layer_rope_theta", found, expected));
    }
    if let Positions::Rotary { layers } = &mut config.positions {
        for (rotary, theta) in layers.iter_mut().zip(thetas) {
            match rotary {
                Some(rotary) if theta > 0.0 => rotary.theta = theta,
                _ => *rotary = None,
            }
        }
    }
    Ok(())
}
