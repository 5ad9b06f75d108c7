//! What remains of a target without sets of components: the runs behind faithfulness, completeness and minimality.

use super::Session;
use super::asked::{Asked, Ran};
use super::calls::ids_of;
use super::causes::{AblateAt, SetTo};
use crate::attribution::{Component, Kind, Target, Unit};
use crate::causal::{self, Plan, Reference, Removing, Without};
use crate::chunk::{Prompted, n_rows};
use crate::config::ModelConfig;
use crate::error::{PrismError, Result};
use crate::memory;
use crate::run::{self, Job, Work};
use crate::tokenizer::Token;

/// A call of [`Session::without`].
#[derive(Debug, Clone)]
pub struct WithoutCall {
    /// Prompts and rows.
    pub asked: Asked,
    /// One target for all prompts, or one per prompt.
    pub targets: Vec<Target<Token>>,
    /// Sets of components, as their numbers among those by head: heads, MLPs and embeddings.
    pub sets: Vec<Vec<usize>>,
    /// What takes their place.
    pub set: SetTo,
}

impl Session {
    /// The target as it is, and without each set of components, which are replaced together at every position.
    ///
    /// # Errors
    /// Those of tokenising, of targets and of the forward pass; `INVALID_ARGUMENT` for components that cannot be replaced
    /// and references that do not fit.
    pub fn without(&self, call: &WithoutCall, job: &Job) -> Result<Ran<Without>> {
        self.guarded(|| {
            let model = &self.transformer;
            let sets = call.sets.iter().map(|set| components(set, &model.config)).collect::<Result<Vec<_>>>()?;
            let prompts = self.prepare(&call.asked, job)?;
            let targets = self.targets(&call.targets, &call.asked.prompts)?;
            let at = AblateAt::All;
            let plan = Plan::new(prompts, |i, length| at.of(i, length))?;
            let replacement = self.replacement(&call.set, &call.asked, &at, &plan, job)?;
            let chunk_tokens = call.asked.chunk_tokens(self.device);
            let _held = self.holdings.hold(replacement.bytes());
            let asked = Removing { sets, replacement, chunk_tokens };
            let rows: usize = plan.planned.iter().map(|p| p.wanted.len()).sum();
            let work = Work {
                prompts: &plan.prompts,
                chunk_tokens,
                purpose: "the runs without components",
                result_bytes: (8 * rows * (asked.sets.len() + 2)) as u64,
                is_merged: true,
                chunk_bytes: &|chunk| removing_bytes(self, chunk, &asked),
            };
            let parts = run::over_chunks(&self.place(), &work, job, |chunk| {
                causal::without(model, chunk, &plan.planned, &targets, &asked, job.cancel)
            })?;
            Ok((ids_of(plan.prompts), run::merged(parts, Without::append)))
        })
    }
}

/// The components of a set.
fn components(set: &[usize], config: &ModelConfig) -> Result<Vec<Component>> {
    let all = Component::all(Unit::Head, config);
    let one = |column: &usize| match all.get(*column) {
        Some(c) if matches!(c.kind, Kind::Head | Kind::Mlp | Kind::Embed | Kind::PosEmbed) => Ok(*c),
        found => {
            let found = found.map_or_else(|| format!("component {column} of {}", all.len()), Component::label);
            Err(PrismError::argument("components", found, "heads, MLPs and embeddings"))
        }
    };
    set.iter().map(one).collect()
}

/// Bytes of a chunk's runs: what takes the place of components at its positions, and the runs of some sets together.
fn removing_bytes(session: &Session, chunk: &[Prompted], asked: &Removing) -> u64 {
    let model = &session.transformer;
    let at_once = causal::sets_at_once(chunk, asked.chunk_tokens).min(asked.sets.len());
    let lengths: Vec<usize> = (0..at_once).flat_map(|_| chunk.iter().map(|p| p.ids.len())).collect();
    memory::forward_of(model, &lengths, at_once * n_rows(chunk)) + Reference::bytes(model, chunk)
}
