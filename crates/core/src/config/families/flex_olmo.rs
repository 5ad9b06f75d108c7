//! FlexOLMo: OLMo 2's block with OLMoE's experts. Defaults: `transformers` `FlexOlmoConfig`.

use super::Family;
use crate::config::common::{LlamaDefaults, llama_like};
use crate::config::{ModelConfig, RawConfig};
use crate::error::Result;

pub(super) const FAMILY: Family =
    Family { model_type: "flex_olmo", resolve, harmless: &["output_router_logits", "router_aux_loss_coef"] };

const DEFAULTS: LlamaDefaults =
    LlamaDefaults { d_vocab: 100352, n_context: 4096, theta: 500_000.0, ..LlamaDefaults::LLAMA };

fn resolve(raw: &RawConfig) -> Result<ModelConfig> {
    let mut config = llama_like(raw, FAMILY.model_type, &DEFAULTS)?;
    super::olmo2::olmo2(raw, &mut config)?;
    super::olmoe::experts(raw, &mut config, [7, 5])?;
    Ok(config)
}
