//! Calls that change a run and compute what follows.

use super::Session;
use super::asked::{Asked, Ran};
use super::calls::ids_of;
use crate::attribution::{Component, OnViolation, Target, Unit, top_tokens};
use crate::causal::{self, Ablating, Causal, Erasure, Plan, Reference, Replacement, branch_rows};
use crate::chunk::{Chunk, Prompted, n_rows};
use crate::config::ModelConfig;
use crate::error::{PrismError, Result};
use crate::memory;
use crate::model::Transformer;
use crate::ops::MOST_COPIED;
use crate::rows::Positions;
use crate::run::{self, Job, Work};
use crate::tokenizer::{Prompt, Token};

/// A call of [`Session::ablate`].
#[derive(Debug, Clone)]
pub struct AblateCall {
    /// Prompts and rows.
    pub asked: Asked,
    /// One target for all prompts, or one per prompt.
    pub targets: Vec<Target<Token>>,
    /// What components are: heads or layers.
    pub unit: Unit,
    /// Labels of components; all without.
    pub components: Option<Vec<String>>,
    /// What takes their place.
    pub set: SetTo,
    /// Where.
    pub at: AblateAt,
    /// Whether a certificate that fails is an error.
    pub on_violation: OnViolation,
}

/// What takes the place of a component.
#[derive(Debug, Clone)]
pub enum SetTo {
    /// Zeros.
    Zero,
    /// The mean over reference prompts.
    Mean {
        /// The prompts.
        reference: Vec<Prompt>,
        /// At the same position; else over all positions.
        by_position: bool,
    },
    /// The value of another prompt at the same position: one for each prompt.
    From(Vec<Prompt>),
}

/// Where a component is replaced.
#[derive(Debug, Clone)]
pub enum AblateAt {
    /// At each row's own position.
    Row,
    /// At every position.
    All,
    /// At these positions.
    Positions(Positions),
}

/// A sweep and what was ablated: all components, and the columns of those.
pub type Ablated = (Vec<Component>, Vec<usize>, Causal);

impl Session {
    /// Replaces every wanted component, one at a time, and computes what follows.
    ///
    /// # Errors
    /// Those of tokenising, of targets and of the forward pass; `INVALID_ARGUMENT` for labels that name no component and
    /// references that do not fit, `INCOMPLETE`.
    pub fn ablate(&self, call: &AblateCall, job: &Job) -> Result<Ran<Ablated>> {
        self.guarded(|| {
            let model = &self.transformer;
            let config = &model.config;
            if call.unit == Unit::Neuron {
                return Err(PrismError::argument("unit", "neuron", "head or layer"));
            }
            let components = Component::all(call.unit, config);
            let columns = match &call.components {
                Some(labels) => top_tokens::columns(labels, call.unit, model)?,
                None => (0..components.len()).collect(),
            };
            let prompts = self.prepare(&call.asked, job)?;
            if let AblateAt::Positions(positions) = &call.at {
                positions.check(prompts.len())?;
            }
            let targets = self.targets(&call.targets, &call.asked.prompts)?;
            let plan = Plan::new(prompts, |i, length| call.at.of(i, length))?;
            let replacement = self.replacement(&call.set, &call.asked, &call.at, &plan, job)?;
            let _held = self.holdings.hold(replacement.bytes());
            let asked = Ablating { unit: call.unit, columns, replacement, on_violation: call.on_violation };
            let rows: usize = plan.planned.iter().map(|p| p.wanted.len()).sum();
            let work = Work {
                prompts: &plan.prompts,
                chunk_tokens: call.asked.chunk_tokens(self.device),
                purpose: "the ablation",
                result_bytes: (4 * rows * asked.columns.len() * (components.len() + 12)) as u64,
                is_merged: true,
                chunk_bytes: &|chunk| {
                    branching_bytes(model, chunk, asked.columns.len() * n_rows(chunk))
                        + asked.replacement.bytes_at(model, chunk)
                },
            };
            let parts = run::over_chunks(&self.place(), &work, job, |chunk| {
                causal::ablate(model, chunk, &plan.planned, &targets, &asked, job.cancel)
            })?;
            let causal = run::merged(parts, Causal::append);
            Ok((ids_of(plan.prompts), (components, asked.columns, causal)))
        })
    }

