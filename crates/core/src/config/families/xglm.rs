//! XGLM: OPT's block with positions that are no weights. Defaults: `transformers` `XGLMConfig`.

use super::{Family, gpt2, opt};
use crate::config::common::{activation, head_width};
use crate::config::{Layout, ModelConfig, Norm, Positions, RawConfig, Sizes, limits};
use crate::error::Result;

pub(super) const FAMILY: Family = Family {
    model_type: "xglm",
    resolve,
    harmless: &["activation_dropout", "decoder_start_token_id", "dropout", "init_std", "layerdrop"],
};

const LAYOUT: Layout = Layout {
    prefixes: &["model."],
    pos_embed: None,
    ln_final: "layer_norm",
    harmless: &["embed_positions.weights"], // the table of positions, which older checkpoints carry as a buffer
    ..opt::LAYOUT
};

fn resolve(raw: &RawConfig) -> Result<ModelConfig> {
    let d_model = raw.count(raw.either("d_model", "hidden_size")?, 1024, limits::D_MODEL)?;
    if d_model < 4 {
        return Err(raw.invalid("d_model", d_model, "at least 4, for two speeds of positions"));
    }
    let heads_key = raw.either("attention_heads", "num_attention_heads")?;
    let n_heads = raw.count(heads_key, 16, limits::HEADS)?;
    let sizes = Sizes {
        n_layers: raw.count(raw.either("num_layers", "num_hidden_layers")?, 24, limits::LAYERS)?,
        n_heads,
        n_key_value_heads: n_heads,
        d_model,
        d_head: head_width(raw, heads_key, d_model, n_heads)?,
        d_mlp: raw.count("ffn_dim", 4096, limits::D_MLP)?,
        d_vocab: raw.count("vocab_size", 256_008, limits::VOCABULARY)?,
        n_context: raw.count("max_position_embeddings", 2048, limits::CONTEXT)?,
    };
    // the row of the padding token is zeros, by default row 1, which no position reads
    let padding = raw.count_from_0("pad_token_id", 1, limits::VOCABULARY)?;
    let zero = Some(padding).filter(|_| !raw.is_null("pad_token_id"));
    let positions = Positions::Sinusoidal { offset: 2, zero };
    let activation = activation(raw, "activation_function", "gelu")?;
    // ε is that of torch.nn.LayerNorm
    let mut config = ModelConfig::plain(FAMILY.model_type, sizes, Norm::layer(1e-5), positions, activation, LAYOUT);
    config.biases = gpt2::ALL_BIASES;
    if raw.flag("scale_embedding", true)? {
        config.embed_scale = (d_model as f64).sqrt();
    }
    config.tied_embeddings = raw.flag("tie_word_embeddings", true)?;
    config.bos_token = raw.token("bos_token_id", sizes.d_vocab)?;
    Ok(config)
}
