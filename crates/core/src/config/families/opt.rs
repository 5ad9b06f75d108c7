//! OPT: GPT-2 with relu and positions that begin at row 2 of their table. Defaults: `transformers` `OPTConfig`.

use super::{Family, gpt2, not_additive};
use crate::config::common::{activation, head_width};
use crate::config::{Biases, Gain, Layout, MlpNames, ModelConfig, Norm, Positions, Qkv, RawConfig, Sizes, limits};
use crate::error::Result;

pub(super) const FAMILY: Family = Family {
    model_type: "opt",
    resolve,
    harmless: &["dropout", "activation_dropout", "layerdrop", "init_std", "intermediate_size"],
};

pub(super) const LAYOUT: Layout = Layout {
    prefixes: &["model.decoder.", "decoder."],
    embed: "embed_tokens.weight",
    pos_embed: Some("embed_positions.weight"),
    ln1: Some("layers.{l}.self_attn_layer_norm"),
    ln2: Some("layers.{l}.final_layer_norm"),
    qkv: Qkv::Split(["layers.{l}.self_attn.q_proj", "layers.{l}.self_attn.k_proj", "layers.{l}.self_attn.v_proj"]),
    attn_out: "layers.{l}.self_attn.out_proj",
    mlp: MlpNames::Plain(["layers.{l}.fc1", "layers.{l}.fc2"]),
    ln_final: "final_layer_norm",
    harmless: &[],
    ..Layout::LLAMA
};

fn resolve(raw: &RawConfig) -> Result<ModelConfig> {
    let d_model = raw.count("hidden_size", 768, limits::D_MODEL)?;
    if !raw.flag("do_layer_norm_before", true)? {
        return Err(not_additive(
            raw,
            "do_layer_norm_before",
            "the norm after each addition rescales all that was written before it (post-LN)",
        ));
    }
    if raw.count("word_embed_proj_dim", d_model, limits::D_MODEL)? != d_model {
        return Err(not_additive(
            raw,
            "word_embed_proj_dim",
            "matrices stand between embedding, stream and unembedding",
        ));
    }
    raw.must_be_off("_remove_final_layer_norm", "a model without a final norm is not implemented")?;
    let n_heads = raw.count("num_attention_heads", 12, limits::HEADS)?;
    let sizes = Sizes {
        n_layers: raw.count("num_hidden_layers", 12, limits::LAYERS)?,
        n_heads,
        n_key_value_heads: n_heads,
        d_model,
        d_head: head_width(raw, "num_attention_heads", d_model, n_heads)?,
        d_mlp: raw.count("ffn_dim", 3072, limits::D_MLP)?,
        d_vocab: raw.count("vocab_size", 50272, limits::VOCABULARY)?,
        n_context: raw.count("max_position_embeddings", 2048, limits::CONTEXT)?,
    };
    let weights = raw.flag("layer_norm_elementwise_affine", true)?;
    // ε is that of torch.nn.LayerNorm
    let norm = Norm { gain: if weights { Gain::Weight } else { Gain::None }, bias: weights, ..Norm::layer(1e-5) };
    let activation = activation(raw, "activation_function", "relu")?;
    let positions = Positions::Learned { offset: 2 };
    let mut config = ModelConfig::plain(FAMILY.model_type, sizes, norm, positions, activation, LAYOUT);
    config.biases = if raw.flag("enable_bias", true)? { gpt2::ALL_BIASES } else { Biases::default() };
    config.tied_embeddings = raw.flag("tie_word_embeddings", true)?;
    config.bos_token = raw.token("bos_token_id", sizes.d_vocab)?;
    Ok(config)
}
