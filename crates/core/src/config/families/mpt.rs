//! MPT: ALiBi, no biases. Defaults: `transformers` `MptConfig`.

use super::Family;
use crate::config::common::head_width;
use crate::config::{Alibi, AlibiZero, Layout, MlpNames, ModelConfig, Norm, Positions, Qkv, RawConfig, Sizes, limits};
use crate::error::Result;
use crate::ops::Activation;

pub(super) const FAMILY: Family = Family {
    model_type: "mpt",
    resolve,
    harmless: &[
        "attn_impl",
        "attn_uses_sequence_id",
        "emb_pdrop",
        "embedding_fraction",
        "expansion_ratio", // read by no class
        "fc_type",
        "init_config",
        "init_device",
        "learned_pos_emb", // of models without ALiBi
        "tokenizer_name",
        "use_pad_tok_in_ffn",
        "verbose",
    ],
};

const LAYOUT: Layout = Layout {
    prefixes: &["transformer."],
    embed: "wte.weight",
    ln1: Some("blocks.{l}.norm_1"),
    ln2: Some("blocks.{l}.norm_2"),
    qkv: Qkv::Fused("blocks.{l}.attn.Wqkv"),
    attn_out: "blocks.{l}.attn.out_proj",
    mlp: MlpNames::Plain(["blocks.{l}.ffn.up_proj", "blocks.{l}.ffn.down_proj"]),
    ln_final: "norm_f",
    harmless: &[],
    ..Layout::LLAMA
};

fn resolve(raw: &RawConfig) -> Result<ModelConfig> {
    if raw.has("logit_scale") {
        return Err(raw.unsupported("logit_scale", "the transformers class does not read it"));
    }
    let d_model = raw.count("d_model", 2048, limits::D_MODEL)?;
    let n_heads = raw.count("n_heads", 16, limits::HEADS)?;
    let n_layers = raw.count("n_layers", 24, limits::LAYERS)?;
    let d_head = head_width(raw, "n_heads", d_model, n_heads)?;
    let sizes = Sizes {
        n_layers,
        n_heads,
        n_key_value_heads: n_heads,
        d_model,
        d_head,
        d_mlp: 4 * d_model, // fixed in the class
        d_vocab: raw.count("vocab_size", 50368, limits::VOCABULARY)?,
        n_context: raw.count("max_seq_len", 2048, limits::CONTEXT)?,
    };
    raw.must_be_on("no_bias", "the class has no biases")?;
    if raw.text("norm_type")?.is_some_and(|norm| !norm.ends_with("layernorm")) {
        return Err(raw.unsupported("norm_type", "the class has no other norm than layernorm"));
    }
    let attention = raw.object("attn_config")?;
    let attention = attention.as_deref();
    let mut scale = (d_head as f64).powf(-0.5);
    let mut clip_qkv = None;
    if let Some(a) = attention {
        a.must_be_on("alibi", "the class always has ALiBi")?;
        a.ignore(&["model_type"]); // of the part, as transformers 4 wrote it
        if a.text("attn_type")?.is_some_and(|kind| kind != "multihead_attention") {
            return Err(a.unsupported("attn_type", "the class has one key head for every query head"));
        }
        a.must_be_off("prefix_lm", "only causal attention is implemented")?;
        a.must_be_off("qk_ln", "the transformers class does not read it")?;
        if a.positive("alibi_bias_max", BIAS_MAX)? != BIAS_MAX {
            return Err(a.unsupported("alibi_bias_max", "the transformers class takes 8 whatever it is"));
        }
        scale = a.optional_positive("softmax_scale")?.unwrap_or(scale);
        clip_qkv = a.optional_positive("clip_qkv")?;
    }
    let norm = Norm { bias: false, ..Norm::layer(raw.positive("layer_norm_epsilon", 1e-5)?) };
    let alibi = Alibi { slopes: slopes(n_heads), zero_at: AlibiZero::Last, scale: 1.0, bf16: false };
    let positions = Positions::Alibi(alibi);
    let mut config = ModelConfig::plain(FAMILY.model_type, sizes, norm, positions, Activation::Gelu, LAYOUT);
    config.attention_scale = vec![scale; n_layers];
    config.clip_qkv = clip_qkv;
    config.tied_embeddings = raw.flag("tie_word_embeddings", true)?;
    config.bos_token = raw.token("bos_token_id", sizes.d_vocab)?;
    Ok(config)
}

/// The power of two of the last slope.
const BIAS_MAX: f64 = 8.0;

/// `build_mpt_alibi_tensor`: the slopes of the next power of two, for other numbers of heads every other one first.
fn slopes(n_heads: usize) -> Vec<f64> {
    let n = n_heads.next_power_of_two();
    let all: Vec<f64> = (1..=n).map(|i| 2f64.powf(-(i as f64) * BIAS_MAX / n as f64)).collect();
    if n == n_heads {
        return all;
    }
    let second = all.iter().skip(1).step_by(2);
    second.chain(all.iter().step_by(2)).take(n_heads).copied().collect()
}
