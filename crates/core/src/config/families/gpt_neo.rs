//! GPT-Neo: GPT-2 with windows in some layers, and scores that are not scaled. Defaults: `transformers` `GPTNeoConfig`.

use super::{Family, gpt2};
use crate::config::common::{activation, head_width};
use crate::config::{Layout, ModelConfig, Norm, Orientation, Positions, Qkv, RawConfig, Sizes, limits};
use crate::error::Result;

pub(super) const FAMILY: Family =
    Family { model_type: "gpt_neo", resolve, harmless: &["embed_dropout", "resid_dropout"] };

const LAYOUT: Layout = Layout {
    qkv: Qkv::Split(["h.{l}.attn.attention.q_proj", "h.{l}.attn.attention.k_proj", "h.{l}.attn.attention.v_proj"]),
    attn_out: "h.{l}.attn.attention.out_proj",
    orientation: Orientation::OutIn,
    harmless: &["h.{l}.attn.attention.bias", "h.{l}.attn.attention.masked_bias"],
    ..gpt2::LAYOUT
};

fn resolve(raw: &RawConfig) -> Result<ModelConfig> {
    let d_model = raw.count("hidden_size", 2048, limits::D_MODEL)?;
    let n_heads = raw.count("num_heads", 16, limits::HEADS)?;
    let n_layers = raw.count("num_layers", 24, limits::LAYERS)?;
    let sizes = Sizes {
        n_layers,
        n_heads,
        n_key_value_heads: n_heads,
        d_model,
        d_head: head_width(raw, "num_heads", d_model, n_heads)?,
        d_mlp: raw.optional_count("intermediate_size", limits::D_MLP)?.unwrap_or(4 * d_model),
        d_vocab: raw.count("vocab_size", 50257, limits::VOCABULARY)?,
        n_context: raw.count("max_position_embeddings", 2048, limits::CONTEXT)?,
    };
    let norm = Norm::layer(raw.positive("layer_norm_epsilon", 1e-5)?);
    let activation = activation(raw, "activation_function", "gelu_new")?;
    let positions = Positions::Learned { offset: 0 };
    let mut config = ModelConfig::plain(FAMILY.model_type, sizes, norm, positions, activation, LAYOUT);
    config.biases = crate::config::Biases { qkv: false, ..gpt2::ALL_BIASES };
    config.attention_scale = vec![1.0; n_layers];
    let window = raw.count("window_size", 256, limits::CONTEXT)?;
    config.windows = is_local(raw, n_layers)?.into_iter().map(|local| local.then_some(window)).collect();
    config.tied_embeddings = raw.flag("tie_word_embeddings", true)?;
    config.bos_token = raw.token("bos_token_id", sizes.d_vocab)?;
    Ok(config)
}

/// `attention_types`, a list of [[kinds], repeats], one entry per layer. Absent: global and local in turn.
fn is_local(raw: &RawConfig, n_layers: usize) -> Result<Vec<bool>> {
    let expected = || format!("[[kinds], repeats] of global and local, for {n_layers} layers");
    let Some(types) = raw.value("attention_types") else {
        let layers: Vec<bool> = (0..n_layers).map(|l| l % 2 == 1).collect();
        agrees(raw, &layers)?;
        return Ok(layers);
    };
    let kind = |name: &serde_json::Value| match name.as_str() {
        Some("global") => Some(false),
        Some("local") => Some(true),
        _ => None,
    };
    let group = |group: &serde_json::Value| {
        let kinds = group[0].as_array()?.iter().map(kind).collect::<Option<Vec<bool>>>()?;
        let repeats = usize::try_from(group[1].as_u64()?).ok().filter(|n| *n <= n_layers)?;
        Some(kinds.repeat(repeats))
    };
    let groups = types.as_array().and_then(|groups| groups.iter().map(group).collect::<Option<Vec<_>>>());
    let layers = groups.map(|groups| groups.concat()).filter(|layers| layers.len() == n_layers);
    let layers = layers.ok_or_else(|| raw.invalid("attention_types", &types, expected()))?;
    agrees(raw, &layers)?;
    Ok(layers)
}

/// `attention_layers` says the same once more, layer by layer; where it does not, one of them is wrong.
fn agrees(raw: &RawConfig, is_local: &[bool]) -> Result<()> {
    let names: Vec<&str> = is_local.iter().map(|local| if *local { "local" } else { "global" }).collect();
    match raw.texts("attention_layers")? {
        Some(listed) if listed != names => {
            Err(raw.unsupported("attention_layers", "it says something else than attention_types"))
        }
        _ => Ok(()),
    }
}
