//! The matrix of a linear layer, in the order in which its kernels read it.

use super::cpu::panels::{WIDTH, turn};
use super::cpu::parallel::split;
use super::cpu::tensor::{Rows, Shared};
use crate::error::{PrismError, Result};
use crate::memory;
use candle_core::{DType, Device, Tensor};
use std::ops::Range;
use std::sync::Arc;

/// W [in, out], or some of its rows and columns: a view costs nothing.
///
/// On the CPU it lies in panels of 16 columns: all of a panel's rows, a cache line each, one behind the other; the last
/// panel is filled up with zeros. Whoever computes some columns reads memory from end to end, at twice the speed of going
/// from row to row, and needs no copy. Elsewhere it is a tensor [in, out].
#[derive(Debug, Clone)]
pub struct Weight {
    layout: Layout,
    rows: Range<usize>,
    columns: Range<usize>,
}

#[derive(Debug, Clone)]
enum Layout {
    /// [in, out]
    Rows(Tensor),
    /// Panels of this many rows.
    Panels(Arc<Lines>, usize),
}

/// Numbers that begin a cache line, in large pages where the system has them.
#[derive(Debug)]
struct Lines {
    buffer: Vec<f32>,
    first: usize,
}

impl Lines {
    /// So many zeros.
    fn new(n: usize) -> Self {
        let buffer = vec![0.0; n + WIDTH - 1]; // not written yet: the system's zeros
        memory::in_large_pages(&buffer);
        let first = buffer.as_ptr().align_offset(size_of::<[f32; WIDTH]>()).min(WIDTH - 1);
        Lines { buffer, first }
    }

    fn numbers(&self) -> &[f32] {
        let end = self.buffer.len() + 1 - WIDTH + self.first;
        &self.buffer[self.first..end]
    }

    fn numbers_mut(&mut self) -> &mut [f32] {
        let end = self.buffer.len() + 1 - WIDTH + self.first;
        &mut self.buffer[self.first..end]
    }
}

/// A view that lies in panels.
pub(super) struct Panels<'a> {
    /// From its first row and column on.
    pub numbers: &'a [f32],
    /// From a panel to the next.
    pub panel: usize,
}

impl Weight {
    /// Columns of a panel.
    pub const PANEL_WIDTH: usize = WIDTH;

    /// A tensor [in, out] as it is.
    ///
    /// # Errors
    /// `INTERNAL` for other shapes.
    pub fn of_rows(tensor: Tensor) -> Result<Self> {
        let (n_in, n_out) = tensor.dims2()?;
        Ok(Weight { layout: Layout::Rows(tensor), rows: 0..n_in, columns: 0..n_out })
    }

    /// Panels that `fill` writes: number (i, o) goes to `panel_offset(n_in, o) + i * PANEL_WIDTH`. All is 0 before.
    ///
    /// # Errors
    /// What `fill` returns.
    pub fn in_panels(n_in: usize, n_out: usize, fill: impl FnOnce(&mut [f32]) -> Result<()>) -> Result<Self> {
        let mut lines = Lines::new(Self::panel_numbers(n_in, n_out));
        fill(lines.numbers_mut())?;
        Ok(Weight { layout: Layout::Panels(Arc::new(lines), n_in), rows: 0..n_in, columns: 0..n_out })
    }

    /// The numbers of a panel layout.
    pub fn panel_numbers(n_in: usize, n_out: usize) -> usize {
        n_out.div_ceil(WIDTH) * WIDTH * n_in
    }

    /// Where column `c` of the first row lies in panels of `n_in` rows.
    pub fn panel_offset(n_in: usize, c: usize) -> usize {
        c / WIDTH * WIDTH * n_in + c % WIDTH
    }

    /// Wᵀ in panels, for W [out, in] of f32 on the CPU.
    ///
    /// # Errors
    /// `INTERNAL` for others.
    pub fn turned(weight: &Tensor) -> Result<Self> {
        let weight = Rows::of(weight)?;
        let numbers = weight.numbers()?;
        Self::by_panel(weight.width, weight.n, &|outputs, to| {
            let from = numbers[outputs.start * weight.stride..].as_ptr();
            // SAFETY: rows of W, and all of the panel
            unsafe { turn(from, weight.stride, outputs.len(), weight.width, to, WIDTH) };
        })
    }

    /// Panels that `fill` writes one by one, given their columns and where they begin; threads share them.
    fn by_panel(n_in: usize, n_out: usize, fill: &(impl Fn(Range<usize>, *mut f32) + Sync)) -> Result<Self> {
        Self::in_panels(n_in, n_out, |numbers| {
            let place = Shared::of(numbers);
            split(n_out.div_ceil(WIDTH), 4, 1, &|panels| {
                for panel in panels {
                    fill(panel * WIDTH..n_out.min((panel + 1) * WIDTH), place.at(panel * n_in * WIDTH));
                }
            });
            Ok(())
        })
    }

    /// Inputs.
    pub fn n_in(&self) -> usize {
        self.rows.len()
    }

    /// Outputs.
    pub fn n_out(&self) -> usize {
        self.columns.len()
    }

    /// Where it lies.
    pub fn device(&self) -> &Device {
        match &self.layout {
            Layout::Rows(tensor) => tensor.device(),
            Layout::Panels(..) => &Device::Cpu,
        }
    }

    /// The type of its numbers.
    pub fn dtype(&self) -> DType {
        match &self.layout {
            Layout::Rows(tensor) => tensor.dtype(),
            Layout::Panels(..) => DType::F32,
        }
    }

