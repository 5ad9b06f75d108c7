//! BioGPT: OPT's block, with the embedding times √d. Defaults: `transformers` `BioGptConfig`.

use super::{Family, gpt2, opt};
use crate::config::common::{activation, head_width};
use crate::config::{Layout, ModelConfig, Norm, Positions, RawConfig, Sizes, limits};
use crate::error::Result;

pub(super) const FAMILY: Family = Family {
    model_type: "biogpt",
    resolve,
    harmless: &[
        "activation_dropout",
        "attention_probs_dropout_prob",
        "hidden_dropout_prob",
        "layer_norm_eps", // its class leaves ε at that of torch.nn.LayerNorm
        "layerdrop",
    ],
};

const LAYOUT: Layout =
    Layout { prefixes: &["biogpt."], ln_final: "layer_norm", unembed: "output_projection", ..opt::LAYOUT };

fn resolve(raw: &RawConfig) -> Result<ModelConfig> {
    let d_model = raw.count("hidden_size", 1024, limits::D_MODEL)?;
    let n_heads = raw.count("num_attention_heads", 16, limits::HEADS)?;
    let sizes = Sizes {
        n_layers: raw.count("num_hidden_layers", 24, limits::LAYERS)?,
        n_heads,
        n_key_value_heads: n_heads,
        d_model,
        d_head: head_width(raw, "num_attention_heads", d_model, n_heads)?,
        d_mlp: raw.count("intermediate_size", 4096, limits::D_MLP)?,
        d_vocab: raw.count("vocab_size", 42384, limits::VOCABULARY)?,
        n_context: raw.count("max_position_embeddings", 1024, limits::CONTEXT)?,
    };
    let activation = activation(raw, "hidden_act", "gelu")?;
    let positions = Positions::Learned { offset: 2 };
    let mut config = ModelConfig::plain(FAMILY.model_type, sizes, Norm::layer(1e-5), positions, activation, LAYOUT);
    config.biases = gpt2::ALL_BIASES;
    if raw.flag("scale_embedding", true)? {
        config.embed_scale = (d_model as f64).sqrt();
    }
    config.tied_embeddings = raw.flag("tie_word_embeddings", true)?;
    config.bos_token = raw.token("bos_token_id", sizes.d_vocab)?;
    Ok(config)
}
