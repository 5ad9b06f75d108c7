//! Which circuit of which head, what must be known about it, and its factors.

use super::factored::Factored;
use super::rotary::{original_length, turn};
use super::weights::{Folded, Folding};
use crate::config::{ModelConfig, NormKind, Positions, Rotary};
use crate::error::{PrismError, Result};
use crate::model::{NormLayer, Transformer};
use std::ops::RangeInclusive;

/// A circuit of one head.
#[derive(Debug, Clone, PartialEq)]
pub struct CircuitSpec {
    /// Layer.
    pub layer: usize,
    /// Query head.
    pub head: usize,
    /// Which of its two circuits.
    pub kind: CircuitKind,
    /// Whether norms are folded in.
    pub folding: Folding,
}

/// What is moved, or where is looked.
#[derive(Debug, Clone, PartialEq)]
pub enum CircuitKind {
    /// `W_V W_O`
    Ov,
    /// `W_Q T(δ) W_Kᵀ`
    Qk(Offsets),
}

/// The offsets of a query/key circuit: position of the query less position of the key. Only rotary layers have them.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Offsets {
    /// One offset, or the mean over a range of them; 0 if not given.
    pub range: Option<RangeInclusive<usize>>,
    /// Length of the prompt, where the angles depend on it; the length of training if not given.
    pub length: Option<usize>,
}

/// The factors of a circuit, and what must be known to read them.
#[derive(Debug, Clone)]
pub struct Circuit {
    /// [d_model, e] · [e, d_model]
    pub factored: Factored,
    /// What was folded in, what was left out, and what else holds for its numbers.
    pub notes: Vec<String>,
}

impl CircuitSpec {
    /// That the circuit exists as a matrix of the weights alone; returns what must be known about it. Computes nothing.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for layers, heads, offsets and lengths that the model does not have; `CONFIG_UNSUPPORTED` where
    /// scores or values are no product of weights: norms of queries and keys, clipped values.
    pub fn check(&self, model: &Transformer) -> Result<Vec<String>> {
        let config = &model.config;
        below("layer", self.layer, config.n_layers)?;
        below("head", self.head, config.n_heads)?;
        not_clipped(config)?;
        let mut notes = self.norm_notes(model);
        notes.extend(self.group_note(config));
        match &self.kind {
            CircuitKind::Ov => notes.extend(ov_notes(model)),
            CircuitKind::Qk(offsets) => {
                without_qk_norm(config)?;
                notes.extend(self.qk_notes(config, offsets)?);
            }
        }
        notes.extend(embedding_notes(config));
        Ok(notes)
    }

    /// Copies the factors out of the model.
    ///
    /// # Errors
    /// Those of [`CircuitSpec::check`].
    pub fn read(&self, model: &Transformer) -> Result<Circuit> {
        let notes = self.check(model)?;
        let weights = Folded::new(model, self.layer, self.head, self.folding)?;
        let factored = match &self.kind {
            CircuitKind::Ov => Factored { a: weights.v, b: weights.o },
            CircuitKind::Qk(offsets) => {
                let k = weights.k.transpose();
                let b = match model.config.rotary(self.layer) {
                    Some(rotary) => turn(rotary, k.nrows(), offsets.range(), offsets.length(rotary)) * k,
                    None => k,
                };
                Factored { a: weights.q, b }
            }
        };
        Ok(Circuit { factored, notes })
    }

    fn norm_notes(&self, model: &Transformer) -> Vec<String> {
        let block = &model.blocks[self.layer];
        let reads = if self.kind == CircuitKind::Ov { "W_V" } else { "W_Q and W_K" };
        if self.folding == Folding::Raw {
            return vec!["norms are left out: neither γ nor centring is in the matrices".into()];
        }
        let mut notes = Vec::new();
        if let Some(norm) = &block.ln1 {
            notes.push(format!(
                "{} of the norm before attention folded into {reads}; its scale, which depends on the token, is left out",
                parts_of(norm)
            ));
        }
        if let (CircuitKind::Ov, Some(norm)) = (&self.kind, &block.ln1_post) {
            notes.push(format!(
                "{} of the norm after attention folded into W_O: what is written is known up to that norm's scale, a number per token",
                parts_of(norm)
            ));
        }
        if self.kind == CircuitKind::Ov {
            let parts = parts_of(&model.ln_final);
            notes.push(format!("between tokens: {parts} of the final norm folded into W_U, its scale left out"));
        }
        notes
    }

    fn group_note(&self, config: &ModelConfig) -> Option<String> {
        let size = config.n_heads / config.n_key_value_heads;
        let group = self.head / size;
        let (first, last) = (group * size, group * size + size - 1);
        let matrix = if self.kind == CircuitKind::Ov { "W_V" } else { "W_K" };
        (size > 1).then(|| format!("{matrix} is that of key/value head {group}, shared by heads {first} to {last}"))
    }

