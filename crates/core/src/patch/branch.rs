//! Runs that branch off the base runs of some pairs, each with the number that it is to give: they wait until there are
//! enough of them, and go through the model together.

use super::runs::{Runs, finite};
use crate::attribution::{Resolved, measure};
use crate::batch::{Batch, Entry, KeyValues, Past, Resume, Segment};
use crate::causal::{branch_rows, stored};
use crate::error::{PrismError, Result};
use crate::hook::HookPoint;
use crate::intervene::{Edit, Edits};
use crate::model::Output;
use crate::tap::{Activations, Capture, Tap};
use candle_core::Tensor;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A run that leaves a base run at a position and a place of the model; it ends at the pair's row.
pub(super) struct Branch {
    /// Which pair of the chunk.
    pub pair: usize,
    /// The first position that is computed again.
    pub first: usize,
    pub at: Entry,
    /// What enters there, [positions from the first to the row, d_model].
    pub stream: Tensor,
    pub edits: Vec<Edit>,
}

/// Runs branches.
pub(super) struct Branches<'a> {
    runs: &'a Runs<'a>,
    pasts: BTreeMap<(usize, usize), Arc<KeyValues>>,
    waiting: Vec<(Branch, usize)>,
    rows: usize,
    /// The target of every number, as in the base run until its branch was run.
    pub found: Vec<f64>,
}

impl<'a> Branches<'a> {
    /// For `numbers` of every pair, pair after pair; `numbers(pair)` says how many.
    pub fn new(runs: &'a Runs<'a>, numbers: impl Fn(usize) -> usize) -> Self {
        let of_pair = |(pair, value): (usize, &f64)| std::iter::repeat_n(*value, numbers(pair));
        let found = runs.measured_base.iter().enumerate().flat_map(of_pair).collect();
        Branches { runs, pasts: BTreeMap::new(), waiting: Vec::new(), rows: 0, found }
    }

    /// Puts a branch behind those that wait; where it enters before one of them, or there are enough, those are run first.
    ///
    /// # Errors
    /// Those of the forward pass.
    pub fn push(&mut self, branch: Branch, number: usize) -> Result<()> {
        let rows = branch.stream.dim(0)?;
        let falls = self.waiting.last().is_some_and(|(last, _)| branch.at < last.at);
        if falls || (self.rows > 0 && self.rows + rows > branch_rows(&self.runs.model.device)) {
            self.flush()?;
        }
        self.rows += rows;
        self.waiting.push((branch, number));
        Ok(())
    }

    /// Runs those that wait.
    ///
    /// # Errors
    /// Those of the forward pass.
    pub fn flush(&mut self) -> Result<()> {
        let (branches, numbers): (Vec<Branch>, Vec<usize>) = std::mem::take(&mut self.waiting).into_iter().unzip();
        self.rows = 0;
        if branches.is_empty() {
            return Ok(());
        }
        let pairs: Vec<usize> = branches.iter().map(|branch| branch.pair).collect();
        let targets: Vec<Resolved> = pairs.iter().map(|pair| self.runs.targets[*pair].clone()).collect();
        let (output, _) = self.forward(branches, BTreeSet::new(), |branch| vec![branch.stream.dims()[0] - 1])?;
        let measured = measure(&targets, &output, &self.runs.model.unembed)?;
        for ((number, pair), measured) in numbers.iter().zip(pairs).zip(measured) {
            self.found[*number] = finite(measured.value, self.runs.base.chunk.first + pair)?;
        }
        Ok(())
    }

    /// Runs branches, which enter in rising order, and keeps points at some rows of each: those of `kept`, rising, counted
    /// from the branch's first.
    ///
    /// # Errors
    /// Those of the forward pass.
    pub fn forward(
        &mut self,
        branches: Vec<Branch>,
        points: BTreeSet<HookPoint>,
        kept: impl Fn(&Branch) -> Vec<usize>,
    ) -> Result<(Output, Activations)> {
        let runs = self.runs;
        let (mut segments, mut rows, mut edits, mut start) = (Vec::new(), Vec::new(), Edits::default(), 0);
        let pairs: Vec<usize> = branches.iter().map(|branch| runs.base.chunk.first + branch.pair).collect();
        for (i, branch) in branches.into_iter().enumerate() {
            let n = branch.stream.dim(0)?;
            rows.extend(kept(&branch).into_iter().map(|row| (start + row) as u32));
            branch.edits.iter().for_each(|edit| edits.push(edit, i, |position| start + position - branch.first));
            let ids = runs.base.chunk.prompts[branch.pair].ids[branch.first..branch.first + n].to_vec();
            let past = Some(Past::Stored(self.past(branch.pair, branch.first)?));
            segments.push(Segment { ids, past, resume: Some(Resume { at: branch.at, stream: branch.stream }) });
            start += n;
        }
        let batch = Batch::new(segments, &runs.model.config)?;
        let capture = Capture { points, rows, everywhere: BTreeSet::new() };
        let mut tap = Tap::new(&capture, runs.cancel).editing(&edits);
        let output = runs.model.forward(&batch, &mut tap).map_err(|error| match error {
            PrismError::NotFinite { first, prompt } => PrismError::NotFinite { first, prompt: pairs[prompt] },
            other => other,
        })?;
        Ok((output, tap.finish()))
    }

    /// The base run's keys and values before a position.
    fn past(&mut self, pair: usize, first: usize) -> Result<Arc<KeyValues>> {
        if let Some(past) = self.pasts.get(&(pair, first)) {
            return Ok(Arc::clone(past));
        }
        let base = &self.runs.base;
        let past = Arc::new(stored(self.runs.model, &base.observed, base.chunk, pair, first)?);
        self.pasts.insert((pair, first), Arc::clone(&past));
        Ok(past)
    }
}
