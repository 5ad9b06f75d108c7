//! What takes the place of a component: zero, the mean over reference prompts, or another prompt's value. A head's value is
//! its z, an MLP's what it computes before a norm behind it, an embedding's what is added.

use crate::cancel::Cancel;
use crate::chunk::{Chunk, Prompted, Row};
use crate::error::{PrismError, Result};
use crate::hook::{BlockPoint, HookPoint};
use crate::model::Transformer;
use crate::tap::Activations;
use candle_core::{DType, Tensor};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// What takes the place of components.
pub enum Replacement {
    /// Zeros.
    Zero,
    /// Values of other runs.
    Reference(Reference),
}

/// Values of other runs, a row each.
pub struct Reference {
    /// [entries, …] of every point
    values: BTreeMap<HookPoint, Tensor>,
    index: Index,
}

/// Which entry takes a row's place.
enum Index {
    /// The only one, whatever the row.
    One,
    /// That of its position.
    Position,
    /// Its own.
    Row(HashMap<(usize, usize), u32>),
}

/// The values at some rows; an MLP's raw output under the name of what it writes.
pub(super) type Values = Activations;

impl Replacement {
    /// Bytes that it holds.
    pub fn bytes(&self) -> u64 {
        let Replacement::Reference(reference) = self else { return 0 };
        reference.values.values().map(|value| 4 * value.elem_count() as u64).sum()
    }

    /// Bytes of the values that take the place of those of a chunk.
    pub fn bytes_at(&self, model: &Transformer, prompts: &[Prompted]) -> u64 {
        if matches!(self, Replacement::Zero) { 0 } else { Reference::bytes(model, prompts) / 2 }
    }

    /// The values that take the place of those of some rows; `None` for zeros.
    pub(super) fn at(&self, rows: &[Row], chunk: Chunk) -> Result<Option<Values>> {
        let Replacement::Reference(reference) = self else { return Ok(None) };
        let missing = |row: &Row| PrismError::Internal {
            place: "ablation".into(),
            problem: format!("no reference for position {} of prompt {} of {}", row.position, row.prompt, chunk.first),
        };
        let entry = |row: &Row| match &reference.index {
            Index::One => Ok(0),
            Index::Position => Ok(row.position as u32),
            Index::Row(entries) => entries.get(&(row.prompt, row.position)).copied().ok_or_else(|| missing(row)),
        };
        let entries = rows.iter().map(entry).collect::<Result<Vec<u32>>>()?;
        let at = |(point, all): (&HookPoint, &Tensor)| {
            Ok((*point, all.index_select(&Tensor::new(entries.clone(), all.device())?, 0)?))
        };
        let values = reference.values.iter().map(at).collect::<Result<_>>()?;
        Ok(Some(Activations::of(values, BTreeMap::new())))
    }
}

/// The points that are read.
fn points(model: &Transformer) -> BTreeSet<HookPoint> {
    use BlockPoint::*;
    let of_block = |l: usize| {
        let mlp = match model.blocks[l].ln2_post {
            None => vec![MlpOut],
            Some(_) => vec![Ln2PostNormalized, Ln2PostScale],
        };
        std::iter::once(Z).chain(mlp).map(move |point| HookPoint::Block(l, point))
    };
    let all = [HookPoint::Embed, HookPoint::PosEmbed].into_iter().chain((0..model.config.n_layers).flat_map(of_block));
    all.filter(|point| point.absent(&model.config).is_none()).collect()
}

/// The values of a run at its kept rows.
fn values(model: &Transformer, mut activations: Activations) -> Result<BTreeMap<HookPoint, Tensor>> {
    let mut values = BTreeMap::new();
    for block in &model.blocks {
        let at = |point| HookPoint::Block(block.layer, point);
        let raw = match block.ln2_post {
            None => (activations.kept(at(BlockPoint::MlpOut))? / block.multiplier)?,
            // a layer norm has taken the mean off, which it would take off again
            Some(_) => {
                let normalized = activations.kept(at(BlockPoint::Ln2PostNormalized))?;
                normalized.broadcast_mul(activations.kept(at(BlockPoint::Ln2PostScale))?)?
            }
        };
        values.insert(at(BlockPoint::MlpOut), raw);
        values.insert(at(BlockPoint::Z), activations.kept(at(BlockPoint::Z))?.contiguous()?);
    }
    for point in [HookPoint::Embed, HookPoint::PosEmbed] {
        if let Some(value) = activations.rows(point) {
            values.insert(point, value.clone());
        }
    }
    activations.let_go()?;
    Ok(values)
}

/// The values of a chunk of reference prompts at their positions, a row each.
///
/// # Errors
/// Those of the forward pass.
pub fn of_prompts(model: &Transformer, chunk: Chunk, cancel: &Cancel) -> Result<Reference> {
    let observed = chunk.run(model, points(model), BTreeSet::new(), cancel)?;
    let rows = observed.rows.iter().enumerate().map(|(i, row)| ((row.prompt, row.position), i as u32));
    Ok(Reference { index: Index::Row(rows.collect()), values: values(model, observed.activations)? })
}

/// Sums over a chunk of reference prompts, in f64: of all positions, or of each, which every prompt has as many of.
///
/// # Errors
/// Those of the forward pass.
pub fn mean(model: &Transformer, chunk: Chunk, by_position: bool, cancel: &Cancel) -> Result<Reference> {
    let observed = chunk.run(model, points(model), BTreeSet::new(), cancel)?;
    let n_prompts = chunk.prompts.len();
    let mut values = values(model, observed.activations)?;
    for value in values.values_mut() {
        let rows = value.dim(0)?;
        let groups = if by_position { n_prompts } else { rows };
        let mut shape = value.dims().to_vec();
        shape[0] = rows / groups;
        shape.insert(0, groups);
        *value = value.to_dtype(DType::F64)?.reshape(shape)?.sum(0)?;
    }
    Ok(Reference { values, index: if by_position { Index::Position } else { Index::One } })
}

impl Reference {
    /// Puts the rows of another chunk behind these, or adds its sums.
    ///
    /// # Errors
    /// `INTERNAL` where the two are not of one kind.
    pub fn append(&mut self, other: Reference) -> Result<()> {
        let rows = self.values.values().next().map_or(Ok(0), |value| value.dim(0))? as u32;
        for (point, value) in &mut self.values {
            let more = other.values.get(point).unwrap_or(value);
            *value = match self.index {
                Index::Row(_) => Tensor::cat(&[&*value, more], 0)?,
                _ => (&*value + more)?,
            };
        }
        if let (Index::Row(entries), Index::Row(more)) = (&mut self.index, other.index) {
            entries.extend(more.into_iter().map(|(row, entry)| (row, rows + entry)));
        }
        Ok(())
    }

    /// The mean, of sums over `n`.
    ///
    /// # Errors
    /// `INTERNAL`.
    pub fn over(mut self, n: usize) -> Result<Reference> {
        for value in self.values.values_mut() {
            *value = (&*value / n as f64)?.to_dtype(DType::F32)?;
        }
        Ok(self)
    }

    /// Bytes of the values at some rows of every point.
    pub fn bytes(model: &Transformer, prompts: &[Prompted]) -> u64 {
        let config = &model.config;
        let rows: usize = prompts.iter().map(|p| p.positions.len()).sum();
        8 * (rows * (config.n_layers * (config.n_heads * config.d_head + config.d_model) + 2 * config.d_model)) as u64
    }
}
