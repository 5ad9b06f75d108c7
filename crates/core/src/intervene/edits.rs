//! The edits of a batch, by hook point, and how a value is changed: on a copy, so that nothing that was kept before
//! moves with it.

use super::{Action, Cells, Edit, positions_first};
use crate::error::{PrismError, Result};
use crate::hook::{BlockPoint, HookPoint};
use candle_core::Tensor;
use std::collections::{BTreeMap, BTreeSet};

/// The edits of a batch.
#[derive(Debug, Default)]
pub struct Edits(BTreeMap<HookPoint, Vec<Placed>>);

/// An edit, the prompt of the batch that it is made in, and the rows that its positions are, rising.
#[derive(Debug)]
struct Placed {
    prompt: usize,
    rows: Vec<usize>,
    edit: Edit,
}

/// What one head reads in place of the stream that all heads read.
#[derive(Debug)]
pub struct Received {
    /// The head, or key/value head.
    pub head: usize,
    /// Rows of the batch, rising.
    pub rows: Vec<usize>,
    /// [rows, d_model]
    pub stream: Tensor,
}

impl Edits {
    /// Puts an edit of one of the batch's prompts behind those that are there; `row` gives the row of a position.
    pub fn push(&mut self, edit: &Edit, prompt: usize, row: impl Fn(usize) -> usize) {
        let rows = edit.positions.iter().map(|position| row(*position)).collect();
        self.0.entry(edit.point).or_default().push(Placed { prompt, rows, edit: edit.clone() });
    }

    /// Whether one is made at a point.
    pub fn has(&self, point: HookPoint) -> bool {
        self.0.contains_key(&point)
    }

    /// The value with the edits of its point made, in their order. `place` tells where along the position axis of the
    /// value a row of the batch lies, if it does; where no row does, and without edits, the value is handed back as it is.
    ///
    /// # Errors
    /// `NOT_FINITE` where what is set overflows, `INTERNAL` where an edit does not have the value's shape.
    pub fn apply(&self, point: HookPoint, value: Tensor, place: impl Fn(usize) -> Option<usize>) -> Result<Tensor> {
        let Some(edits) = self.0.get(&point) else { return Ok(value) };
        let here = |placed: &Placed| placed.rows.iter().any(|row| place(*row).is_some());
        if !edits.iter().any(here) {
            return Ok(value);
        }
        let cells = Cells::of(point, value.dims());
        let changed = positions_first(point, &value)?.force_contiguous()?;
        let shape = changed.shape().clone();
        let changed = changed.reshape(((), cells.width))?;
        let masked = point.is_masked();
        for placed in edits {
            placed.make(&changed, cells, masked, &place)?;
        }
        let changed = changed.reshape(shape)?;
        Ok(if point.is_square() { changed.transpose(0, 1)?.contiguous()? } else { changed })
    }

    /// What single heads read at a receiver, from the stream [rows under way, d_model] that all read.
    ///
    /// # Errors
    /// As [`Edits::apply`].
    pub fn received(&self, point: HookPoint, n_heads: usize, stream: &Tensor) -> Result<Vec<Received>> {
        let Some(edits) = self.0.get(&point) else { return Ok(Vec::new()) };
        let (under_way, d_model) = stream.dims2()?;
        let rows: BTreeSet<usize> = edits.iter().flat_map(|placed| &placed.rows).copied().collect();
        let rows: Vec<usize> = rows.into_iter().filter(|row| *row < under_way).collect();
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let all = select(stream, &rows)?.unsqueeze(1)?.broadcast_as((rows.len(), n_heads, d_model))?;
        let all = self.apply(point, all, |row| rows.binary_search(&row).ok())?;
        let of_head = |head: usize| {
            let touched = |row: &usize| {
                let touches = |placed: &Placed| {
                    placed.edit.index.is_none_or(|index| index == head) && placed.rows.binary_search(row).is_ok()
                };
                edits.iter().any(touches)
            };
            let places: Vec<usize> = (0..rows.len()).filter(|i| touched(&rows[*i])).collect();
            (head, places)
        };
        let mut received = Vec::new();
        for (head, places) in (0..n_heads).map(of_head).filter(|(_, places)| !places.is_empty()) {
            let stream = select(&all.narrow(1, head, 1)?.squeeze(1)?.contiguous()?, &places)?;
            received.push(Received { head, rows: places.iter().map(|i| rows[*i]).collect(), stream });
        }
        Ok(received)
    }
}