    fn qk_notes(&self, config: &ModelConfig, offsets: &Offsets) -> Result<Vec<String>> {
        let mut notes = vec![format!(
            "scores are this times {} (the model's scale), which is not in the matrix",
            config.attention_scale[self.layer]
        )];
        match config.rotary(self.layer) {
            Some(rotary) => notes.extend(self.rotary_notes(config, rotary, offsets)?),
            None => {
                let reason = match &config.positions {
                    Positions::Rotary { .. } => format!("layer {} has no positions", self.layer),
                    Positions::Alibi(_) => "ALiBi adds a bias that depends on the distance alone to the score".into(),
                    _ => "positions are vectors that are added to the embedding".into(),
                };
                if offsets != &Offsets::default() {
                    let expected = format!("none: {reason}, so the circuit is the same at every offset");
                    return Err(PrismError::argument("offset", "given", expected));
                }
                notes.push(format!("{reason}: the circuit is the same at every offset"));
            }
        }
        if config.biases.qkv {
            notes.push("biases of queries and keys are left out".into());
        }
        notes.extend(beta_note(config, "a constant part of every query and key is left out"));
        if let Some(cap) = config.score_cap {
            notes.push(format!("the model caps its scores: {cap} · tanh(score / {cap}); this is before the cap"));
        }
        Ok(notes)
    }

    fn rotary_notes(&self, config: &ModelConfig, rotary: &Rotary, offsets: &Offsets) -> Result<Vec<String>> {
        let range = offsets.range();
        let (first, last) = (*range.start(), *range.end());
        if first > last {
            return Err(PrismError::argument("offset", format!("{first} to {last}"), "the smaller offset first"));
        }
        below("offset", last, config.n_context)?;
        if let Some(length) = offsets.length {
            if original_length(rotary).is_none() {
                let expected =
                    format!("none: the angles of {} scaling are the same at every length", rotary.scaling.name());
                return Err(PrismError::argument("length", length, expected));
            }
            if !(1..=config.n_context).contains(&length) {
                let expected = format!("a whole number from 1 to {}, the model's context", config.n_context);
                return Err(PrismError::argument("length", length, expected));
            }
        }
        let mut notes = Vec::new();
        notes.push(if first == last {
            format!("rotary positions: the key {first} positions before the query")
        } else {
            format!("rotary positions: the mean of the turns of keys {first} to {last} positions before the query")
        });
        if original_length(rotary).is_some() {
            let (name, length) = (rotary.scaling.name(), offsets.length(rotary));
            notes.push(format!("{name} angles of a prompt of {length} tokens"));
        }
        match config.windows[self.layer] {
            Some(window) if last >= window => {
                notes.push(format!("the layer looks back {} positions at most", window - 1));
            }
            _ => {}
        }
        Ok(notes)
    }
}

impl Offsets {
    fn range(&self) -> RangeInclusive<usize> {
        self.range.clone().unwrap_or(0..=0)
    }

    fn length(&self, rotary: &Rotary) -> usize {
        self.length.or(original_length(rotary)).unwrap_or(1)
    }
}

/// What a norm's β does to a circuit.
fn beta_note(config: &ModelConfig, what: &str) -> Option<String> {
    let has_beta = config.layout.ln1.is_some() && config.norm.bias;
    has_beta.then(|| format!("the norm before attention has a β: {what}"))
}

fn ov_notes(model: &Transformer) -> Vec<String> {
    let config = &model.config;
    let mut notes = Vec::new();
    notes.extend(beta_note(config, "what it writes through W_V W_O whatever is read is left out"));
    if config.residual_multiplier != 1.0 {
        let factor = config.residual_multiplier;
        notes.push(format!("the block multiplies what it writes with {factor}, which is in W_O"));
    }
    if config.biases.qkv {
        notes.push("the value bias is left out: it is written whatever is read".into());
    }
    if model.unembed.logit_scale != 1.0 {
        notes
            .push(format!("between tokens: logits are multiplied with {}, which is in W_U", model.unembed.logit_scale));
    }
    notes
}

fn embedding_notes(config: &ModelConfig) -> Vec<String> {
    let mut notes = Vec::new();
    if config.embed_scale != 1.0 {
        notes.push(format!("between tokens: the token embedding is multiplied with {}", config.embed_scale));
    }
    if config.layout.embed_norm.is_some() {
        notes.push("between tokens: the token embedding is taken behind its norm".into());
    }
    notes
}

fn parts_of(norm: &NormLayer) -> &'static str {
    match norm.norm.kind {
        NormKind::LayerNorm => "γ and centring",
        NormKind::RmsNorm => "γ",
    }
}

/// That an index is one of `n`.
fn below(argument: &str, index: usize, n: usize) -> Result<()> {
    if index < n {
        return Ok(());
    }
    Err(PrismError::argument(argument, index, format!("a whole number from 0 to {}", n.saturating_sub(1))))
}

/// # Errors
/// `CONFIG_UNSUPPORTED` for a model that cuts queries, keys and values.
pub(super) fn not_clipped(config: &ModelConfig) -> Result<()> {
    let Some(clip) = config.clip_qkv else { return Ok(()) };
    Err(no_matrix(
        "clip_qkv",
        clip,
        "queries, keys and values are cut to ± this, so no matrix of the weights gives them",
    ))
}

/// # Errors
/// `CONFIG_UNSUPPORTED` for a model whose queries and keys go through norms.
pub(super) fn without_qk_norm(config: &ModelConfig) -> Result<()> {
    let Some(qk) = config.qk_norm else { return Ok(()) };
    let kind = match qk.norm.kind {
        NormKind::LayerNorm => "layer norm",
        NormKind::RmsNorm => "RMS norm",
    };
    let reason = "each query and key is divided by a scale of its own before the score, so QK has no form in weights alone; \
                  read hook_attn_scores of a run instead";
    Err(no_matrix("norm of queries and keys", kind, reason))
}

fn no_matrix(key: &str, value: impl ToString, reason: &str) -> PrismError {
    PrismError::ConfigUnsupported {
        file: "config.json".into(),
        key: key.into(),
        value: value.to_string(),
        reason: reason.into(),
    }
}
