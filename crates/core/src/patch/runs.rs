//! The two runs of some pairs, and what they keep.

use super::{Pairs, Spots};
use crate::attribution::{Resolved, measure, resolve_rows};
use crate::cancel::Cancel;
use crate::causal::{at_rows, keys_and_values};
use crate::chunk::{Chunk, Observed, Row};
use crate::error::{PrismError, Result};
use crate::hook::{BlockPoint, HookPoint};
use crate::model::{Output, Transformer};
use candle_core::Tensor;
use std::collections::BTreeSet;

/// One run of the pairs of a chunk.
pub(super) struct Side<'a> {
    pub chunk: Chunk<'a>,
    pub observed: Observed,
    /// The kept row of every prompt's first kept position.
    first: Vec<usize>,
}

/// Both runs of the pairs of a chunk, and what was measured in them.
pub(super) struct Runs<'a> {
    pub model: &'a Transformer,
    pub base: Side<'a>,
    pub source: Side<'a>,
    pub spots: &'a [Spots],
    pub targets: Vec<Resolved>,
    pub measured_base: Vec<f64>,
    pub measured_source: Vec<f64>,
    /// Every patched position that reaches its row, pair after pair: kept row of the base run, and of the source run.
    pub patched: Vec<(u32, u32)>,
    pub cancel: &'a Cancel,
}

impl<'a> Side<'a> {
    fn run(
        model: &Transformer,
        chunk: Chunk<'a>,
        points: BTreeSet<HookPoint>,
        everywhere: BTreeSet<HookPoint>,
        cancel: &Cancel,
    ) -> Result<Self> {
        let observed = chunk.run(model, points, everywhere, cancel)?;
        let mut next = 0;
        let first = chunk.prompts.iter().map(|prompt| {
            next += prompt.positions.len();
            next - prompt.positions.len()
        });
        Ok(Side { chunk, observed, first: first.collect() })
    }

    /// The kept row of a position.
    pub fn kept(&self, pair: usize, position: usize) -> usize {
        self.first[pair] + self.chunk.prompts[pair].positions.partition_point(|p| *p < position)
    }

    /// A point of a block at the kept rows.
    pub fn at(&self, l: usize, point: BlockPoint) -> Result<&Tensor> {
        self.observed.activations.kept(HookPoint::Block(l, point))
    }

    /// The final stream of every pair at its row.
    fn output(&self, rows: &[usize]) -> Result<Output> {
        let kept: Vec<u32> = rows.iter().enumerate().map(|(pair, row)| self.kept(pair, *row) as u32).collect();
        at_rows(&self.observed.output, &kept)
    }
}

impl<'a> Runs<'a> {
    /// Runs both prompts of the pairs of a chunk, of whose base run `base` is kept and of whose source run `source`.
    ///
    /// # Errors
    /// Those of the forward pass and of targets.
    pub fn new(
        model: &'a Transformer,
        chunk: Chunk<'a>,
        pairs: &'a Pairs,
        points: [BTreeSet<HookPoint>; 2],
        cancel: &'a Cancel,
    ) -> Result<Self> {
        let exists =
            |points: BTreeSet<HookPoint>| points.into_iter().filter(|p| p.absent(&model.config).is_none()).collect();
        let [of_base, of_source] = points.map(exists);
        let base = Side::run(model, chunk, of_base, keys_and_values(&model.config), cancel)?;
        let source = Chunk { first: chunk.first, prompts: chunk.part(&pairs.source) };
        let source = Side::run(model, source, of_source, BTreeSet::new(), cancel)?;
        let spots = chunk.part(&pairs.spots);
        let (base_rows, source_rows): (Vec<usize>, Vec<usize>) = spots.iter().map(|s| (s.row, s.source_row)).unzip();
        let (of_base, of_source) = (base.output(&base_rows)?, source.output(&source_rows)?);
        let (clean, clean_rows, output) = match pairs.base_is_clean {
            true => (chunk, base_rows, &of_base),
            false => (source.chunk, source_rows, &of_source),
        };
        let row = |(i, position)| Row { prompt: chunk.first + i, position };
        let rows: Vec<Row> = clean_rows.into_iter().enumerate().map(row).collect();
        let targets = resolve_rows(&rows, clean, chunk.part(&pairs.targets), output, model)?;
        let measured = |output: &Output| -> Result<Vec<f64>> {
            let measured = measure(&targets, output, &model.unembed)?;
            measured.iter().enumerate().map(|(pair, m)| finite(m.value, chunk.first + pair)).collect()
        };
        let (measured_base, measured_source) = (measured(&of_base)?, measured(&of_source)?);
        let kept = |(pair, spots): (usize, &Spots)| {
            let of = |(b, s): &(usize, usize)| (base.kept(pair, *b) as u32, source.kept(pair, *s) as u32);
            spots.reaching().iter().map(of).collect::<Vec<_>>()
        };
        let patched = spots.iter().enumerate().flat_map(kept).collect();
        Ok(Runs { model, base, source, spots, targets, measured_base, measured_source, patched, cancel })
    }

    /// A value of the base run at its patched rows.
    pub fn of_base(&self, value: &Tensor) -> Result<Tensor> {
        let rows: Vec<u32> = self.patched.iter().map(|(base, _)| *base).collect();
        Ok(value.contiguous()?.index_select(&Tensor::new(rows, value.device())?, 0)?)
    }

    /// What the source run has there.
    pub fn of_source(&self, value: &Tensor) -> Result<Tensor> {
        let rows: Vec<u32> = self.patched.iter().map(|(_, source)| *source).collect();
        Ok(value.contiguous()?.index_select(&Tensor::new(rows, value.device())?, 0)?)
    }
}

/// A target as it is, if it is a number.
///
/// # Errors
/// `NOT_FINITE` with the pair.
pub(super) fn finite(value: f64, pair: usize) -> Result<f64> {
    let first = || PrismError::NotFinite { first: "the target".into(), prompt: pair };
    Some(value).filter(|value| value.is_finite()).ok_or_else(first)
}