impl HookPoint {
    /// Whether what the mask hides stays hidden: scores, which are −∞ there.
    fn is_masked(self) -> bool {
        matches!(self, HookPoint::Block(_, BlockPoint::AttnScores))
    }
}

impl Placed {
    /// Makes the edit in `x` [positions · cells, width], which nobody else holds.
    fn make(&self, x: &Tensor, cells: Cells, masked: bool, place: &impl Fn(usize) -> Option<usize>) -> Result<()> {
        let (places, kept): (Vec<usize>, Vec<usize>) =
            self.rows.iter().enumerate().filter_map(|(k, row)| Some((place(*row)?, k))).unzip();
        if places.is_empty() {
            return Ok(());
        }
        let Edit { index, action, .. } = &self.edit;
        let old = cells.select(&select(&x.reshape(((), cells.cells * cells.width))?, &places)?, *index)?;
        // one row for all positions, or one for each
        let given = |values: &Tensor| -> Result<Tensor> {
            let values = &values.to_device(old.device())?; // they lie on the host
            if values.dim(0)? == 1 {
                Ok(values.broadcast_as(old.shape())?.contiguous()?)
            } else {
                select(values, &kept)
            }
        };
        let new = match action {
            Action::Zero => old.zeros_like()?,
            Action::Scale(factor) => (&old * *factor)?,
            Action::Add(values) => (&old + given(values)?)?,
            Action::Replace(values) => given(values)?,
        };
        if masked {
            return set_cells(x, cells, &places, *index, &old.eq(f32::NEG_INFINITY)?.where_cond(&old, &new)?);
        }
        // a norm squares what it reads: of what overflows there it would make zeros, without a word. A GPU is waited for
        // here, so not for zeros
        let can_overflow = !matches!(action, Action::Zero);
        if can_overflow && !new.sqr()?.sum_all()?.to_scalar::<f32>()?.is_finite() {
            return Err(PrismError::NotFinite { first: self.edit.point.to_string(), prompt: self.prompt });
        }
        set_cells(x, cells, &places, *index, &new)
    }
}

/// Sets the cell `index` of some positions, or all their cells, in `x` [positions · cells, width], which nobody else holds.
/// `new` is [positions, numbers].
///
/// # Errors
/// `INTERNAL` where shapes do not fit.
pub(crate) fn set_cells(x: &Tensor, cells: Cells, places: &[usize], index: Option<usize>, new: &Tensor) -> Result<()> {
    let n = places.len();
    let (one, first) = index.map_or((cells.cells, 0), |index| (1, index));
    let new = new.contiguous()?.reshape((n, one, cells.width))?;
    let x = x.reshape(((), cells.cells, cells.width))?;
    for (run, places) in runs(places) {
        x.narrow(0, places.start, places.len())?.slice_set(&new.narrow(0, run, places.len())?, 1, first)?;
    }
    Ok(())
}

/// Runs of consecutive numbers in a rising list, each with the index of its first.
fn runs(list: &[usize]) -> Vec<(usize, std::ops::Range<usize>)> {
    let mut runs = Vec::<(usize, std::ops::Range<usize>)>::new();
    for (i, at) in list.iter().enumerate() {
        match runs.last_mut() {
            Some((_, run)) if run.end == *at => run.end += 1,
            _ => runs.push((i, *at..at + 1)),
        }
    }
    runs
}

/// Rows of a contiguous tensor: a view where they are consecutive.
pub(crate) fn select(x: &Tensor, rows: &[usize]) -> Result<Tensor> {
    if let [(0, run)] = &runs(rows)[..] {
        return Ok(x.narrow(0, run.start, run.len())?);
    }
    let rows: Vec<u32> = rows.iter().map(|row| *row as u32).collect();
    Ok(x.contiguous()?.index_select(&Tensor::new(rows, x.device())?, 0)?)
}
