//! What an intervention takes from other runs: the value of a prompt, or the mean over many.

use super::Cache;
use crate::config::ModelConfig;
use crate::error::{PrismError, Result};
use crate::hook::HookPoint;
use crate::intervene::{Cells, positions_first, select};
use candle_core::{D, DType, Device, Tensor};
use std::collections::{BTreeMap, BTreeSet};

/// What a mean is taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Axis {
    /// Every position of every prompt: one value.
    All,
    /// Every prompt: one value for each position.
    Position,
}

/// Values of a point [positions, cells · width], and how they divide.
pub(crate) struct Taken {
    pub(crate) values: Tensor,
    pub(crate) cells: Cells,
}

/// Means of some points over all prompts of a reference, summed in f64.
#[derive(Default)]
pub(crate) struct Means {
    sums: BTreeMap<(HookPoint, Axis), Sums>,
    n_prompts: usize,
    n_positions: usize,
}

#[derive(Default)]
struct Sums {
    cells: Option<Cells>,
    /// How many values, and their sum, by position; of all positions together at 0.
    by_position: BTreeMap<usize, (usize, Vec<f64>)>,
}

impl Cache {
    /// What was kept of a point of one prompt.
    ///
    /// # Errors
    /// `NOT_CACHED`; `INVALID_ARGUMENT` where there is no such prompt.
    pub(crate) fn taken(&self, point: HookPoint, prompt: usize) -> Result<Taken> {
        let tensor = self.tensor(point, prompt)?;
        let cells = Cells::of(point, tensor.dims());
        let values = positions_first(point, &tensor)?.contiguous()?.flatten_from(1)?;
        Ok(Taken { values, cells })
    }
}

impl Taken {
    /// Those of one cell, or of all, at these of the kept positions: [positions, numbers].
    pub(crate) fn at(&self, kept: &[usize], index: Option<usize>) -> Result<Tensor> {
        self.cells.select(&select(&self.values, kept)?, index)
    }
}

impl Means {
    /// Adds what a run kept of these points.
    ///
    /// # Errors
    /// `NOT_CACHED`; `INVALID_ARGUMENT` where the axes of a point have other sizes than before.
    pub(crate) fn add(&mut self, run: &Cache, points: &BTreeSet<(HookPoint, Axis)>, argument: &str) -> Result<()> {
        let needed = points.iter().map(|(point, _)| *point).collect();
        run.check_has(&needed, "a mean over a run")?;
        for (i, prompt) in run.prompts.iter().enumerate() {
            self.n_prompts += 1;
            self.n_positions += prompt.positions.len();
            for (point, axis) in points {
                let Taken { values, cells } = run.taken(*point, i)?;
                let sums = self.sums.entry((*point, *axis)).or_default();
                if *sums.cells.get_or_insert(cells) != cells {
                    let expected = "prompts of one length: scores and patterns have a number for every position";
                    return Err(PrismError::argument(
                        argument,
                        format!("prompts of several lengths at '{point}'"),
                        expected,
                    ));
                }
                sums.add(&values.to_dtype(DType::F64)?, *axis, &prompt.positions)?;
            }
        }
        Ok(())
    }

    /// How many prompts and positions went in.
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.n_prompts, self.n_positions)
    }

    /// The mean of a point at these positions of a prompt, or of all, [positions or 1, cells · width].
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` where a prompt of the reference has no value at one of them.
    pub(crate) fn at(
        &self,
        (point, axis): (HookPoint, Axis),
        positions: &[usize],
        argument: &str,
        device: &Device,
    ) -> Result<Taken> {
        let (all, whole) = (&[0usize][..], self.n_positions);
        let (places, expected) = if axis == Axis::All { (all, whole) } else { (positions, self.n_prompts) };
        let sums = self.sums.get(&(point, axis));
        let mut values = Vec::new();
        for place in places {
            match sums.and_then(|sums| sums.by_position.get(place)) {
                Some((n, sum)) if *n == expected => values.extend(sum.iter().map(|s| (s / *n as f64) as f32)),
                found => {
                    let n = found.map_or(0, |(n, _)| *n);
                    let found =
                        format!("a reference of which {n} of {expected} prompts have a value at position {place}");
                    return Err(PrismError::argument(argument, found, "values at every position that is set"));
                }
            }
        }
        let cells = sums.and_then(|sums| sums.cells).unwrap_or(Cells { cells: 1, width: 1 });
        let values = Tensor::from_vec(values, (places.len(), cells.numbers(None)), device)?;
        Ok(Taken { values, cells })
    }
}

impl Sums {
    /// Adds values [positions, numbers].
    fn add(&mut self, values: &Tensor, axis: Axis, positions: &[usize]) -> Result<()> {
        if positions.is_empty() {
            return Ok(());
        }
        match axis {
            Axis::All => {
                let sum = values.t()?.contiguous()?.sum(D::Minus1)?.to_vec1()?;
                self.put(0, positions.len(), &sum);
            }
            Axis::Position => {
                for (position, row) in positions.iter().zip(values.to_vec2()?) {
                    self.put(*position, 1, &row);
                }
            }
        }
        Ok(())
    }

    fn put(&mut self, position: usize, n: usize, values: &[f64]) {
        let (count, sum) = self.by_position.entry(position).or_insert_with(|| (0, vec![0.0; values.len()]));
        *count += n;
        sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
    }
}

/// The cells that a point has in a prompt of `length` tokens.
pub(crate) fn cells_of(config: &ModelConfig, point: HookPoint, length: usize) -> Cells {
    Cells::of(point, &crate::memory::shape(config, point, 1, length))
}
