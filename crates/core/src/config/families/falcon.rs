//! Falcon: parallel blocks with one shared key head, or in groups with two norms; rotary or ALiBi. Defaults:
//! `transformers` `FalconConfig`.

use super::Family;
use super::bloom::slopes;
use crate::config::common::{activation, head_width, key_value_heads};
use crate::config::{
    Alibi, AlibiZero, Biases, Layout, MlpNames, ModelConfig, Norm, Positions, Qkv, RawConfig, RotaryStyle, Sizes,
    limits, rope,
};
use crate::error::Result;

pub(super) const FAMILY: Family =
    Family { model_type: "falcon", resolve, harmless: &["intermediate_size", "ff_factor"] };

const QKV: &str = "h.{l}.self_attention.query_key_value";

const LAYOUT: Layout = Layout {
    prefixes: &["transformer."],
    embed: "word_embeddings.weight",
    ln1: Some("h.{l}.input_layernorm"),
    ln2: None,
    qkv: Qkv::Fused(QKV),
    attn_out: "h.{l}.self_attention.dense",
    mlp: MlpNames::Plain(["h.{l}.mlp.dense_h_to_4h", "h.{l}.mlp.dense_4h_to_h"]),
    ln_final: "ln_f",
    harmless: &["h.{l}.self_attention.rotary_emb.inv_freq", "h.{l}.self_attention.maybe_rotary.inv_freq"],
    ..Layout::LLAMA
};

fn resolve(raw: &RawConfig) -> Result<ModelConfig> {
    let reason = "each addition then starts from the normed stream, in the classes that read it";
    raw.must_be_off("apply_residual_connection_post_layernorm", reason)?;
    let d_model = raw.count("hidden_size", 4544, limits::D_MODEL)?;
    let n_heads = raw.count(raw.either("num_attention_heads", "n_head")?, 71, limits::HEADS)?;
    let n_layers = raw.count(raw.either("num_hidden_layers", "n_layer")?, 32, limits::LAYERS)?;
    let n_context = raw.count("max_position_embeddings", 2048, limits::CONTEXT)?;
    let grouped = raw.flag("new_decoder_architecture", false)?;
    let shared = raw.flag("multi_query", true)?;
    let kv = key_value_heads(raw, raw.either("num_kv_heads", "n_head_kv")?, n_heads, n_heads)?;
    let (n_key_value_heads, qkv) = match (grouped, shared) {
        (true, _) => (kv, Qkv::ByGroup(QKV)),
        (false, true) => (1, Qkv::Fused(QKV)),
        (false, false) => (n_heads, Qkv::ByGroup(QKV)),
    };
    let sizes = Sizes {
        n_layers,
        n_heads,
        n_key_value_heads,
        d_model,
        d_head: head_width(raw, "num_attention_heads", d_model, n_heads)?,
        d_mlp: raw.optional_count("ffn_hidden_size", limits::D_MLP)?.unwrap_or(4 * d_model),
        d_vocab: raw.count("vocab_size", 65024, limits::VOCABULARY)?,
        n_context,
    };
    let norm = Norm::layer(raw.positive("layer_norm_epsilon", 1e-5)?);
    let activation = activation(raw, "activation", "gelu")?;
    let positions = positions(raw, &sizes)?;
    let layout = Layout { qkv, ..norms(raw, grouped)? };
    let mut config = ModelConfig::plain(FAMILY.model_type, sizes, norm, positions, activation, layout);
    config.n_context = rope::longest(&config.positions, n_context);
    config.parallel = grouped || raw.flag("parallel_attn", true)?;
    let bias = raw.flag("bias", false)?;
    config.biases = Biases { qkv: bias, attn_out: bias, mlp: bias, ..Biases::default() };
    config.tied_embeddings = raw.flag("tie_word_embeddings", true)?;
    config.bos_token = raw.token("bos_token_id", sizes.d_vocab)?;
    Ok(config)
}

/// Which norms a block has.
fn norms(raw: &RawConfig, grouped: bool) -> Result<Layout> {
    let parallel = raw.flag("parallel_attn", true)?;
    if grouped && !parallel {
        return Err(raw.unsupported("parallel_attn", "the class has no serial block of the new architecture"));
    }
    let two = raw.optional_count("num_ln_in_parallel_attn", 2)?.unwrap_or(2) == 2;
    Ok(match (grouped, parallel) {
        (true, _) if two => Layout { ln1: Some("h.{l}.ln_attn"), ln2: Some("h.{l}.ln_mlp"), ..LAYOUT },
        (false, false) => Layout { ln2: Some("h.{l}.post_attention_layernorm"), ..LAYOUT },
        _ => LAYOUT,
    })
}

/// ALiBi is added before the scores are scaled, so it is scaled with them; the class takes its products in bfloat16.
fn positions(raw: &RawConfig, sizes: &Sizes) -> Result<Positions> {
    if raw.flag("alibi", false)? {
        raw.ignore(&["rope_parameters", "rope_scaling", "rope_theta"]);
        let (slopes, scale) = (slopes(sizes.n_heads), (sizes.d_head as f64).powf(-0.5));
        return Ok(Positions::Alibi(Alibi { slopes, zero_at: AlibiZero::First, scale, bf16: true }));
    }
    let defaults = rope::Defaults { theta: 10000.0, share: None, style: RotaryStyle::Halves, original: None };
    let rotary = rope::read(raw, sizes.d_head, sizes.n_context, &defaults)?;
    Ok(rope::every_layer(rotary, sizes.n_layers))
}
