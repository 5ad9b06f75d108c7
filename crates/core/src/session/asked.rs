//! What a call asks for, and how that becomes ids: prompts, rows, targets. Everything is checked before anything runs.

use super::Session;
use crate::attribution::lens::LensNorm;
use crate::attribution::{OnViolation, Options, Target, Unit};
use crate::cache::Logits;
use crate::chunk::Prompted;
use crate::device::DeviceName;
use crate::error::{PrismError, Result};
use crate::rows::Positions;
use crate::run::{self, Job};
use crate::tokenizer::{Prompt, Token};

/// What every call says: prompts, which rows of them, and how they are run.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Prompts, of any lengths.
    pub prompts: Vec<Prompt>,
    /// Which positions.
    pub positions: Positions,
    /// Put a BOS token in front of texts, or leave it out, whatever the tokenizer does.
    pub prepend_bos: Option<bool>,
    /// Tokens per chunk; [`run::chunk_tokens`] if not given.
    pub chunk_tokens: Option<usize>,
}

/// A call of [`Session::attribute`].
#[derive(Debug, Clone)]
pub struct Call {
    /// Prompts and rows.
    pub asked: Asked,
    /// One target for all prompts, or one per prompt.
    pub targets: Vec<Target<Token>>,
    /// Columns, norm and certificate.
    pub options: Options,
}

/// A call of [`Session::run`].
#[derive(Debug, Clone)]
pub struct RunCall {
    /// Prompts and rows.
    pub asked: Asked,
    /// Hook points by name, `*` standing for any characters.
    pub points: Vec<String>,
    /// Logits.
    pub logits: Logits,
}

/// A call of [`Session::sources`].
#[derive(Debug, Clone)]
pub struct SourcesCall {
    /// Prompts, rows and targets; the unit is that of heads.
    pub call: Call,
    /// Labels of heads; all without.
    pub heads: Option<Vec<String>>,
}

/// A call of [`Session::lens`].
#[derive(Debug, Clone)]
pub struct LensCall {
    /// Prompts and rows.
    pub asked: Asked,
    /// One target for all prompts, one per prompt, or none at all.
    pub targets: Vec<Target<Token>>,
    /// The final norm.
    pub norm: LensNorm,
    /// The k most likely tokens; 0 for none.
    pub top: usize,
}

/// A call of [`Session::top_tokens`].
#[derive(Debug, Clone)]
pub struct TopTokensCall {
    /// Prompts and rows.
    pub asked: Asked,
    /// The components.
    pub unit: Unit,
    /// Labels of components of that unit; all without.
    pub components: Option<Vec<String>>,
    /// How many tokens each way.
    pub k: usize,
    /// Tokens that are left out.
    pub masked: Vec<u32>,
}

/// A call of [`Session::probe`].
#[derive(Debug, Clone)]
pub struct ProbeCall {
    /// Prompts and rows.
    pub asked: Asked,
    /// [directions, d_model], row-major
    pub directions: Vec<f32>,
    /// Name of a point of the residual stream.
    pub at: String,
    /// The columns: layers or heads.
    pub unit: Unit,
    /// Whether a row beyond its tolerance is an error.
    pub on_violation: OnViolation,
}

/// A result and the ids that were run, prompt by prompt.
pub type Ran<T> = (Vec<Vec<u32>>, T);

impl Session {
    /// The prompts as ids, and their wanted positions.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`, `ABORTED`, and those of [`Session::ids`].
    pub(super) fn prepare(&self, asked: &Asked, job: &Job) -> Result<Vec<Prompted>> {
        let n_prompts = asked.prompts.len();
        if n_prompts == 0 {
            return Err(PrismError::argument("prompts", "an empty list", "at least one prompt"));
        }
        if asked.chunk_tokens == Some(0) {
            return Err(PrismError::argument("batchTokens", 0, "a whole number from 1 on"));
        }
        asked.positions.check(n_prompts)?;
        let prepare = |(index, prompt)| {
            job.cancel.check()?;
            let ids = self.ids(prompt, index, asked.prepend_bos)?;
            let positions = asked.positions.of(index, ids.len())?;
            Ok(Prompted::new(ids, positions))
        };
        asked.prompts.iter().enumerate().map(prepare).collect()
    }

    /// The target of every prompt, its tokens as ids.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`, `TOKEN_RANGE`, and those of tokens given as text.
    pub(super) fn targets(&self, targets: &[Target<Token>], prompts: &[Prompt]) -> Result<Vec<Target>> {
        let config = &self.transformer.config;
        if targets.len() != 1 && targets.len() != prompts.len() {
            let found = format!("{} targets for {} prompts", targets.len(), prompts.len());
            return Err(PrismError::argument("targets", found, "one target, or one per prompt"));
        }
        let of = |(index, prompt): (usize, &Prompt)| {
            let target = targets[index.min(targets.len() - 1)].try_map(|token| self.token(token, prompt));
            let target = target.map_err(|e| if prompts.len() == 1 { e } else { behind_prompt(e, index) })?;
            target.check(config.d_vocab, config.d_model)?;
            Ok(target)
        };
        prompts.iter().enumerate().map(of).collect()
    }
}

impl Asked {
    /// Tokens per chunk.
    pub(super) fn chunk_tokens(&self, device: DeviceName) -> usize {
        self.chunk_tokens.unwrap_or(run::chunk_tokens(device))
    }
}

/// Which of several prompts a token does not fit behind.
fn behind_prompt(error: PrismError, index: usize) -> PrismError {
    match error {
        PrismError::NotOneToken { text, place, pieces, hint } => {
            let place = place.replace("behind the prompt", &format!("behind prompt {index}"));
            PrismError::NotOneToken { text, place, pieces, hint }
        }
        other => other,
    }
}

/// That neurons are cut only where there are neurons.
///
/// # Errors
/// `INVALID_ARGUMENT`.
pub(super) fn check_top(options: &Options) -> Result<()> {
    match options.top {
        Some(_) if options.unit != Unit::Neuron => {
            Err(PrismError::argument("top", "given with coarser columns", "unit: 'neuron' with it"))
        }
        Some(0) => Err(PrismError::argument("top", 0, "a whole number from 1 on")),
        _ => Ok(()),
    }
}

/// That a number of tokens is one that the vocabulary has.
///
/// # Errors
/// `INVALID_ARGUMENT`.
pub(super) fn check_count(name: &str, count: usize, from: usize, to: usize) -> Result<()> {
    if (from..=to).contains(&count) {
        return Ok(());
    }
    Err(PrismError::argument(name, count, format!("a whole number from {from} to {to}, the size of the vocabulary")))
}
