//! A checkpoint's `config.json`, resolved: every number that the forward pass needs, no option left open.
//!
//! One file per family (`families/gpt2.rs`) turns the raw keys into a [`ModelConfig`] and says where the weights lie
//! ([`Layout`]), or refuses with the reason. To add a family: write its file, and add it to [`families::ALL`].

mod common;
mod families;
mod layout;
mod quantization;
mod raw;
mod rope;
mod spec;

pub use layout::{Correction, Layout, MlpNames, Orientation, Qkv, SharedExpertNames, SharedMlpNames, Stacking};
pub use quantization::check_files as check_not_quantised;
pub use raw::RawConfig;
pub use spec::*;

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
    /// Width of the MLP's hidden layer, or of one expert's, `m`.
    pub d_mlp: usize,
    /// Number of tokens, `V`.
    pub d_vocab: usize,
    /// Longest prompt, in tokens.
    pub n_context: usize,
    /// What the token embedding is multiplied with.
    pub embed_scale: f64,
    /// How positions enter.
    pub positions: Positions,
    /// The norms of the residual stream.
    pub norm: Norm,
    /// Whether attention and MLP of a block read the same stream and are added together.
    pub parallel: bool,
    /// The norm of queries and keys.
    pub qk_norm: Option<QkNorm>,
    /// Queries, keys and values are cut to ± this.
    pub clip_qkv: Option<f64>,
    /// What the scores `q·k` are multiplied with, per layer.
    pub attention_scale: Vec<f64>,
    /// Scores go through `cap · tanh(score / cap)`.
    pub score_cap: Option<f64>,
    /// How far back each layer looks: a query sees its own position and the `window − 1` before it. `None`: all.
    pub windows: Vec<Option<usize>>,
    /// Whether every head has a learned score that takes part in the softmax and moves no value.
    pub attention_sinks: bool,
    /// The kind of MLP.
    pub mlp: MlpKind,
    /// Layers whose MLP is a plain gated one though the others have experts, and its width.
    pub dense_layers: Vec<usize>,
    /// Hidden width of the MLP of `dense_layers`.
    pub d_mlp_dense: usize,
    /// Activation of the MLP.
    pub activation: Activation,
    /// Which linear layers have a bias.
    pub biases: Biases,
    /// What attention and MLP write is multiplied with this.
    pub residual_multiplier: f64,
    /// κ: what logits are multiplied with.
    pub logit_scale: f64,
    /// Logits go through `cap · tanh(logit / cap)`.
    pub logit_cap: Option<f64>,
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

/// The sizes of a model.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    pub n_layers: usize,
    pub n_heads: usize,
    pub n_key_value_heads: usize,
    pub d_model: usize,
    pub d_head: usize,
    pub d_mlp: usize,
    pub d_vocab: usize,
    pub n_context: usize,
}

impl ModelConfig {
    /// Resolves the keys of a `config.json`.
    ///
    /// # Errors
    /// `CONFIG_INVALID` where a value is not of its kind or out of its limits, `CONFIG_UNSUPPORTED` where the model is
    /// another than the ones implemented, or where a key is neither read nor known to be harmless (unless
    /// `allow_unknown`).
    pub fn resolve(raw: RawConfig, allow_unknown: bool) -> Result<Self> {
        quantization::check(&raw)?;
        let model_type = raw.text("model_type")?.ok_or_else(|| raw.invalid("model_type", "missing", "a model type"))?;
        let family = families::find(&raw, &model_type)?;
        raw.must_be_off("is_encoder_decoder", "only decoders are implemented")?;
        raw.must_be_off("add_cross_attention", "an encoder's writes are not part of this residual stream")?;
        raw.must_be_empty("pruned_heads", "pruned heads change the shape of every head")?;
        let mut config = (family.resolve)(&raw)?;
        config.unknown_keys = raw.unread(family.harmless);
        config.notes = config.special();
        match config.unknown_keys.first() {
            Some(key) if !allow_unknown => Err(raw.unsupported(
                key,
                "nobody here knows this key, and it may change the numbers (allowUnknownConfig, --allow-unknown-config accept it)",
            )),
            _ => Ok(config),
        }
    }

