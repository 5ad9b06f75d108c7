//! What many families read in the same way.

use super::{Biases, Layout, MlpKind, ModelConfig, Norm, RawConfig, RotaryStyle, Sizes, limits, rope};
use crate::error::Result;
use crate::ops::Activation;

/// `d_model` split evenly over the heads.
pub(super) fn head_width(raw: &RawConfig, key: &str, d_model: usize, n_heads: usize) -> Result<usize> {
    if d_model.is_multiple_of(n_heads) {
        return Ok(d_model / n_heads);
    }
    Err(raw.invalid(key, n_heads, format!("a divisor of the model's width {d_model}")))
}

/// Key and value heads, which divide the query heads.
pub(super) fn key_value_heads(raw: &RawConfig, key: &str, default: usize, n_heads: usize) -> Result<usize> {
    // null: one for every query head
    let n = raw.optional_count(key, limits::HEADS)?.unwrap_or(if raw.is_null(key) { n_heads } else { default });
    if n_heads.is_multiple_of(n) { Ok(n) } else { Err(raw.invalid(key, n, format!("a divisor of {n_heads} heads"))) }
}

/// An activation by its Hugging Face name.
pub(super) fn activation(raw: &RawConfig, key: &str, default: &str) -> Result<Activation> {
    let name = raw.text(key)?.unwrap_or_else(|| default.into());
    Activation::by_name(&name).ok_or_else(|| raw.unsupported(key, &format!("activations: {}", Activation::names())))
}

