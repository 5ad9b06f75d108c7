//! GPT-J: parallel blocks with one norm, rotary in pairs, an unembedding with a bias. Defaults: `transformers`
//! `GPTJConfig`.

use super::{Family, gpt2};
use crate::config::common::activation;
use crate::config::{
    Biases, Layout, MlpNames, ModelConfig, Norm, Orientation, Qkv, RawConfig, Rotary, RotaryScaling, RotaryStyle, rope,
};
use crate::error::Result;

pub(super) const FAMILY: Family = Family { model_type: "gptj", resolve, harmless: HARMLESS };

pub(super) const HARMLESS: &[&str] = &["n_ctx"];

const LAYOUT: Layout = Layout {
    pos_embed: None,
    ln2: None,
    qkv: Qkv::Split(["h.{l}.attn.q_proj", "h.{l}.attn.k_proj", "h.{l}.attn.v_proj"]),
    attn_out: "h.{l}.attn.out_proj",
    mlp: MlpNames::Plain(["h.{l}.mlp.fc_in", "h.{l}.mlp.fc_out"]),
    orientation: Orientation::OutIn,
    ..gpt2::LAYOUT
};

fn resolve(raw: &RawConfig) -> Result<ModelConfig> {
    gptj_like(raw, FAMILY.model_type, LAYOUT)
}

/// GPT-J, and CodeGen, which differs in names only.
pub(super) fn gptj_like(raw: &RawConfig, family: &'static str, layout: Layout) -> Result<ModelConfig> {
    for key in ["rotary", "scale_attn_weights"] {
        raw.must_be_on(key, "the class does it whatever it says")?;
    }
    let sizes = gpt2::sizes(raw, [4096, 28, 16, 50400, 2048])?;
    if raw.is_null("rotary_dim") {
        return Err(
            raw.unsupported("rotary_dim", "without it the class makes angles for the whole width, not for a head")
        );
    }
    let dim = raw.count("rotary_dim", 64, sizes.d_head)?;
    if !dim.is_multiple_of(2) {
        return Err(raw.invalid("rotary_dim", dim, "an even number"));
    }
    let rotary = Rotary { dim, theta: 10000.0, style: RotaryStyle::Pairs, scaling: RotaryScaling::Default };
    let positions = rope::every_layer(rotary, sizes.n_layers);
    let norm = Norm::layer(raw.positive("layer_norm_epsilon", 1e-5)?);
    let activation = activation(raw, "activation_function", "gelu_new")?;
    let mut config = ModelConfig::plain(family, sizes, norm, positions, activation, layout);
    config.parallel = true;
    config.biases = Biases { mlp: true, unembed: true, ..Biases::default() };
    config.tied_embeddings = raw.flag("tie_word_embeddings", false)?;
    config.bos_token = raw.token("bos_token_id", sizes.d_vocab)?;
    Ok(config)
}