    /// A decoder with norms before its sublayers and nothing special: what a family starts from and changes.
    pub(crate) fn plain(
        family: &'static str,
        sizes: Sizes,
        norm: Norm,
        positions: Positions,
        activation: Activation,
        layout: Layout,
    ) -> Self {
        let Sizes { n_layers, n_heads, n_key_value_heads, d_model, d_head, d_mlp, d_vocab, n_context } = sizes;
        ModelConfig {
            family,
            n_layers,
            n_heads,
            n_key_value_heads,
            d_model,
            d_head,
            d_mlp,
            d_vocab,
            n_context,
            embed_scale: 1.0,
            positions,
            norm,
            parallel: false,
            qk_norm: None,
            clip_qkv: None,
            attention_scale: vec![(d_head as f64).powf(-0.5); n_layers],
            score_cap: None,
            windows: vec![None; n_layers],
            attention_sinks: false,
            mlp: MlpKind::Plain,
            dense_layers: Vec::new(),
            d_mlp_dense: d_mlp,
            activation,
            biases: Biases::default(),
            residual_multiplier: 1.0,
            logit_scale: 1.0,
            logit_cap: None,
            tied_embeddings: false,
            bos_token: None,
            notes: Vec::new(),
            unknown_keys: Vec::new(),
            layout,
        }
    }

    /// The rotary positions of a layer.
    pub fn rotary(&self, l: usize) -> Option<&Rotary> {
        match &self.positions {
            Positions::Rotary { layers } => layers[l].as_ref(),
            _ => None,
        }
    }

    /// Whether the scores use other queries and keys than were projected: normed, or turned.
    pub fn turns_queries_and_keys(&self) -> bool {
        self.qk_norm.is_some() || matches!(self.positions, Positions::Rotary { .. })
    }

    /// The MLP of a layer, and its hidden width.
    pub fn mlp_of(&self, l: usize) -> (MlpKind, usize) {
        if self.dense_layers.contains(&l) { (MlpKind::Gated, self.d_mlp_dense) } else { (self.mlp, self.d_mlp) }
    }

    /// Whether attention writes a part that no head writes: b_O, or the β of a norm after attention.
    pub fn has_attn_bias(&self) -> bool {
        self.biases.attn_out || (self.layout.ln1_post.is_some() && self.norm.bias)
    }

    /// Whether MLPs write a part that no neuron writes: b_out, or the β of a norm after the MLP.
    pub fn has_mlp_bias(&self) -> bool {
        self.biases.mlp || (self.layout.ln2_post.is_some() && self.norm.bias)
    }

    /// What is special about the model, in words.
    fn special(&self) -> Vec<String> {
        let mut notes = Vec::new();
        let mut note = |when: bool, text: &str| {
            if when {
                notes.push(text.to_string());
            }
        };
        note(self.parallel, "attention and MLP in parallel");
        note(self.layout.ln1.is_none(), "no norm before the sublayers");
        note(self.layout.ln1_post.is_some(), "norm after each sublayer");
        note(self.norm.gain == Gain::OnePlusWeight, "norms multiply by 1 + weight");
        note(self.norm.gain == Gain::None, "norms without weights");
        note(self.layout.embed_norm.is_some(), "norm of the embedding");
        note(self.embed_scale != 1.0, &format!("embedding × {}", short(self.embed_scale)));
        let plural = if self.n_key_value_heads == 1 { "" } else { "s" };
        let shared = format!("{} key-value head{plural}", self.n_key_value_heads);
        note(self.n_key_value_heads < self.n_heads, &shared);
        let after = self.qk_norm.is_some_and(|norm| norm.after_rotary);
        note(self.qk_norm.is_some() && !after, "norm of queries and keys");
        note(after, "norm of queries and keys after the rotation");
        note(self.clip_qkv.is_some(), "queries, keys and values clipped");
        note(matches!(self.positions, Positions::Alibi(_)), "ALiBi");
        if let Positions::Rotary { layers } = &self.positions {
            let rotary = layers.iter().flatten().next();
            note(rotary.is_some_and(|r| r.dim < self.d_head), "rotary on a part of each head");
            note(rotary.is_some_and(|r| r.style == RotaryStyle::Pairs), "rotary in pairs");
            let scaling = layers.iter().flatten().map(|r| &r.scaling).find(|s| **s != RotaryScaling::Default);
            note(scaling.is_some(), &format!("{} rotary scaling", scaling.map_or("", |s| s.name())));
            note(layers.iter().any(Option::is_none), "layers without positions");
        }
        let window = self.windows.iter().flatten().next();
        note(window.is_some(), &format!("sliding window of {}", window.unwrap_or(&0)));
        note(self.attention_sinks, "attention sinks");
        note(self.score_cap.is_some(), "scores capped");
        let uneven = self.attention_scale.iter().any(|s| *s != self.attention_scale[0]);
        note(uneven, "attention scores divided by the layer's number");
        let usual = (self.d_head as f64).powf(-0.5);
        let unusual = !uneven && (self.attention_scale[0] - usual).abs() > 1e-12;
        note(unusual, &format!("scores × {}, not 1/√d_head", short(self.attention_scale[0])));
        if let MlpKind::Experts { n_experts, top_k, shared, .. } = self.mlp {
            let shared = if shared.is_some() { " and a shared one" } else { "" };
            note(true, &format!("{top_k} of {n_experts} experts{shared}"));
        }
        note(self.residual_multiplier != 1.0, &format!("writes × {}", self.residual_multiplier));
        note(self.logit_scale != 1.0, &format!("logits × {}", self.logit_scale));
        note(self.logit_cap.is_some(), "logits capped");
        note(self.biases.unembed, "unembedding with a bias");
        notes
    }
}

