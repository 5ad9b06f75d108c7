//! StableLM: layer norms, rotary on a part of each head; parallel, or with normed queries and keys, if its config says so. Defaults: `transformers` `StableLmConfig`.

use super::Family;
use crate::config::common::{LlamaDefaults, llama_like};
use crate::config::{ModelConfig, Norm, QkNorm, QkSpan, RawConfig};
use crate::error::Result;

pub(super) const FAMILY: Family = Family { model_type: "stablelm", resolve, harmless: &[] };

const DEFAULTS: LlamaDefaults = LlamaDefaults {
    d_vocab: 50304,
    d_model: 2560,
    d_mlp: 6912,
    n_key_value_heads: Some(32),
    n_context: 4096,
    eps: ("layer_norm_eps", 1e-5),
    rotary_share: Some(0.25),
    ..LlamaDefaults::LLAMA
};

fn resolve(raw: &RawConfig) -> Result<ModelConfig> {
    let mut config = llama_like(raw, FAMILY.model_type, &DEFAULTS)?;
    config.biases.qkv = raw.flag("use_qkv_bias", false)?;
    config.norm = Norm::layer(config.norm.eps);
    if raw.flag("use_parallel_residual", false)? {
        config.parallel = true;
        config.layout.ln2 = None; // both read the one norm
    }
    if raw.flag("qk_layernorm", false)? {
        let norm = Norm { bias: false, ..config.norm };
        config.qk_norm = Some(QkNorm::new(norm, QkSpan::HeadSplitGain));
        config.layout.qk_norm = ["layers.{l}.self_attn.q_layernorm.norms", "layers.{l}.self_attn.k_layernorm.norms"];
    }
    Ok(config)
}
