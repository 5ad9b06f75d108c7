//! One `tap` at every hook point: it keeps what was asked for, and hands on what the rest of the model is to see.

use crate::cancel::Cancel;
use crate::device::moved;
use crate::error::{PrismError, Result};
use crate::hook::HookPoint;
use crate::intervene::{Edits, Received};
use candle_core::{Device, Tensor};
use std::collections::{BTreeMap, BTreeSet};

/// What to keep of a forward pass.
#[derive(Debug, Clone, Default)]
pub struct Capture {
    /// The points; nothing is formed that is not named here.
    pub points: BTreeSet<HookPoint>,
    /// The rows of the batch to keep, rising.
    pub rows: Vec<u32>,
    /// The points that are kept at every row, whatever `rows` says: values at source positions.
    pub everywhere: BTreeSet<HookPoint>,
}

/// What was kept.
#[derive(Default)]
pub struct Activations {
    rows: BTreeMap<HookPoint, Tensor>,
    squares: BTreeMap<HookPoint, Vec<Tensor>>,
}

impl Activations {
    /// The kept rows of a point whose first axis is the position: [rows, …]; all rows of the batch where the point is
    /// kept everywhere.
    pub fn rows(&self, point: HookPoint) -> Option<&Tensor> {
        self.rows.get(&point)
    }

    /// The kept rows of a point that must be there.
    ///
    /// # Errors
    /// `INTERNAL` where the point was not kept.
    pub fn kept(&self, point: HookPoint) -> Result<&Tensor> {
        let missing =
            || PrismError::Internal { place: "a forward pass".into(), problem: format!("{point} was not kept") };
        self.rows(point).ok_or_else(missing)
    }

    /// Values that were kept elsewhere, of one segment for squares.
    pub fn of(rows: BTreeMap<HookPoint, Tensor>, squares: BTreeMap<HookPoint, Vec<Tensor>>) -> Self {
        Activations { rows, squares }
    }

    /// Cuts a point that was kept everywhere to some rows.
    ///
    /// # Errors
    /// `INTERNAL` where it was not kept or has fewer rows.
    pub fn keep_rows(&mut self, point: HookPoint, rows: &[u32]) -> Result<()> {
        let all = self.kept(point)?;
        let some = picked(all, rows, 0)?;
        self.rows.insert(point, some);
        Ok(())
    }

    /// Drops a point.
    pub fn forget(&mut self, point: HookPoint) {
        self.rows.remove(&point);
    }

    /// Copies every value, so that the larger things that some are views of can be freed.
    ///
    /// # Errors
    /// `INTERNAL`.
    pub fn let_go(&mut self) -> Result<()> {
        for tensor in self.rows.values_mut().filter(|tensor| tensor.elem_count() > 0) {
            *tensor = tensor.force_contiguous()?;
        }
        Ok(())
    }

    /// The same on another device.
    ///
    /// # Errors
    /// `INTERNAL`.
    pub fn to_device(&self, device: &Device) -> Result<Self> {
        let rows = self.rows.iter().map(|(point, t)| Ok((*point, moved(t, device)?)));
        let squares = self.squares.iter().map(|(point, list)| {
            let list = list.iter().map(|t| moved(t, device)).collect::<Result<_>>()?;
            Ok((*point, list))
        });
        Ok(Activations { rows: rows.collect::<Result<_>>()?, squares: squares.collect::<Result<_>>()? })
    }

    /// Scores or pattern of one segment, [head, query_pos, key_pos], at the kept query positions.
    pub fn square(&self, point: HookPoint, segment: usize) -> Option<&Tensor> {
        self.squares.get(&point)?.get(segment)
    }
}

/// Some indices of an axis; none are a view, for a GPU starts no kernel for nothing.
fn picked(t: &Tensor, indices: &[u32], axis: usize) -> Result<Tensor> {
    match indices {
        [] => Ok(t.narrow(axis, 0, 0)?),
        _ => Ok(t.index_select(&Tensor::new(indices, t.device())?, axis)?),
    }
}

/// The observer of one forward pass.
pub struct Tap<'a> {
    capture: &'a Capture,
    /// Stops the pass at the next layer.
    pub cancel: &'a Cancel,
    edits: Option<&'a Edits>,
    kept: Activations,
    narrowed: bool,
}

impl<'a> Tap<'a> {
    /// Keeps what `capture` names.
    pub fn new(capture: &'a Capture, cancel: &'a Cancel) -> Self {
        Tap { capture, cancel, edits: None, kept: Activations::default(), narrowed: false }
    }

    /// Makes edits besides.
    pub fn editing(mut self, edits: &'a Edits) -> Self {
        self.edits = Some(edits);
        self
    }

    /// Whether a point has to be formed: it is kept, or changed.
    pub fn wants(&self, point: HookPoint) -> bool {
        self.keeps(point) || self.changes(point)
    }

    /// Whether values are changed at a point.
    pub fn changes(&self, point: HookPoint) -> bool {
        self.edits.is_some_and(|edits| edits.has(point))
    }

    fn keeps(&self, point: HookPoint) -> bool {
        self.capture.points.contains(&point) || self.capture.everywhere.contains(&point)
    }

    /// The row of the batch that is kept as number `kept`.
    pub fn row(&self, kept: usize) -> usize {
        self.capture.rows[kept] as usize
    }

