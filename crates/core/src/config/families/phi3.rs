//! Phi-3: Llama with fused matrices and longrope. Defaults: `transformers` `Phi3Config`.

use super::Family;
use crate::config::common::{LlamaDefaults, llama_like};
use crate::config::{Layout, MlpNames, ModelConfig, Qkv, RawConfig, limits};
use crate::error::Result;

pub(super) const FAMILY: Family = Family { model_type: "phi3", resolve, harmless: &[] };

const DEFAULTS: LlamaDefaults = LlamaDefaults {
    d_vocab: 32064,
    d_model: 3072,
    d_mlp: 8192,
    n_context: 4096,
    eps: ("rms_norm_eps", 1e-5),
    rotary_share: Some(1.0),
    rope_original: Some(4096),
    ..LlamaDefaults::LLAMA
};

fn resolve(raw: &RawConfig) -> Result<ModelConfig> {
    let mut config = llama_like(raw, FAMILY.model_type, &DEFAULTS)?;
    for key in ["attention_bias", "lm_head_bias", "mlp_bias"] {
        raw.must_be_off(key, "the class has no biases")?;
    }
    for key in ["full_attn_mod", "interpolate_factor"] {
        if raw.count(key, 1, limits::LAYERS)? != 1 {
            return Err(raw.unsupported(key, "the class does not read it"));
        }
    }
    config.layout = Layout {
        qkv: Qkv::Fused("layers.{l}.self_attn.qkv_proj"),
        mlp: MlpNames::GateUp(["layers.{l}.mlp.gate_up_proj", "layers.{l}.mlp.down_proj"]),
        ..Layout::LLAMA
    };
    config.windows = vec![raw.optional_count("sliding_window", limits::CONTEXT)?; config.n_layers];
    Ok(config)
}
