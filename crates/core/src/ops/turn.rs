//! A matrix the other way.

use super::Kernels;
use super::cpu::panels;
use super::cpu::simd::{Isa, Kernel, Simd};
use std::ops::Range;

/// Columns that are turned together: a cache line of each row.
const BLOCK: usize = 16;

/// Turns some columns of x [rows, width], row-major: number (r, c) goes to `to[(c − first) rows + r]`.
///
/// # Panics
/// Where x has no such columns, or `to` not `rows` numbers for each.
pub(crate) fn turn(kernels: Kernels, x: &[f32], width: usize, columns: Range<usize>, to: &mut [f32]) {
    let rows = x.len() / width.max(1);
    assert!(columns.end <= width && to.len() == rows * columns.len(), "{columns:?} of {width} for {}", to.len());
    let isa = if let Kernels::Fused(isa) = kernels { isa } else { Isa::portable() };
    isa.run(Turn { x, width, rows, columns, to });
}

struct Turn<'a> {
    x: &'a [f32],
    width: usize,
    rows: usize,
    columns: Range<usize>,
    to: &'a mut [f32],
}

impl Kernel for Turn<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self) {
        for first in self.columns.clone().step_by(BLOCK) {
            let depth = BLOCK.min(self.columns.end - first);
            let (from, to) =
                (self.x[first..].as_ptr(), self.to[(first - self.columns.start) * self.rows..].as_mut_ptr());
            // SAFETY: as many columns of every row, and the places of as many rows
            unsafe { panels::turn(from, self.width, self.rows, depth, to, self.rows) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_finds_its_place() {
        for (rows, width, columns) in [(1, 1, 0..1), (5, 7, 0..7), (170, 100, 64..100), (4, 33, 1..30), (3, 5, 2..2)] {
            let x: Vec<f32> = (0..rows * width).map(|i| i as f32).collect();
            let expected: Vec<f32> =
                columns.clone().flat_map(|c| (0..rows).map(move |r| (r * width + c) as f32)).collect();
            for kernels in Kernels::all() {
                let mut to = vec![-1.0; expected.len()];
                turn(kernels, &x, width, columns.clone(), &mut to);
                assert_eq!(to, expected, "{kernels:?}: {columns:?} of {rows} by {width}");
            }
        }
    }
}
