//! GPT-NeoX (Pythia): parallel blocks with two norms, or serial ones; rotary on a part of each head. Defaults:
//! `transformers` `GPTNeoXConfig`.

use super::{Family, gpt2};
use crate::config::common::{activation, head_width};
use crate::config::{
    Biases, Layout, MlpNames, ModelConfig, Norm, Qkv, RawConfig, Rotary, RotaryStyle, Sizes, limits, rope,
};
use crate::error::Result;

pub(super) const FAMILY: Family =
    Family { model_type: "gpt_neox", resolve, harmless: &["attention_probs_dropout_prob", "hidden_dropout_prob"] };

const LAYOUT: Layout = Layout {
    prefixes: &["gpt_neox."],
    embed: "embed_in.weight",
    qkv: Qkv::ByGroup("layers.{l}.attention.query_key_value"),
    attn_out: "layers.{l}.attention.dense",
    mlp: MlpNames::Plain(["layers.{l}.mlp.dense_h_to_4h", "layers.{l}.mlp.dense_4h_to_h"]),
    ln_final: "final_layer_norm",
    unembed: "embed_out",
    harmless: &[
        "layers.{l}.attention.bias",
        "layers.{l}.attention.masked_bias",
        "layers.{l}.attention.rotary_emb.inv_freq",
    ],
    ..Layout::LLAMA
};

fn resolve(raw: &RawConfig) -> Result<ModelConfig> {
    let d_model = raw.count("hidden_size", 6144, limits::D_MODEL)?;
    let n_heads = raw.count("num_attention_heads", 64, limits::HEADS)?;
    let n_context = raw.count("max_position_embeddings", 2048, limits::CONTEXT)?;
    let sizes = Sizes {
        n_layers: raw.count("num_hidden_layers", 44, limits::LAYERS)?,
        n_heads,
        n_key_value_heads: n_heads,
        d_model,
        d_head: head_width(raw, "num_attention_heads", d_model, n_heads)?,
        d_mlp: raw.count("intermediate_size", 24576, limits::D_MLP)?,
        d_vocab: raw.count("vocab_size", 50432, limits::VOCABULARY)?,
        n_context,
    };
    let positions = rope::every_layer(rotary(raw, sizes.d_head, n_context)?, sizes.n_layers);
    let norm = Norm::layer(raw.positive("layer_norm_eps", 1e-5)?);
    let activation = activation(raw, "hidden_act", "gelu")?;
    let mut config = ModelConfig::plain(FAMILY.model_type, sizes, norm, positions, activation, LAYOUT);
    config.n_context = rope::longest(&config.positions, n_context);
    config.parallel = raw.flag("use_parallel_residual", true)?;
    let attention = raw.flag("attention_bias", true)?;
    config.biases = Biases { qkv: attention, attn_out: attention, ..gpt2::ALL_BIASES };
    config.tied_embeddings = raw.flag("tie_word_embeddings", false)?;
    config.bos_token = raw.token("bos_token_id", sizes.d_vocab)?;
    Ok(config)
}

/// `rotary_pct` and `rotary_emb_base`, or the newer names in `rope_parameters`. The class reads no newer name beside the
/// other keys; where two names are given they must agree.
fn rotary(raw: &RawConfig, d_head: usize, n_context: usize) -> Result<Rotary> {
    let theta = raw.positive("rotary_emb_base", 10000.0)?;
    let share = raw.positive("rotary_pct", 0.25)?;
    let defaults = rope::Defaults { theta, share: Some(share), style: RotaryStyle::Halves, original: None };
    let rotary = rope::read(raw, d_head, n_context, &defaults)?;
    let either = |keys: [&'static str; 2]| keys.into_iter().find(|key| raw.has(key));
    if let (Some(key), true) = (either(["rotary_emb_base", "rope_theta"]), rotary.theta != theta) {
        return Err(raw.unsupported(key, &format!("which θ holds, {theta} or {}?", rotary.theta)));
    }
    let dim = (d_head as f64 * share) as usize;
    if let (Some(key), true) = (either(["rotary_pct", "partial_rotary_factor"]), rotary.dim != dim) {
        return Err(raw.unsupported(key, &format!("do {dim} or {} numbers of a head turn?", rotary.dim)));
    }
    Ok(rotary)
}
