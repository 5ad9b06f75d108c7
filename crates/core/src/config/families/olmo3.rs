//! OLMo 3: OLMo 2 with windows, and rotary positions by layer type. Defaults: `transformers` `Olmo3Config`.

use super::Family;
use crate::config::common::{LlamaDefaults, llama_like, windows};
use crate::config::{ModelConfig, RawConfig, limits, rope};
use crate::error::Result;

pub(super) const FAMILY: Family = Family { model_type: "olmo3", resolve, harmless: &[] };

const DEFAULTS: LlamaDefaults =
    LlamaDefaults { d_vocab: 50304, eps: ("rms_norm_eps", 1e-5), theta: 500_000.0, ..LlamaDefaults::LLAMA };

fn resolve(raw: &RawConfig) -> Result<ModelConfig> {
    let mut config = llama_like(raw, FAMILY.model_type, &DEFAULTS)?;
    super::olmo2::olmo2(raw, &mut config)?;
    let window = raw.count("sliding_window", 4096, limits::CONTEXT)?;
    config.windows = windows(raw, config.n_layers, Some(window), |l| (l + 1) % 4 != 0)?;
    // transformers 5 gives a rope_theta beside the parameters to the full layers only, by popping it twice; the model
    // was trained with one θ for all
    let theta = raw.positive("rope_theta", 500_000.0)?;
    rope::by_layer_type(raw, &mut config, theta, theta)?;
    Ok(config)
}
