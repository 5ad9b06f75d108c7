//! GPT-BigCode (SantaCoder, StarCoder): GPT-2 with one key and value head. Defaults: `transformers` `GPTBigCodeConfig`.

use super::{Family, gpt2};
use crate::config::common::activation;
use crate::config::{Layout, ModelConfig, Norm, Orientation, Positions, Qkv, RawConfig};
use crate::error::Result;

pub(super) const FAMILY: Family = Family {
    model_type: "gpt_bigcode",
    resolve,
    harmless: &[
        "attention_softmax_in_fp32",
        "inference_runner",
        "max_batch_size",
        "max_sequence_length",
        "n_ctx",
        "num_key_value_heads", // follows from multi_query
        "pad_key_length",
        "pre_allocate_kv_cache",
        "scale_attention_softmax_in_fp32",
        "validate_runner_input",
    ],
};

fn resolve(raw: &RawConfig) -> Result<ModelConfig> {
    let mut sizes = gpt2::sizes(raw, [768, 12, 12, 50257, 1024])?;
    // several heads of their own stand head by head, one shared head stands behind all queries
    let shared = raw.flag("multi_query", true)?;
    let qkv = if shared { Qkv::Fused("h.{l}.attn.c_attn") } else { Qkv::ByGroup("h.{l}.attn.c_attn") };
    if shared {
        sizes.n_key_value_heads = 1;
    }
    let norm = Norm::layer(raw.positive("layer_norm_epsilon", 1e-5)?);
    let activation = activation(raw, "activation_function", "gelu_pytorch_tanh")?;
    let layout = Layout { qkv, orientation: Orientation::OutIn, ..gpt2::LAYOUT };
    let positions = Positions::Learned { offset: 0 };
    let mut config = ModelConfig::plain(FAMILY.model_type, sizes, norm, positions, activation, layout);
    config.biases = gpt2::ALL_BIASES;
    if !raw.flag("scale_attn_weights", true)? {
        config.attention_scale = vec![1.0; sizes.n_layers];
    }
    config.tied_embeddings = raw.flag("tie_word_embeddings", true)?;
    config.bos_token = raw.token("bos_token_id", sizes.d_vocab)?;
    Ok(config)
}
