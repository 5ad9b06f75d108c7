//! BLOOM: ALiBi, and a norm of the embedding. Defaults: `transformers` `BloomConfig`.

use super::{Family, gpt2, not_additive};
use crate::config::common::head_width;
use crate::config::{Alibi, AlibiZero, Layout, MlpNames, ModelConfig, Norm, Positions, Qkv, RawConfig, Sizes, limits};
use crate::error::Result;
use crate::ops::Activation;

pub(super) const FAMILY: Family = Family {
    model_type: "bloom",
    resolve,
    harmless: &[
        "slow_but_exact",
        "seq_length", // of training; ALiBi has no longest prompt
        "attention_softmax_in_fp32",
        "bias_dropout_fusion",
        "masked_softmax_fusion",
        "skip_bias_add",
        "skip_bias_add_qkv",
        "offset_alibi",
        "n_inner",
        "unk_token_id",
    ],
};

const LAYOUT: Layout = Layout {
    prefixes: &["transformer."],
    embed: "word_embeddings.weight",
    embed_norm: Some("word_embeddings_layernorm"),
    ln1: Some("h.{l}.input_layernorm"),
    ln2: Some("h.{l}.post_attention_layernorm"),
    qkv: Qkv::ByGroup("h.{l}.self_attention.query_key_value"),
    attn_out: "h.{l}.self_attention.dense",
    mlp: MlpNames::Plain(["h.{l}.mlp.dense_h_to_4h", "h.{l}.mlp.dense_4h_to_h"]),
    ln_final: "ln_f",
    harmless: &[],
    ..Layout::LLAMA
};

fn resolve(raw: &RawConfig) -> Result<ModelConfig> {
    if raw.flag("apply_residual_connection_post_layernorm", false)? {
        let reason = "each addition starts from the normed stream, not from the stream";
        return Err(not_additive(raw, "apply_residual_connection_post_layernorm", reason));
    }
    let d_model = raw.count(raw.either("hidden_size", "n_embed")?, 64, limits::D_MODEL)?;
    let n_heads = raw.count(raw.either("n_head", "num_attention_heads")?, 8, limits::HEADS)?;
    let sizes = Sizes {
        n_layers: raw.count(raw.either("n_layer", "num_hidden_layers")?, 2, limits::LAYERS)?,
        n_heads,
        n_key_value_heads: n_heads,
        d_model,
        d_head: head_width(raw, "n_head", d_model, n_heads)?,
        d_mlp: 4 * d_model,
        d_vocab: raw.count("vocab_size", 250_880, limits::VOCABULARY)?,
        n_context: limits::CONTEXT,
    };
    let norm = Norm::layer(raw.positive("layer_norm_epsilon", 1e-5)?);
    let alibi = Alibi { slopes: slopes(n_heads), zero_at: AlibiZero::First, scale: 1.0, bf16: false };
    let positions = Positions::Alibi(alibi);
    // the activation is fixed in the class: the tanh form
    let mut config = ModelConfig::plain(FAMILY.model_type, sizes, norm, positions, Activation::GeluNew, LAYOUT);
    config.biases = gpt2::ALL_BIASES;
    config.tied_embeddings = raw.flag("tie_word_embeddings", true)?;
    config.bos_token = raw.token("bos_token_id", sizes.d_vocab)?;
    Ok(config)
}

/// ALiBi's slopes (Press et al. 2022): powers of `2^(−8/n)` for the largest power of two `n` in the heads, and every
/// other power of its root for the heads beyond it.
pub(super) fn slopes(n_heads: usize) -> Vec<f64> {
    let n = 1usize << n_heads.ilog2();
    let first = (1..=n).map(|i| 2f64.powf(-8.0 * i as f64 / n as f64));
    let beyond = (0..n_heads - n).map(|i| 2f64.powf(-4.0 * (2 * i + 1) as f64 / n as f64));
    first.chain(beyond).collect()
}

#[cfg(test)]
mod tests {
    use super::slopes;

    #[test]
    fn published_slopes() {
        assert_eq!(slopes(8), [0.5, 0.25, 0.125, 0.0625, 0.03125, 0.015625, 0.0078125, 0.00390625]);
        // Press et al.: for 12 heads the 8 above, then 2^−0.5, 2^−1.5, 2^−2.5, 2^−3.5
        let twelve = slopes(12);
        assert_eq!(twelve[..8], slopes(8)[..]);
        for (slope, power) in twelve[8..].iter().zip([0.5, 1.5, 2.5, 3.5]) {
            assert!((slope - 2f64.powf(-power)).abs() < 1e-15);
        }
    }
}
