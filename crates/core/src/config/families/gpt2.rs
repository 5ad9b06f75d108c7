//! GPT-2. Defaults: `transformers` `GPT2Config`; mathematics: `modeling_gpt2.py`.

use super::Family;
use crate::config::common::{activation, head_width};
use crate::config::{
    Biases, Layout, MlpNames, ModelConfig, Norm, Orientation, Positions, Qkv, RawConfig, Sizes, limits,
};
use crate::error::Result;

pub(super) const FAMILY: Family = Family {
    model_type: "gpt2",
    resolve,
    harmless: &[
        "n_ctx",                   // the older name of n_positions, beside it
        "reorder_and_upcast_attn", // the precision of the scores; they are f32 here in any case
        "n_special",               // as predict_special_tokens, from the first release's configs
        "predict_special_tokens",
    ],
};

/// The names of GPT-2's checkpoints; several families of its time share most of them.
pub(super) const LAYOUT: Layout = Layout {
    prefixes: &["transformer."],
    embed: "wte.weight",
    pos_embed: Some("wpe.weight"),
    ln1: Some("h.{l}.ln_1"),
    qkv: Qkv::Fused("h.{l}.attn.c_attn"),
    attn_out: "h.{l}.attn.c_proj",
    ln2: Some("h.{l}.ln_2"),
    mlp: MlpNames::Plain(["h.{l}.mlp.c_fc", "h.{l}.mlp.c_proj"]),
    ln_final: "ln_f",
    orientation: Orientation::InOut,
    // the causal mask and its fill value, which older checkpoints carry as buffers
    harmless: &["h.{l}.attn.bias", "h.{l}.attn.masked_bias"],
    ..Layout::LLAMA
};

/// Biases on every linear layer of the blocks.
pub(super) const ALL_BIASES: Biases = Biases { qkv: true, attn_out: true, mlp: true, router: false, unembed: false };

/// The sizes, by GPT-2's names; `defaults` are those of d_model, n_layers, n_heads, the vocabulary and the context.
pub(super) fn sizes(raw: &RawConfig, defaults: [usize; 5]) -> Result<Sizes> {
    let d_model = raw.count("n_embd", defaults[0], limits::D_MODEL)?;
    let n_heads = raw.count("n_head", defaults[2], limits::HEADS)?;
    Ok(Sizes {
        n_layers: raw.count("n_layer", defaults[1], limits::LAYERS)?,
        n_heads,
        n_key_value_heads: n_heads,
        d_model,
        d_head: head_width(raw, "n_head", d_model, n_heads)?,
        d_mlp: raw.optional_count("n_inner", limits::D_MLP)?.unwrap_or(4 * d_model),
        d_vocab: raw.count("vocab_size", defaults[3], limits::VOCABULARY)?,
        n_context: raw.count("n_positions", defaults[4], limits::CONTEXT)?,
    })
}

fn resolve(raw: &RawConfig) -> Result<ModelConfig> {
    let sizes = sizes(raw, [768, 12, 12, 50257, 1024])?;
    let norm = Norm::layer(raw.positive("layer_norm_epsilon", 1e-5)?);
    let activation = activation(raw, "activation_function", "gelu_new")?;
    let mut config =
        ModelConfig::plain(FAMILY.model_type, sizes, norm, Positions::Learned { offset: 0 }, activation, LAYOUT);
    config.biases = ALL_BIASES;
    config.attention_scale = attention_scale(raw, &sizes)?;
    config.tied_embeddings = raw.flag("tie_word_embeddings", true)?;
    config.bos_token = raw.token("bos_token_id", sizes.d_vocab)?;
    Ok(config)
}

/// `1 / √d_head`, or 1; divided by the layer's number, or not.
fn attention_scale(raw: &RawConfig, sizes: &Sizes) -> Result<Vec<f64>> {
    let by_width = if raw.flag("scale_attn_weights", true)? { (sizes.d_head as f64).powf(-0.5) } else { 1.0 };
    let by_depth = raw.flag("scale_attn_by_inverse_layer_idx", false)?;
    let scale = |l| if by_depth { by_width / (l + 1) as f64 } else { by_width };
    Ok((0..sizes.n_layers).map(scale).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(json: &str) -> Result<ModelConfig> {
        resolve(&RawConfig::parse("config.json", json.as_bytes())?)
    }

    #[test]
    fn an_empty_config_is_gpt2_small() {
        let c = resolved("{}").unwrap();
        assert_eq!((c.n_layers, c.n_heads, c.d_model, c.d_head, c.d_mlp), (12, 12, 768, 64, 3072));
        assert_eq!((c.d_vocab, c.n_context, c.tied_embeddings), (50257, 1024, true));
        assert_eq!(c.attention_scale, [0.125; 12]);
        assert_eq!(c.norm, Norm::layer(1e-5));
    }

    #[test]
    fn scales_of_the_scores() {
        let c =
            resolved(r#"{"n_embd": 16, "n_head": 4, "n_layer": 3, "scale_attn_by_inverse_layer_idx": true}"#).unwrap();
        assert_eq!(c.attention_scale, [0.5, 0.25, 0.5 / 3.0]);
        let c = resolved(r#"{"n_embd": 16, "n_head": 4, "n_layer": 2, "scale_attn_weights": false}"#).unwrap();
        assert_eq!(c.attention_scale, [1.0, 1.0]);
    }

    #[test]
    fn refusals() {
        for (json, code) in [
            (r#"{"n_embd": 10, "n_head": 4}"#, "CONFIG_INVALID"),
            (r#"{"n_layer": 1025}"#, "CONFIG_INVALID"),
            (r#"{"layer_norm_epsilon": 0}"#, "CONFIG_INVALID"),
            (r#"{"activation_function": "mish"}"#, "CONFIG_UNSUPPORTED"),
        ] {
            assert_eq!(resolved(json).unwrap_err().code(), code, "{json}");
        }
    }
}