    /// The kept rows of the batch, rising.
    pub fn kept_rows(&self) -> &[u32] {
        &self.capture.rows
    }

    /// Whether one of these points is kept at every row.
    pub fn keeps_everywhere(&self, mut points: impl Iterator<Item = HookPoint>) -> bool {
        points.any(|point| self.capture.everywhere.contains(&point))
    }

    /// From here on values hold the kept rows only.
    pub fn narrow(&mut self) {
        self.narrowed = true;
    }

    /// Whether values hold the kept rows only.
    pub fn is_narrowed(&self) -> bool {
        self.narrowed
    }

    /// Passes a value [rows under way, …] through its point.
    ///
    /// # Errors
    /// `INTERNAL` where the value is not of that shape.
    pub fn rows(&mut self, point: HookPoint, value: Tensor) -> Result<Tensor> {
        let under_way = value.dim(0)?;
        let value = self.edited(point, value, |row| self.place(row, under_way))?;
        if self.keeps(point) {
            let everywhere = self.capture.everywhere.contains(&point);
            let kept = if everywhere { value.contiguous()? } else { self.select(&value)? };
            self.kept.rows.insert(point, kept);
        }
        Ok(value)
    }

    /// Passes a value that holds the kept rows only.
    ///
    /// # Errors
    /// `INTERNAL` where the value is not of that shape.
    pub fn selected(&mut self, point: HookPoint, value: Tensor) -> Result<Tensor> {
        let value = self.edited(point, value, |row| self.kept_as(row))?;
        if self.keeps(point) {
            self.kept.rows.insert(point, value.clone());
        }
        Ok(value)
    }

    /// Passes scores or a pattern of one segment, [head, query_pos, key_pos], through its point; `first_row` is the
    /// segment's first row. Segments come in order.
    ///
    /// # Errors
    /// `INTERNAL` where the value is not of that shape.
    pub fn square(&mut self, point: HookPoint, first_row: usize, value: Tensor) -> Result<Tensor> {
        let n_query = value.dim(1)?;
        let value = self.edited(point, value, |row| row.checked_sub(first_row).filter(|query| *query < n_query))?;
        if self.keeps(point) {
            let rows = first_row as u32..(first_row + n_query) as u32;
            let wanted: Vec<u32> =
                self.capture.rows.iter().filter(|r| rows.contains(r)).map(|r| r - rows.start).collect();
            self.kept.squares.entry(point).or_default().push(picked(&value, &wanted, 1)?);
        }
        Ok(value)
    }

    /// What single heads read at a receiver in place of the stream [rows under way, d_model] that all read; nothing
    /// where no edit is made there.
    ///
    /// # Errors
    /// `INTERNAL` where the stream is not of that shape.
    pub fn received(&self, point: HookPoint, n_heads: usize, stream: &Tensor) -> Result<Vec<Received>> {
        self.edits.map_or_else(|| Ok(Vec::new()), |edits| edits.received(point, n_heads, stream))
    }

    /// Where a row of the batch lies in a value of `n_rows` rows: those under way, or by now the kept ones only.
    pub fn place(&self, row: usize, n_rows: usize) -> Option<usize> {
        let place = if self.narrowed { self.kept_as(row) } else { Some(row) };
        place.filter(|place| *place < n_rows)
    }

    fn kept_as(&self, row: usize) -> Option<usize> {
        self.capture.rows.binary_search(&(row as u32)).ok()
    }

    fn edited(&self, point: HookPoint, value: Tensor, place: impl Fn(usize) -> Option<usize>) -> Result<Tensor> {
        match self.edits {
            Some(edits) => edits.apply(point, value, place),
            None => Ok(value),
        }
    }

    /// The kept rows of a value that holds the rows under way, or by now the kept ones only.
    ///
    /// # Errors
    /// `INTERNAL` where the value is not of that shape.
    pub fn select(&self, value: &Tensor) -> Result<Tensor> {
        if self.narrowed { Ok(value.clone()) } else { self.of_all(value) }
    }

    /// The kept rows of a value [rows under way, …].
    ///
    /// # Errors
    /// `INTERNAL` where the value is not of that shape.
    pub fn of_all(&self, value: &Tensor) -> Result<Tensor> {
        self.kept_of(value, 0)
    }

    /// The kept rows of a value that holds some consecutive rows of the batch, from row `first` on.
    ///
    /// # Errors
    /// `INTERNAL` where the value is not of that shape.
    pub fn kept_of(&self, value: &Tensor, first: usize) -> Result<Tensor> {
        let rows = first as u32..(first + value.dim(0)?) as u32;
        let kept = &self.capture.rows;
        let kept = &kept[kept.partition_point(|r| *r < rows.start)..kept.partition_point(|r| *r < rows.end)];
        if kept.len() == rows.len() {
            return Ok(value.clone()); // rows rise, so these are all of them
        }
        let kept: Vec<u32> = kept.iter().map(|r| r - rows.start).collect();
        // queries, keys and values are views of one tensor, and candle selects from contiguous ones only
        picked(&value.contiguous()?, &kept, 0)
    }

    /// What was kept.
    pub fn finish(self) -> Activations {
        self.kept
    }
}