/// At most six decimals, and no more than there are.
fn short(x: f64) -> String {
    format!("{x:.6}").trim_end_matches('0').trim_end_matches('.').to_string()
}

/// Upper limits of what a config may ask for; beyond them a file is not a model but an attack or a mistake.
pub(crate) mod limits {
    pub const LAYERS: usize = 1024;
    pub const D_MODEL: usize = 1 << 18;
    pub const HEADS: usize = 4096;
    pub const D_HEAD: usize = 1 << 14;
    pub const D_MLP: usize = 1 << 20;
    pub const EXPERTS: usize = 4096;
    pub const VOCABULARY: usize = 1 << 24;
    pub const CONTEXT: usize = 1 << 22;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(json: &str) -> Result<ModelConfig> {
        ModelConfig::resolve(RawConfig::parse("config.json", json.as_bytes())?, false)
    }

    #[test]
    fn another_model_type_is_refused_by_name() {
        let error = resolve(r#"{"model_type": "nobody_knows"}"#).unwrap_err();
        assert_eq!(error.code(), "CONFIG_UNSUPPORTED");
        assert!(error.to_string().contains("nobody_knows") && error.to_string().contains("gpt2"), "{error}");
        assert_eq!(resolve("{}").unwrap_err().code(), "CONFIG_INVALID");
    }

    #[test]
    fn what_no_permission_covers() {
        for (key, value) in [
            ("quantization_config", r#"{"quant_method": "awq"}"#),
            ("add_cross_attention", "true"),
            ("is_encoder_decoder", "true"),
            ("pruned_heads", r#"{"0": [1]}"#),
        ] {
            let json = format!(r#"{{"model_type": "llama", "{key}": {value}}}"#);
            let error = ModelConfig::resolve(RawConfig::parse("c", json.as_bytes()).unwrap(), true).unwrap_err();
            assert_eq!(error.code(), "CONFIG_UNSUPPORTED");
            assert!(error.details()["key"].as_str().is_some_and(|found| found.starts_with(key)), "{error}");
        }
    }

    #[test]
    fn an_unknown_key_is_refused_unless_allowed() {
        let json = r#"{"model_type": "gpt2", "secret_gate": 2}"#;
        let error = resolve(json).unwrap_err();
        assert_eq!((error.code(), error.details()["key"].as_str()), ("CONFIG_UNSUPPORTED", Some("secret_gate")));
        let raw = RawConfig::parse("config.json", json.as_bytes()).unwrap();
        assert_eq!(ModelConfig::resolve(raw, true).unwrap().unknown_keys, ["secret_gate"]);
    }
}