    /// How every component's write lies along that of the one component of a call, with it and without it; of one prompt at
    /// one position. Returns the components besides.
    ///
    /// # Errors
    /// Those of [`Session::ablate`]; `INVALID_ARGUMENT` for more than one prompt, position or component.
    pub fn erasure(&self, call: &AblateCall, job: &Job) -> Result<(Vec<Component>, Erasure)> {
        self.guarded(|| {
            let model = &self.transformer;
            let labels = call.components.as_deref().unwrap_or_default();
            let columns = top_tokens::columns(labels, call.unit, model)?;
            let plan = Plan::new(self.prepare(&call.asked, job)?, |i, length| call.at.of(i, length))?;
            let rows: usize = plan.planned.iter().map(|p| p.wanted.len()).sum();
            if [plan.prompts.len(), rows, columns.len()] != [1, 1, 1] {
                let found = format!("{} prompts, {rows} positions, {} components", plan.prompts.len(), columns.len());
                return Err(PrismError::argument("erasure", found, "one of each"));
            }
            let replacement = self.replacement(&call.set, &call.asked, &call.at, &plan, job)?;
            let _held = self.holdings.hold(replacement.bytes());
            let asked = Ablating { unit: call.unit, columns, replacement, on_violation: call.on_violation };
            let work = Work {
                prompts: &plan.prompts,
                chunk_tokens: call.asked.chunk_tokens(self.device),
                purpose: "the erasure",
                result_bytes: 0,
                is_merged: false,
                chunk_bytes: &|chunk| {
                    branching_bytes(model, chunk, asked.columns.len() * n_rows(chunk))
                        + asked.replacement.bytes_at(model, chunk)
                },
            };
            let mut found = run::over_chunks(&self.place(), &work, job, |chunk| {
                causal::erasure(model, chunk, &plan.planned, &asked, job.cancel)
            })?;
            let none = || PrismError::Internal { place: "erasure".into(), problem: "nothing was run".into() };
            Ok((Component::all(call.unit, &model.config), found.pop().ok_or_else(none)?))
        })
    }

    /// The values that take the place of components, from runs of their own where there are any.
    pub(super) fn replacement(
        &self,
        set: &SetTo,
        asked: &Asked,
        at: &AblateAt,
        plan: &Plan,
        job: &Job,
    ) -> Result<Replacement> {
        match set {
            SetTo::Zero => Ok(Replacement::Zero),
            SetTo::Mean { reference, by_position } => {
                // up to the last position that is replaced
                let last = plan.prompts.iter().flat_map(|p| &p.positions).max().copied().unwrap_or(0);
                let prompts = self.reference_ids(reference, asked.prepend_bos, "set.mean")?;
                let prompted = |ids: Vec<u32>| {
                    if *by_position && ids.len() <= last {
                        let found = format!("a reference of {} tokens", ids.len());
                        let expected = format!("at least {} tokens: position {last} is replaced", last + 1);
                        return Err(PrismError::argument("set.mean", found, expected));
                    }
                    let positions = (0..if *by_position { last + 1 } else { ids.len() }).collect();
                    Ok(Prompted::new(ids, positions))
                };
                let prompts = prompts.into_iter().map(prompted).collect::<Result<Vec<_>>>()?;
                let n = if *by_position { prompts.len() } else { n_rows(&prompts) };
                let mean = |chunk: Chunk| causal::mean(&self.transformer, chunk, *by_position, job.cancel);
                Ok(Replacement::Reference(self.reference(&prompts, asked, job, &mean)?.over(n)?))
            }
            SetTo::From(prompts) => {
                let prompts = self.taken_from(prompts, asked, at, plan)?;
                let of_prompts = |chunk: Chunk| causal::of_prompts(&self.transformer, chunk, job.cancel);
                Ok(Replacement::Reference(self.reference(&prompts, asked, job, &of_prompts)?))
            }
        }
    }