    /// A view of some rows.
    ///
    /// # Errors
    /// `INTERNAL` where they are not there.
    pub fn rows(&self, rows: Range<usize>) -> Result<Self> {
        Ok(Weight { rows: within(&self.rows, rows, "rows")?, ..self.clone() })
    }

    /// A view of some columns.
    ///
    /// # Errors
    /// `INTERNAL` where they are not there.
    pub fn columns(&self, columns: Range<usize>) -> Result<Self> {
        Ok(Weight { columns: within(&self.columns, columns, "columns")?, ..self.clone() })
    }

    /// As a tensor [in, out]; a copy where it lies in panels.
    ///
    /// # Errors
    /// `INTERNAL`.
    pub fn dense(&self) -> Result<Tensor> {
        let (numbers, n_rows) = match &self.layout {
            Layout::Panels(lines, n_rows) => (lines.numbers(), n_rows),
            Layout::Rows(tensor) => {
                let rows = tensor.narrow(0, self.rows.start, self.n_in())?;
                return Ok(rows.narrow(1, self.columns.start, self.n_out())?);
            }
        };
        let mut all = Vec::with_capacity(self.n_in() * self.n_out());
        for row in self.rows.clone() {
            let mut c = self.columns.start;
            while c < self.columns.end {
                let end = self.columns.end.min((c / WIDTH + 1) * WIDTH);
                all.extend_from_slice(&numbers[Self::panel_offset(*n_rows, c) + row * WIDTH..][..end - c]);
                c = end;
            }
        }
        Ok(Tensor::from_vec(all, (self.n_in(), self.n_out()), &Device::Cpu)?)
    }

    /// The view's panels, where it lies in panels of which its columns begin one.
    pub(super) fn panels(&self) -> Option<Panels<'_>> {
        let Layout::Panels(lines, n_rows) = &self.layout else { return None };
        if !self.columns.start.is_multiple_of(WIDTH) {
            return None;
        }
        let first = Self::panel_offset(*n_rows, self.columns.start) + self.rows.start * WIDTH;
        let numbers = lines.numbers();
        Some(Panels { numbers: &numbers[first.min(numbers.len())..], panel: n_rows * WIDTH })
    }

    /// The same numbers in panels of which the columns begin one.
    pub(super) fn realigned(&self) -> Result<Self> {
        Self::turned(&self.dense()?.t()?.contiguous()?)
    }

    /// Wᵀ in panels.
    pub(super) fn transposed(&self) -> Result<Self> {
        let Some(w) = self.panels() else { return Self::turned(&self.dense()?) };
        let n_out = self.n_out();
        Self::by_panel(n_out, self.n_in(), &|inputs, to| {
            for c in (0..n_out).step_by(WIDTH) {
                let from = w.numbers[c / WIDTH * w.panel + inputs.start * WIDTH..].as_ptr();
                // SAFETY: rows of a panel of W, and their part of a panel of Wᵀ
                unsafe { turn(from, WIDTH, inputs.len(), WIDTH.min(n_out - c), to.add(c * WIDTH), WIDTH) };
            }
        })
    }
}

/// A part of a range, counted from its start.
fn within(all: &Range<usize>, part: Range<usize>, what: &str) -> Result<Range<usize>> {
    if part.start > part.end || part.end > all.len() {
        let problem = format!("{what} {part:?} of {}", all.len());
        return Err(PrismError::Internal { place: "a view of a matrix".into(), problem });
    }
    Ok(all.start + part.start..all.start + part.end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{matrix, values};

    /// Both layouts of the same numbers.
    fn both(n_in: usize, n_out: usize) -> [Weight; 2] {
        let rows = matrix(&[n_in, n_out], 1);
        let panels = Weight::turned(&rows.t().unwrap().contiguous().unwrap()).unwrap();
        [Weight::of_rows(rows).unwrap(), panels]
    }

    #[test]
    fn a_view_is_the_same_in_both_layouts() {
        for (n_in, n_out) in [(1, 1), (5, 16), (33, 17), (70, 100)] {
            let [rows, panels] = both(n_in, n_out);
            for (r, c) in [(0..n_in, 0..n_out), (n_in / 2..n_in, 0..n_out / 2), (0..n_in, n_out / 3..n_out)] {
                let view = |matrix: &Weight| matrix.rows(r.clone()).unwrap().columns(c.clone()).unwrap();
                let expected = values(&view(&rows).dense().unwrap());
                assert_eq!(values(&view(&panels).dense().unwrap()), expected);
                assert_eq!(values(&view(&panels).realigned().unwrap().dense().unwrap()), expected);
                let transposed = values(&view(&rows).dense().unwrap().t().unwrap());
                for matrix in [&rows, &panels] {
                    assert_eq!(values(&view(matrix).transposed().unwrap().dense().unwrap()), transposed);
                }
            }
            assert_eq!((panels.n_in(), panels.n_out()), (n_in, n_out));
            assert!(panels.rows(0..n_in + 1).is_err() && panels.columns(n_out..n_out + 1).is_err());
        }
    }

    #[test]
    fn panels_lie_where_their_offsets_say() {
        let [rows, panels] = both(7, 37);
        let (expected, found) = (values(&rows.dense().unwrap()), panels.panels().unwrap().numbers);
        assert_eq!(found.len(), Weight::panel_numbers(7, 37));
        let mut zeros = found.len();
        for r in 0..7 {
            for c in 0..37 {
                assert_eq!(
                    f64::from(found[Weight::panel_offset(7, c) + r * Weight::PANEL_WIDTH]),
                    expected[r * 37 + c]
                );
                zeros -= 1;
            }
        }
        assert_eq!(found.iter().filter(|x| **x == 0.0).count(), zeros, "the last panel is filled up");
    }
}
