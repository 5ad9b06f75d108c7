//! Granite: Llama with multipliers on embedding, scores, writes and logits. Defaults: `transformers` `GraniteConfig`.

use super::Family;
use crate::config::common::{LlamaDefaults, llama_biases, llama_like};
use crate::config::{ModelConfig, RawConfig};
use crate::error::Result;

pub(super) const FAMILY: Family = Family { model_type: "granite", resolve, harmless: &[] };

const DEFAULTS: LlamaDefaults = LlamaDefaults::LLAMA;

fn resolve(raw: &RawConfig) -> Result<ModelConfig> {
    let mut config = llama_like(raw, FAMILY.model_type, &DEFAULTS)?;
    config.biases = llama_biases(raw)?;
    multipliers(raw, &mut config)?;
    Ok(config)
}

/// What Granites multiply: the embedding, the scores, what is written, the logits.
pub(super) fn multipliers(raw: &RawConfig, config: &mut ModelConfig) -> Result<()> {
    config.embed_scale = raw.positive("embedding_multiplier", 1.0)?;
    config.attention_scale = vec![raw.positive("attention_multiplier", 1.0)?; config.n_layers];
    config.residual_multiplier = raw.positive("residual_multiplier", 1.0)?;
    config.logit_scale = 1.0 / raw.positive("logits_scaling", 1.0)?;
    Ok(())
}