    /// The prompts that values are taken from, one for each of the call's, at the positions that are replaced.
    fn taken_from(&self, prompts: &[Prompt], asked: &Asked, at: &AblateAt, plan: &Plan) -> Result<Vec<Prompted>> {
        if prompts.len() != plan.prompts.len() {
            let found = format!("{} prompts", prompts.len());
            let expected = format!("{}: one for each prompt", plan.prompts.len());
            return Err(PrismError::argument("set.from", found, expected));
        }
        let named = |positions: &Positions| matches!(positions, Positions::Of(_) | Positions::PerPrompt(_));
        let is_named = named(&asked.positions)
            && match at {
                AblateAt::Row => true,
                AblateAt::All => false,
                AblateAt::Positions(positions) => named(positions),
            };
        let sources = self.reference_ids(prompts, asked.prepend_bos, "set.from")?;
        let source = |(i, (ids, of)): (usize, (Vec<u32>, &Prompted))| {
            let last = of.positions.last().copied().unwrap_or(0);
            if ids.len() <= last || (ids.len() != of.ids.len() && !is_named) {
                let found = format!("{} tokens for prompt {i} of {}", ids.len(), of.ids.len());
                let expected = "as many tokens as its prompt has, or positions by number that both have";
                return Err(PrismError::argument("set.from", found, expected));
            }
            Ok(Prompted::new(ids, of.positions.clone()))
        };
        sources.into_iter().zip(&plan.prompts).enumerate().map(source).collect()
    }

    fn reference_ids(&self, prompts: &[Prompt], prepend_bos: Option<bool>, argument: &str) -> Result<Vec<Vec<u32>>> {
        if prompts.is_empty() {
            return Err(PrismError::argument(argument, "an empty list", "at least one prompt"));
        }
        let ids = |(i, prompt): (usize, &Prompt)| {
            self.ids(prompt, i, prepend_bos.filter(|_| matches!(prompt, Prompt::Text(_))))
        };
        prompts.iter().enumerate().map(ids).collect()
    }

    /// Runs reference prompts and puts what `each` makes of their chunks together.
    fn reference(
        &self,
        prompts: &[Prompted],
        asked: &Asked,
        job: &Job,
        each: &(impl Fn(Chunk) -> Result<Reference> + Sync),
    ) -> Result<Reference> {
        let work = Work {
            prompts,
            chunk_tokens: asked.chunk_tokens(self.device),
            purpose: "the reference runs",
            result_bytes: Reference::bytes(&self.transformer, prompts),
            is_merged: true,
            // what they leave stays where it was computed, and is put together there
            chunk_bytes: &|chunk| {
                let kept = if self.transformer.device.is_cpu() { &[] } else { prompts };
                Reference::bytes(&self.transformer, chunk) + 2 * Reference::bytes(&self.transformer, kept)
            },
        };
        let silent = Job { cancel: job.cancel, progress: &|_, _| {} };
        let mut parts = run::over_chunks(&self.place(), &work, &silent, each)?.into_iter();
        let none = || PrismError::Internal { place: "reference runs".into(), problem: "none".into() };
        let mut all = parts.next().ok_or_else(none)?;
        parts.try_for_each(|part| all.append(part))?;
        Ok(all)
    }
}

impl AblateAt {
    /// The positions of one prompt, rising; `None` for each row's own.
    pub(super) fn of(&self, prompt: usize, length: usize) -> Result<Option<Vec<usize>>> {
        match self {
            AblateAt::Row => Ok(None),
            AblateAt::All => Ok(Some((0..length).collect())),
            AblateAt::Positions(positions) => positions.of(prompt, length).map(Some),
        }
    }
}

/// Bytes of a chunk's sweep, in which at most `most` rows branch off: what the clean run keeps, keys and values of all its
/// positions, and a batch of branches.
pub(super) fn branching_bytes(model: &Transformer, chunk: &[Prompted], most: usize) -> u64 {
    let config = &model.config;
    let (rows, width) = (n_rows(chunk), config.n_key_value_heads * config.d_head);
    let longest = chunk.iter().map(|p| p.positions.len()).max().unwrap_or(0).max(1);
    let tokens: usize = chunk.iter().map(|p| p.ids.len()).sum();
    let keys_and_values = tokens * config.n_layers * 2 * width;
    let branches = branch_rows(&model.device).min(most).max(rows) + rows;
    let lengths = vec![longest; branches.div_ceil(longest)];
    // a GPU copies one layer's keys and values of the branches, and lays them out by head
    let keys = lengths.len() * chunk.iter().map(|p| p.ids.len()).max().unwrap_or(0);
    let copied = if model.device.is_cpu() { 0 } else { 4 * MOST_COPIED.min(keys * width) };
    kept_bytes(config, rows) + 4 * (keys_and_values + copied) as u64 + memory::forward_of(model, &lengths, branches)
}

/// Bytes of what a run keeps at some rows for runs that branch off it.
pub(super) fn kept_bytes(config: &ModelConfig, rows: usize) -> u64 {
    let z = config.n_heads * config.d_head;
    4 * (rows * (config.n_layers * (3 * config.d_model + z) + 4 * config.d_model)) as u64
}
