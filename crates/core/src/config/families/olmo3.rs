//! OLMo 3: OLMo 2 with windows, and rotary positions by layer type. Defaults: `transformers` `Olmo3Config`.

use super::Family;
use crate::config::common::{LlamaDefaults, llama_like, windows};
use crate::config::{ModelConfig, RawConfig, limits, rope};
use crate::error::Result;

pub(super) const FAMILY: Family = Family { model_type: "olmo3", resolve, harmless: &[] };

const THETA: f64 = 500_000.0;

const DEFAULTS: LlamaDefaults =
    LlamaDefaults { d_vocab: 50304, eps: ("rms_norm_eps", 1e-5), theta: THETA, ..LlamaDefaults::LLAMA };

fn resolve(raw: &RawConfig) -> Result<ModelConfig> {
    let mut config = llama_like(raw, FAMILY.model_type, &DEFAULTS)?;
    super::olmo2::olmo2(raw, &mut config)?;
    let window = raw.count("sliding_window", 4096, limits::CONTEXT)?;
    config.windows = windows(raw, config.n_layers, Some(window), |l| (l + 1) % 4 != 0)?;
    // a rope_theta beside the parameters holds for all layers in transformers 4, for the full ones only in 5
    if raw.positive("rope_theta", THETA)? != THETA {
        let reason =
            "releases of the class disagree whether layers with windows have it: give rope_parameters per type";
        return Err(raw.unsupported("rope_theta", reason));
    }
    rope::by_layer_type(raw, &mut config, THETA, THETA)?;
    Ok(config)
}
