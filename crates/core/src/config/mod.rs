//! A checkpoint's `config.json`, resolved: every number that the forward pass needs, no option left open.
//!
//! One file per family (`gpt2.rs`) turns the raw keys into a [`ModelConfig`] and says where the weights lie
//! ([`Layout`]), or refuses with the reason. To add a family: write its file, and add it to [`FAMILIES`].

mod gpt2;
mod layout;
mod raw;

pub use layout::{Layout, Orientation};
pub use raw::RawConfig;

use crate::error::Result;
use crate::ops::Activation;
use serde::Serialize;

/// What the one transformer of `model/` is built from. Sizes as in the glossary of the crate.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ModelConfig {
    /// Hugging Face `model_type`.
    pub family: &'static str,
    /// Number of blocks, `L`.
    pub n_layers: usize,
    /// Query heads per layer, `H`.
    pub n_heads: usize,
    /// Key and value heads per layer, `G`; divides `n_heads`.
    pub n_key_value_heads: usize,
    /// Width of the residual stream, `d`.
    pub d_model: usize,
    /// Width of one head, `e`.
    pub d_head: usize,
    /// Width of the MLP's hidden layer, `m`.
    pub d_mlp: usize,
    /// Number of tokens, `V`.
    pub d_vocab: usize,
    /// Longest prompt, in tokens.
    pub n_context: usize,
    /// The norm before each sublayer and before the unembedding.
    pub norm: Norm,
    /// How positions enter.
    pub positions: Positions,
    /// What the scores `q·k` are multiplied with, per layer.
    pub attention_scale: Vec<f64>,
    /// Activation of the MLP.
    pub activation: Activation,
    /// Whether the unembedding is the transposed token embedding.
    pub tied_embeddings: bool,
    /// The token that starts a text, if the config names one.
    pub bos_token: Option<u32>,
    /// What is special about the model, in words.
    pub notes: Vec<String>,
    /// Keys of the file that nothing here knows, accepted because the caller allowed it.
    pub unknown_keys: Vec<String>,
    /// Where the weights lie in the checkpoint.
    #[serde(skip)]
    pub layout: Layout,
}

/// A norm of the residual stream.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum Norm {
    /// `γ ⊙ (x − mean(x)) / sqrt(var(x) + ε) + β`
    LayerNorm {
        /// ε, added to the variance.
        eps: f64,
    },
}

/// How a model knows positions.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum Positions {
    /// A learned vector per position, added to the embedding: the component `pos_embed`.
    Learned,
}

/// A family: the `model_type` of its config and what reads it.
struct Family {
    model_type: &'static str,
    resolve: fn(&RawConfig) -> Result<ModelConfig>,
    /// Keys that cannot change a number of the forward pass, besides [`raw::HARMLESS`].
    harmless: &'static [&'static str],
}

const FAMILIES: &[Family] = &[gpt2::FAMILY];

impl ModelConfig {
    /// Resolves the keys of a `config.json`.
    ///
    /// # Errors
    /// `CONFIG_INVALID` where a value is not of its kind or out of its limits, `CONFIG_UNSUPPORTED` where the model is
    /// another than the ones implemented, or where a key is neither read nor known to be harmless (unless
    /// `allow_unknown`).
    pub fn resolve(raw: RawConfig, allow_unknown: bool) -> Result<Self> {
        let model_type = raw.text("model_type")?.ok_or_else(|| raw.invalid("model_type", "missing", "a model type"))?;
        let Some(family) = FAMILIES.iter().find(|f| f.model_type == model_type) else {
            let known: Vec<_> = FAMILIES.iter().map(|f| f.model_type).collect();
            let reason = format!("families implemented so far: {}", known.join(", "));
            return Err(raw.unsupported("model_type", &reason));
        };
        let mut config = (family.resolve)(&raw)?;
        config.unknown_keys = raw.unread(family.harmless);
        match config.unknown_keys.first() {
            Some(key) if !allow_unknown => Err(raw.unsupported(
                key,
                "the key is not known for this family and may change the numbers (allowUnknownConfig accepts it)",
            )),
            _ => Ok(config),
        }
    }

    /// Number of parameters of the model, from its sizes.
    pub fn n_parameters(&self) -> usize {
        let (d, m, e) = (self.d_model, self.d_mlp, self.d_head);
        let (q, kv) = (self.n_heads * e, self.n_key_value_heads * e);
        let block = 4 * d + (d + 1) * (q + 2 * kv) + (q + 1) * d + (d + 1) * m + (m + 1) * d;
        let unembed = if self.tied_embeddings { 0 } else { self.d_vocab * d };
        self.d_vocab * d + self.n_context * d + self.n_layers * block + 2 * d + unembed
    }
}

/// Upper limits of what a config may ask for; beyond them a file is not a model but an attack or a mistake.
pub(crate) mod limits {
    pub const LAYERS: usize = 1024;
    pub const D_MODEL: usize = 1 << 18;
    pub const HEADS: usize = 4096;
    pub const D_MLP: usize = 1 << 20;
    pub const VOCABULARY: usize = 1 << 24;
    pub const CONTEXT: usize = 1 << 22;
}

/// `d_model` split evenly over the heads.
pub(crate) fn head_width(raw: &RawConfig, key: &str, d_model: usize, n_heads: usize) -> Result<usize> {
    if d_model.is_multiple_of(n_heads) {
        return Ok(d_model / n_heads);
    }
    Err(raw.invalid(key, n_heads, format!("a divisor of the model's width {d_model}")))
}

/// An activation by its Hugging Face name.
pub(crate) fn activation(raw: &RawConfig, key: &str, default: &str) -> Result<Activation> {
    let name = raw.text(key)?.unwrap_or_else(|| default.into());
    Activation::by_name(&name).ok_or_else(|| raw.unsupported(key, &format!("activations: {}", Activation::names())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(json: &str) -> Result<ModelConfig> {
        ModelConfig::resolve(RawConfig::parse("config.json", json.as_bytes())?, false)
    }

    fn code(json: &str) -> &'static str {
        resolve(json).unwrap_err().code()
    }

    #[test]
    fn another_model_type_is_refused_by_name() {
        let error = resolve(r#"{"model_type": "mamba"}"#).unwrap_err();
        assert_eq!(error.code(), "CONFIG_UNSUPPORTED");
        assert!(error.to_string().contains("mamba") && error.to_string().contains("gpt2"), "{error}");
        assert_eq!(code("{}"), "CONFIG_INVALID");
    }

    #[test]
    fn an_unknown_key_is_refused_unless_allowed() {
        let json = r#"{"model_type": "gpt2", "secret_gate": 2}"#;
        let error = resolve(json).unwrap_err();
        assert_eq!((error.code(), error.details()["key"].as_str()), ("CONFIG_UNSUPPORTED", Some("secret_gate")));
        let raw = RawConfig::parse("config.json", json.as_bytes()).unwrap();
        assert_eq!(ModelConfig::resolve(raw, true).unwrap().unknown_keys, ["secret_gate"]);
    }

    #[test]
    fn gpt2_small_has_the_published_number_of_parameters() {
        // 124,439,808: Radford et al. 2019 as counted by transformers' num_parameters()
        assert_eq!(resolve(r#"{"model_type": "gpt2"}"#).unwrap().n_parameters(), 124_439_808);
        let untied = resolve(r#"{"model_type": "gpt2", "tie_word_embeddings": false}"#).unwrap();
        assert_eq!(untied.n_parameters(), 124_439_808 + 50257 * 768);
    }
}
