//! IQuest-Coder: Llama. Defaults: `transformers` `IQuestCoderConfig`, whose model is Llama's class.

use super::Family;
use crate::config::common::{LlamaDefaults, llama_biases, llama_like};
use crate::config::{ModelConfig, RawConfig};
use crate::error::Result;

pub(super) const FAMILY: Family = Family { model_type: "iquestcoder", resolve, harmless: &[] };

const DEFAULTS: LlamaDefaults = LlamaDefaults {
    d_vocab: 76800,
    d_model: 5120,
    d_mlp: 27648,
    n_layers: 80,
    n_heads: 40,
    n_key_value_heads: Some(8),
    d_head: Some(128),
    n_context: 131072,
    eps: ("rms_norm_eps", 1e-5),
    ..LlamaDefaults::LLAMA
};

fn resolve(raw: &RawConfig) -> Result<ModelConfig> {
    let mut config = llama_like(raw, FAMILY.model_type, &DEFAULTS)?;
    config.biases = llama_biases(raw)?;
    raw.must_be_off("use_sliding_window", "the class refuses it")?;
    Ok(config)
}
