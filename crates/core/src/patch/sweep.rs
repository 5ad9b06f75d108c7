//! Activation patching: the value of one place of the source run stands in the base run, one place at a time.

use super::branch::{Branch, Branches};
use super::runs::Runs;
use super::{Pairs, Patched};
use crate::batch::Entry;
use crate::cancel::Cancel;
use crate::chunk::Chunk;
use crate::config::ModelConfig;
use crate::error::Result;
use crate::hook::{BlockPoint, HookPoint};
use crate::intervene::{Cells, set_cells};
use crate::model::Transformer;
use crate::ops;
use candle_core::Tensor;
use std::collections::BTreeSet;
use std::ops::Range;

/// What is patched of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The stream that enters its block.
    ResidPre,
    /// What its attention adds to the stream.
    AttnOut,
    /// What its MLP adds to the stream.
    MlpOut,
    /// What its heads mix: pattern times values.
    Z,
}

/// One sweep; every layer is an axis of it.
#[derive(Debug, Clone, Copy)]
pub struct Patching {
    /// What is patched.
    pub at: Place,
    /// Head by head; else the whole width.
    pub by_head: bool,
    /// Position by position; else all positions of a pair together.
    pub by_position: bool,
}

impl Place {
    /// Its hook point in a layer.
    pub fn point(self) -> BlockPoint {
        match self {
            Place::ResidPre => BlockPoint::ResidPre,
            Place::AttnOut => BlockPoint::AttnOut,
            Place::MlpOut => BlockPoint::MlpOut,
            Place::Z => BlockPoint::Z,
        }
    }
}

impl Patching {
    /// How many heads a layer has here; 1 for the whole width.
    fn heads(&self, config: &ModelConfig) -> usize {
        if self.by_head { config.n_heads } else { 1 }
    }

    /// Numbers of a pair of which these many positions are patched: [layer, head, position].
    pub fn numbers(&self, config: &ModelConfig, positions: usize) -> usize {
        config.n_layers * self.heads(config) * if self.by_position { positions } else { 1 }
    }
}

/// A sweep over the pairs of a chunk.
///
/// # Errors
/// Those of the forward pass and of targets.
pub fn sweep(model: &Transformer, chunk: Chunk, pairs: &Pairs, asked: &Patching, cancel: &Cancel) -> Result<Patched> {
    use BlockPoint::*;
    let of = |points: &[BlockPoint]| -> BTreeSet<HookPoint> {
        let layers = 0..model.config.n_layers;
        layers.flat_map(|l| points.iter().map(move |point| HookPoint::Block(l, *point))).collect()
    };
    let kept = [of(&[ResidPre, AttnOut, MlpOut, asked.at.point()]), of(&[asked.at.point()])];
    let runs = Runs::new(model, chunk, pairs, kept, cancel)?;
    let config = &model.config;
    let mut branches = Branches::new(&runs, |pair| asked.numbers(config, runs.spots[pair].positions.len()));
    if !runs.patched.is_empty() {
        for l in 0..config.n_layers {
            for head in 0..asked.heads(config) {
                let entry = entering(&runs, asked, l, head)?;
                branch(&runs, asked, &entry, l * asked.heads(config) + head, &mut branches)?;
            }
        }
    }
    branches.flush()?;
    let values = branches.found;
    Ok(runs.patched(pairs.base_is_clean, values))
}

/// Where runs with a patch of one layer enter, and what enters.
struct Entering {
    at: Entry,
    /// The base run's stream there, [kept, d_model].
    stream: Tensor,
    /// The same with the source run's value, at the patched rows only, [patched, d_model].
    patched: Tensor,
}

fn entering(runs: &Runs, asked: &Patching, l: usize, head: usize) -> Result<Entering> {
    use BlockPoint::*;
    let (model, base) = (runs.model, &runs.base);
    let (block, kernels) = (&model.blocks[l], model.kernels);
    let add = |a: &Tensor, b: &Tensor| ops::add(kernels, a, b);
    let resid_pre = base.at(l, ResidPre)?;
    let (write, mlp_out) = match asked.at {
        Place::ResidPre => {
            let patched = runs.of_source(runs.source.at(l, ResidPre)?)?;
            return Ok(Entering { at: Entry::before(l), stream: resid_pre.clone(), patched });
        }
        Place::MlpOut => (None, Some(runs.of_source(runs.source.at(l, MlpOut)?)?)),
        Place::AttnOut => (Some(runs.of_source(runs.source.at(l, AttnOut)?)?), None),
        Place::Z => {
            let (z, source) = (runs.of_base(base.at(l, Z)?)?, runs.of_source(runs.source.at(l, Z)?)?);
            let (n, n_heads, width) = z.dims3()?;
            let cells = Cells { cells: n_heads, width };
            let index = asked.by_head.then_some(head);
            let places: Vec<usize> = (0..n).collect();
            set_cells(&z, cells, &places, index, &cells.select(&source, index)?)?; // z was selected: nobody else holds it
            (Some(block.attention_write(block.attention.raw(&z, kernels)?, kernels)?.0), None)
        }
    };
    let mid = add(resid_pre, base.at(l, AttnOut)?)?;
    let patched_mid = match &write {
        Some(write) => add(&runs.of_base(resid_pre)?, write)?,
        None => runs.of_base(&mid)?,
    };
    if write.is_some() && !block.parallel {
        return Ok(Entering { at: Entry::behind_attention(l), stream: mid, patched: patched_mid });
    }
    // the MLP of a parallel block does not see what its attention writes
    let clean = base.at(l, MlpOut)?;
    let patched = add(&patched_mid, &mlp_out.map_or_else(|| runs.of_base(clean), Ok)?)?;
    Ok(Entering { at: Entry::before(l + 1), stream: add(&mid, clean)?, patched })
}

/// The branches of one layer and head; `column` counts those.
fn branch(runs: &Runs, asked: &Patching, entry: &Entering, column: usize, branches: &mut Branches) -> Result<()> {
    let (mut number, mut taken) = (0, 0);
    for (pair, spots) in runs.spots.iter().enumerate() {
        let n = spots.reaching().len();
        let width = if asked.by_position { spots.positions.len() } else { 1 };
        let groups: Vec<Range<usize>> = match asked.by_position {
            true => (0..n).map(|k| k..k + 1).collect(),
            false => std::iter::once(0..n).filter(|all| !all.is_empty()).collect(),
        };
        for (k, group) in groups.into_iter().enumerate() {
            let first = spots.positions[group.start].0;
            let (from, length) = (runs.base.kept(pair, first), spots.row + 1 - first);
            let stream = entry.stream.narrow(0, from, length)?.force_contiguous()?;
            let places: Vec<usize> = spots.positions[group.clone()].iter().map(|(base, _)| base - first).collect();
            let new = entry.patched.narrow(0, taken + group.start, group.len())?;
            set_cells(&stream, Cells { cells: 1, width: stream.dim(1)? }, &places, None, &new)?;
            let branch = Branch { pair, first, at: entry.at, stream, edits: Vec::new() };
            branches.push(branch, number + column * width + k)?;
        }
        taken += n;
        number += asked.numbers(&runs.model.config, spots.positions.len());
    }
    Ok(())
}

impl Runs<'_> {
    /// The result, of what the patches gave.
    pub(super) fn patched(&self, base_is_clean: bool, values: Vec<f64>) -> Patched {
        let (base, source) = (self.measured_base.clone(), self.measured_source.clone());
        let (clean, corrupt) = if base_is_clean { (base, source) } else { (source, base) };
        Patched { targets: self.targets.clone(), clean, corrupt, values }
    }
}
