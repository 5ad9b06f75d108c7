//! GPT-2. Defaults: `transformers` `GPT2Config`; mathematics: `modeling_gpt2.py`.

use super::{Family, Layout, ModelConfig, Norm, Orientation, Positions, RawConfig, activation, head_width, limits};
use crate::error::Result;

pub(super) const FAMILY: Family = Family {
    model_type: "gpt2",
    resolve,
    harmless: &[
        "attn_pdrop",
        "embd_pdrop",
        "resid_pdrop",
        "n_ctx",                   // the older name of n_positions, beside it
        "reorder_and_upcast_attn", // the precision of the scores; they are f32 here in any case
        "summary_activation",
        "summary_first_dropout",
        "summary_proj_to_labels",
        "summary_type",
        "summary_use_proj",
        "gradient_checkpointing",
        "n_special", // as predict_special_tokens, from the first release's configs
        "predict_special_tokens",
    ],
};

const LAYOUT: Layout = Layout {
    prefix: "transformer.",
    embed: "wte.weight",
    pos_embed: "wpe.weight",
    ln1: "h.{l}.ln_1",
    qkv: "h.{l}.attn.c_attn",
    attn_out: "h.{l}.attn.c_proj",
    ln2: "h.{l}.ln_2",
    mlp_in: "h.{l}.mlp.c_fc",
    mlp_out: "h.{l}.mlp.c_proj",
    ln_final: "ln_f",
    unembed: "lm_head.weight",
    orientation: Orientation::InOut,
    // the causal mask and its fill value, which older checkpoints carry as buffers
    harmless: &["h.{l}.attn.bias", "h.{l}.attn.masked_bias"],
};

fn resolve(raw: &RawConfig) -> Result<ModelConfig> {
    raw.must_be_off("add_cross_attention", "an encoder's writes are not part of this residual stream")?;
    raw.must_be_off("is_encoder_decoder", "only decoders are additive")?;
    raw.must_be_empty("pruned_heads", "pruned heads change the shape of every head")?;

    let d_model = raw.count("n_embd", 768, limits::D_MODEL)?;
    let n_heads = raw.count("n_head", 12, limits::HEADS)?;
    let n_layers = raw.count("n_layer", 12, limits::LAYERS)?;
    let d_vocab = raw.count("vocab_size", 50257, limits::VOCABULARY)?;
    let d_head = head_width(raw, "n_head", d_model, n_heads)?;
    let by_width = if raw.flag("scale_attn_weights", true)? { (d_head as f64).powf(-0.5) } else { 1.0 };
    let by_depth = raw.flag("scale_attn_by_inverse_layer_idx", false)?;

    Ok(ModelConfig {
        family: FAMILY.model_type,
        n_layers,
        n_heads,
        n_key_value_heads: n_heads,
        d_model,
        d_head,
        d_mlp: raw.optional_count("n_inner", limits::D_MLP)?.unwrap_or(4 * d_model),
        d_vocab,
        n_context: raw.count("n_positions", 1024, limits::CONTEXT)?,
        norm: Norm::LayerNorm { eps: raw.positive("layer_norm_epsilon", 1e-5)? },
        positions: Positions::Learned,
        attention_scale: (0..n_layers).map(|l| if by_depth { by_width / (l + 1) as f64 } else { by_width }).collect(),
        activation: activation(raw, "activation_function", "gelu_new")?,
        tied_embeddings: raw.flag("tie_word_embeddings", true)?,
        bos_token: raw.token("bos_token_id", d_vocab)?,
        notes: by_depth.then(|| "attention scores divided by the layer's number".into()).into_iter().collect(),
        unknown_keys: Vec::new(),
        layout: LAYOUT,
    })
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
        assert_eq!(c.norm, Norm::LayerNorm { eps: 1e-5 });
        assert!(c.notes.is_empty());
    }

    #[test]
    fn scales_of_the_scores() {
        let c =
            resolved(r#"{"n_embd": 16, "n_head": 4, "n_layer": 3, "scale_attn_by_inverse_layer_idx": true}"#).unwrap();
        assert_eq!(c.attention_scale, [0.5, 0.25, 0.5 / 3.0]);
        assert_eq!(c.notes.len(), 1);
        let c = resolved(r#"{"n_embd": 16, "n_head": 4, "n_layer": 2, "scale_attn_weights": false}"#).unwrap();
        assert_eq!(c.attention_scale, [1.0, 1.0]);
    }

    #[test]
    fn refusals() {
        for (json, code) in [
            (r#"{"n_embd": 10, "n_head": 4}"#, "CONFIG_INVALID"),
            (r#"{"n_layer": 1025}"#, "CONFIG_INVALID"),
            (r#"{"layer_norm_epsilon": 0}"#, "CONFIG_INVALID"),
            (r#"{"add_cross_attention": true}"#, "CONFIG_UNSUPPORTED"),
            (r#"{"pruned_heads": {"0": [1]}}"#, "CONFIG_UNSUPPORTED"),
            (r#"{"activation_function": "mish"}"#, "CONFIG_UNSUPPORTED"),
        ] {
            assert_eq!(resolved(json).unwrap_err().code(), code, "{json}");
        }
    }
}
