//! HyperCLOVA X: Granite with norms after the sublayers too. Defaults: `transformers` `HyperCLOVAXConfig`.

use super::Family;
use crate::config::common::{LlamaDefaults, llama_biases, llama_like};
use crate::config::{Layout, ModelConfig, RawConfig};
use crate::error::Result;

pub(super) const FAMILY: Family = Family { model_type: "hyperclovax", resolve, harmless: &[] };

fn resolve(raw: &RawConfig) -> Result<ModelConfig> {
    let mut config = llama_like(raw, FAMILY.model_type, &LlamaDefaults::LLAMA)?;
    config.biases = llama_biases(raw)?;
    config.embed_scale = raw.positive("embedding_multiplier", 1.0)?;
    if let Some(scale) = raw.optional_positive("attention_multiplier")? {
        config.attention_scale = vec![scale; config.n_layers];
    }
    config.residual_multiplier = raw.positive("residual_multiplier", 1.0)?;
    config.logit_scale = raw.positive("logits_scaling", 1.0)?; // Granite divides, this class multiplies
    if raw.flag("use_post_norm", true)? {
        let (ln1_post, ln2_post) = (Some("layers.{l}.post_norm1"), Some("layers.{l}.post_norm2"));
        config.layout = Layout { ln1_post, ln2_post, ..Layout::LLAMA };
    }
    Ok(config)
}
