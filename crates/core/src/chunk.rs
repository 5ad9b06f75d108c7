//! Some consecutive prompts of a call, run together.

use crate::batch::Batch;
use crate::cancel::Cancel;
use crate::error::{PrismError, Result};
use crate::hook::HookPoint;
use crate::intervene::{Edit, Edits};
use crate::model::{Output, Transformer};
use crate::prefix;
use crate::tap::{Activations, Capture, Tap};
use std::collections::BTreeSet;
use std::ops::Range;

/// A prompt of a call and the positions that are wanted of it.
#[derive(Debug, Clone)]
pub struct Prompted {
    /// Token ids.
    pub ids: Vec<u32>,
    /// Wanted positions, rising.
    pub positions: Vec<usize>,
    /// What is changed in its run, in order.
    pub edits: Vec<Edit>,
}

impl Prompted {
    /// A prompt that is run as it is.
    pub fn new(ids: impl Into<Vec<u32>>, positions: Vec<usize>) -> Self {
        Prompted { ids: ids.into(), positions, edits: Vec::new() }
    }

    /// The first position that an edit changes: those before are as in any run.
    pub(crate) fn first_edited(&self) -> Option<usize> {
        self.edits.iter().filter_map(|edit| edit.positions.first()).min().copied()
    }
}

/// Wanted rows of some prompts.
pub fn n_rows(prompts: &[Prompted]) -> usize {
    prompts.iter().map(|p| p.positions.len()).sum()
}

/// One row of a result: a prompt and a position in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// Index of the prompt in the call.
    pub prompt: usize,
    /// Position in the prompt, BOS counted.
    pub position: usize,
}

/// Consecutive prompts of a call.
#[derive(Clone, Copy)]
pub struct Chunk<'a> {
    /// Index in the call of the first.
    pub first: usize,
    /// The prompts.
    pub prompts: &'a [Prompted],
}

/// What a forward pass over a chunk left behind.
pub struct Observed {
    /// What each kept row is.
    pub rows: Vec<Row>,
    /// Where the rows of each prompt of the chunk lie among all rows that were run; where nothing is kept everywhere, without
    /// those of a prefix that it borrowed.
    pub spans: Vec<Range<usize>>,
    /// What was kept.
    pub activations: Activations,
    /// The final stream at the kept rows.
    pub output: Output,
    /// What was changed.
    pub edits: Edits,
}

impl Chunk<'_> {
    /// Its wanted rows, prompt by prompt, positions rising.
    pub fn rows(&self) -> Vec<Row> {
        let of = |(i, p): (usize, &Prompted)| {
            let prompt = self.first + i;
            p.positions.iter().map(move |position| Row { prompt, position: *position }).collect::<Vec<_>>()
        };
        self.prompts.iter().enumerate().flat_map(of).collect()
    }

    /// Of a list with one entry for every prompt of the call, those of this chunk.
    pub fn part<'b, T>(&self, of_call: &'b [T]) -> &'b [T] {
        &of_call[self.first..self.first + self.prompts.len()]
    }

    /// The prompt of a row.
    pub fn prompt(&self, row: Row) -> &Prompted {
        &self.prompts[row.prompt - self.first]
    }

    /// Runs the prompts once and keeps `points` at the wanted rows and `everywhere` at all; `None` where no row is wanted.
    ///
    /// # Errors
    /// Those of [`Chunk::run`].
    pub fn forward(
        &self,
        model: &Transformer,
        points: BTreeSet<HookPoint>,
        everywhere: BTreeSet<HookPoint>,
        cancel: &Cancel,
    ) -> Result<Option<Observed>> {
        if n_rows(self.prompts) == 0 {
            return Ok(None);
        }
        self.run(model, points, everywhere, cancel).map(Some)
    }

    /// The same, also where no row is wanted: what is kept everywhere may be read at other rows.
    ///
    /// # Errors
    /// `ABORTED`, `NOT_FINITE` with the prompt's index in the call, `INTERNAL`.
    pub fn run(
        &self,
        model: &Transformer,
        points: BTreeSet<HookPoint>,
        everywhere: BTreeSet<HookPoint>,
        cancel: &Cancel,
    ) -> Result<Observed> {
        // what is kept everywhere is wanted of every position, so nothing is borrowed; nor on a GPU, which would copy the
        // keys of everyone that borrows
        let batch = match everywhere.is_empty() && model.device.is_cpu() {
            true => Batch::new(prefix::segments(self.prompts, &model.config), &model.config)?,
            false => Batch::of_prompts(self.prompts.iter().map(|p| &p.ids[..]), &model.config)?,
        };
        let spans: Vec<Range<usize>> = (0..self.prompts.len()).map(|i| batch.rows(i)).collect();
        let row = |i: usize, position: usize| spans[i].start + position - batch.start(i);
        let of_prompt = |(i, p): (usize, &Prompted)| p.positions.iter().map(|p| row(i, *p)).collect::<Vec<_>>();
        let wanted = self.prompts.iter().enumerate().flat_map(of_prompt);
        let capture = Capture { points, rows: wanted.map(|row| row as u32).collect(), everywhere };
        let mut edits = Edits::default();
        for (i, prompt) in self.prompts.iter().enumerate() {
            prompt.edits.iter().for_each(|edit| edits.push(edit, i, |position| row(i, position)));
        }
        let mut tap = Tap::new(&capture, cancel).editing(&edits);
        let output = model.forward(&batch, &mut tap).map_err(|e| self.named(e))?;
        let activations = tap.finish();
        Ok(Observed { rows: self.rows(), spans, activations, output, edits })
    }

    /// The forward pass counts prompts within the chunk, a caller within the call.
    fn named(&self, error: PrismError) -> PrismError {
        match error {
            PrismError::NotFinite { first, prompt } => PrismError::NotFinite { first, prompt: self.first + prompt },
            other => other,
        }
    }
}