/// What Llama and its relatives take where a key is missing: the defaults of the family's transformers class.
pub(super) struct LlamaDefaults {
    pub d_vocab: usize,
    pub d_model: usize,
    pub d_mlp: usize,
    pub n_layers: usize,
    pub n_heads: usize,
    /// `None`: as many as query heads.
    pub n_key_value_heads: Option<usize>,
    /// `None`: d_model / n_heads.
    pub d_head: Option<usize>,
    pub n_context: usize,
    /// Key and default of the norms' ε.
    pub eps: (&'static str, f64),
    pub theta: f64,
    pub tied: bool,
    /// Key and default of the activation.
    pub activation: (&'static str, &'static str),
    /// Share of a head that turns; `None` where the class does not know the key.
    pub rotary_share: Option<f64>,
    pub rotary_style: RotaryStyle,
    /// `original_max_position_embeddings`, where the class has a default for it.
    pub rope_original: Option<usize>,
}

impl LlamaDefaults {
    /// Those of `LlamaConfig`.
    pub const LLAMA: LlamaDefaults = LlamaDefaults {
        d_vocab: 32000,
        d_model: 4096,
        d_mlp: 11008,
        n_layers: 32,
        n_heads: 32,
        n_key_value_heads: None,
        d_head: None,
        n_context: 2048,
        eps: ("rms_norm_eps", 1e-6),
        theta: 10000.0,
        tied: false,
        activation: ("hidden_act", "silu"),
        rotary_share: None,
        rotary_style: RotaryStyle::Halves,
        rope_original: None,
    };
}

/// A model with Llama's keys: RMS norms before the sublayers, rotary positions, a gated MLP, no biases.
pub(super) fn llama_like(raw: &RawConfig, family: &'static str, d: &LlamaDefaults) -> Result<ModelConfig> {
    let d_model = raw.count("hidden_size", d.d_model, limits::D_MODEL)?;
    let n_heads = raw.count("num_attention_heads", d.n_heads, limits::HEADS)?;
    let n_layers = raw.count("num_hidden_layers", d.n_layers, limits::LAYERS)?;
    let default_width = d.d_head.filter(|_| !raw.is_null("head_dim")); // null: d_model split evenly
    let d_head = match raw.optional_count("head_dim", limits::D_HEAD)?.or(default_width) {
        Some(width) => width,
        None => head_width(raw, "num_attention_heads", d_model, n_heads)?,
    };
    let kv_default = d.n_key_value_heads.unwrap_or(n_heads);
    let n_context = raw.count("max_position_embeddings", d.n_context, limits::CONTEXT)?;
    let sizes = Sizes {
        n_layers,
        n_heads,
        n_key_value_heads: key_value_heads(raw, "num_key_value_heads", kv_default, n_heads)?,
        d_model,
        d_head,
        d_mlp: raw.count("intermediate_size", d.d_mlp, limits::D_MLP)?,
        d_vocab: raw.count("vocab_size", d.d_vocab, limits::VOCABULARY)?,
        n_context,
    };
    let norm = Norm::rms(raw.positive(d.eps.0, d.eps.1)?);
    let defaults =
        rope::Defaults { theta: d.theta, share: d.rotary_share, style: d.rotary_style, original: d.rope_original };
    let rotary = rope::read(raw, d_head, n_context, &defaults)?;
    let activation = activation(raw, d.activation.0, d.activation.1)?;
    let positions = rope::every_layer(rotary, n_layers);
    let mut config = ModelConfig::plain(family, sizes, norm, positions, activation, Layout::LLAMA);
    config.n_context = rope::longest(&config.positions, n_context);
    config.mlp = MlpKind::Gated;
    config.tied_embeddings = raw.flag("tie_word_embeddings", d.tied)?;
    config.bos_token = raw.token("bos_token_id", sizes.d_vocab)?;
    Ok(config)
}

/// `attention_bias` and `mlp_bias`, on all of their matrices.
pub(super) fn llama_biases(raw: &RawConfig) -> Result<Biases> {
    Ok(Biases { mlp: raw.flag("mlp_bias", false)?, ..attention_biases(raw)? })
}

/// `attention_bias`, on queries, keys, values and output; off where the key is missing.
pub(super) fn attention_biases(raw: &RawConfig) -> Result<Biases> {
    let attention = raw.flag("attention_bias", false)?;
    Ok(Biases { qkv: attention, attn_out: attention, ..Biases::default() })
}

/// `sliding_window`, the default where it is missing, none where it is `null`.
pub(super) fn sliding_window(raw: &RawConfig, default: usize) -> Result<Option<usize>> {
    let window = raw.optional_count("sliding_window", limits::CONTEXT)?;
    Ok(window.or(Some(default).filter(|_| !raw.is_null("sliding_window"))))
}

/// The window of every layer: where `layer_types` says `sliding_attention`, or else where `default` does.
pub(super) fn windows(
    raw: &RawConfig,
    n_layers: usize,
    window: Option<usize>,
    default: impl Fn(usize) -> bool,
) -> Result<Vec<Option<usize>>> {
    let sliding = match raw.texts("layer_types")? {
        None => (0..n_layers).map(default).collect::<Vec<_>>(),
        Some(types) => {
            let is_sliding = |name: &String| match name.as_str() {
                "sliding_attention" => Ok(true),
                "full_attention" => Ok(false),
                _ => Err(raw.unsupported("layer_types", "layers: full_attention, sliding_attention")),
            };
            types.iter().map(is_sliding).collect::<Result<_>>()?
        }
    };
    if sliding.len() != n_layers {
        return Err(raw.invalid("layer_types", format!("{} layers", sliding.len()), format!("{n_layers} layers")));
    }
    if sliding.contains(&true) && window.is_none() {
        return Err(raw.invalid("sliding_window", "absent", "a window for the layers with sliding_attention"));
    }
    Ok(sliding.into_iter().map(|s| window.filter(|_| s)).collect())
}

/// `mlp_layer_types`: the layers that are `dense` among those with experts, or else those of which `default` says so.
pub(super) fn dense_layers(raw: &RawConfig, n_layers: usize, default: impl Fn(usize) -> bool) -> Result<Vec<usize>> {
    let Some(types) = raw.texts("mlp_layer_types")? else { return Ok((0..n_layers).filter(|l| default(*l)).collect()) };
    if types.len() != n_layers {
        return Err(raw.invalid("mlp_layer_types", format!("{} layers", types.len()), format!("{n_layers} layers")));
    }
    if types.iter().any(|name| name != "dense" && name != "sparse") {
        return Err(raw.unsupported("mlp_layer_types", "layers: dense, sparse"));
    }
    Ok((0..n_layers).filter(|l| types[*l] == "dense").collect())
}
