//! The matrix product `y = x W` of one thread for small operands that are near, row-major, whose rows may lie apart: scores
//! and mixtures of attention.
//!
//! Tiles of y stay in registers (8 rows of 48 numbers with AVX-512) while rows of W stream past, and W is not copied.
//! Whatever the number of rows, a number of y is summed in the same order.

use super::simd::{Kernel, Simd};

/// Rows of W that are taken together, while they are in the first cache.
const BLOCK: usize = 32;

/// Operands of `y = x W`: x [rows, depth], W [depth, columns], y [rows, columns], and how far apart
/// their rows lie. Whoever runs it vouches that the pointers are valid for these sizes, and y apart from x and W;
/// y need not be initialised.
#[derive(Clone, Copy)]
pub(crate) struct Matmul {
    pub rows: usize,
    pub depth: usize,
    pub columns: usize,
    pub x: *const f32,
    pub x_row: usize,
    pub w: *const f32,
    pub w_row: usize,
    pub y: *mut f32,
    pub y_row: usize,
}

impl Kernel for Matmul {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self) {
        let (tile_rows, vectors) = S::TILE;
        let width = vectors * S::LANES;
        for k in (0..self.depth).step_by(BLOCK) {
            let depth = BLOCK.min(self.depth - k);
            let is_first = k == 0;
            for column in (0..self.columns).step_by(width) {
                let mut row = 0;
                while row < self.rows {
                    // the rest is cut evenly: a tile of one row costs nearly as much as one of eight
                    let tiles = (self.rows - row).div_ceil(tile_rows);
                    let rows = (self.rows - row).div_ceil(tiles);
                    // SAFETY: offsets stay inside the operands, for which the caller vouches
                    unsafe {
                        let tile = Tile {
                            depth,
                            columns: width.min(self.columns - column),
                            x: self.x.add(row * self.x_row + k),
                            x_row: self.x_row,
                            w: self.w.add(k * self.w_row + column),
                            w_row: self.w_row,
                            y: self.y.add(row * self.y_row + column),
                            y_row: self.y_row,
                            is_first,
                        };
                        tile.run::<S>(rows);
                    }
                    row += rows;
                }
            }
        }
        for row in 0..if self.depth == 0 { self.rows } else { 0 } {
            // SAFETY: rows of y
            unsafe {
                let y = self.y.add(row * self.y_row);
                std::ptr::write_bytes(y, 0, self.columns);
            }
        }
    }
}

/// One tile of y, and one block of the inner axis.
#[derive(Clone, Copy)]
struct Tile {
    depth: usize,
    columns: usize,
    x: *const f32,
    x_row: usize,
    w: *const f32,
    w_row: usize,
    y: *mut f32,
    y_row: usize,
    /// Whether y holds nothing yet.
    is_first: bool,
}

/// # Safety
/// Pointers are valid for the tile's sizes.
impl Tile {
    #[inline(always)]
    unsafe fn run<S: Simd>(self, rows: usize) {
        // SAFETY: the caller's; `rows` is at most the tile's
        unsafe {
            match rows {
                1 => self.of_rows::<S, 1>(),
                2 => self.of_rows::<S, 2>(),
                3 => self.of_rows::<S, 3>(),
                4 => self.of_rows::<S, 4>(),
                _ if S::TILE.0 == 4 => unreachable!("tiles of 4 rows"),
                5 => self.of_rows::<S, 5>(),
                6 => self.of_rows::<S, 6>(),
                7 => self.of_rows::<S, 7>(),
                _ => self.of_rows::<S, 8>(),
            }
        }
    }

    #[inline(always)]
    unsafe fn of_rows<S: Simd, const R: usize>(self) {
        // SAFETY: the caller's; as many vectors as the columns need
        unsafe {
            match self.columns.div_ceil(S::LANES) {
                1 => self.of_size::<S, R, 1>(),
                2 => self.of_size::<S, R, 2>(),
                _ => self.of_size::<S, R, 3>(),
            }
        }
    }

    /// R rows of C vectors, of which the last may be a part.
    #[inline(always)]
    unsafe fn of_size<S: Simd, const R: usize, const C: usize>(self) {
        let last = self.columns - (C - 1) * S::LANES;
        let whole = |c: usize| c < C - 1 || last == S::LANES;
        // SAFETY: the caller's; the last vector is touched only as far as it goes
        unsafe {
            let load = |at, c| if whole(c) { S::load(at) } else { S::load_first(at, last) };
            let mut sums = [[S::zero(); C]; R];
            match last == S::LANES {
                true => self.products::<S, R, C>(&mut sums, |at, _| S::load(at)),
                false => self.products::<S, R, C>(&mut sums, load),
            }
            for (r, sums) in sums.into_iter().enumerate() {
                for (c, sum) in sums.into_iter().enumerate() {
                    let at = self.y.add(r * self.y_row + c * S::LANES);
                    let sum = if self.is_first { sum } else { S::add(load(at, c), sum) };
                    if whole(c) { S::store(at, sum) } else { S::store_first(at, sum, last) }
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn products<S: Simd, const R: usize, const C: usize>(
        self,
        sums: &mut [[S::V; C]; R],
        load: impl Fn(*const f32, usize) -> S::V,
    ) {
        let mut w = self.w;
        for k in 0..self.depth {
            // SAFETY: the caller's
            unsafe {
                let row: [S::V; C] = std::array::from_fn(|c| load(w.add(c * S::LANES), c));
                for (r, sums) in sums.iter_mut().enumerate() {
                    let x = S::splat(*self.x.add(r * self.x_row + k));
                    for (sum, w) in sums.iter_mut().zip(row) {
                        *sum = S::fma(x, w, *sum);
                    }
                }
            }
            w = w.wrapping_add(self.w_row);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::cpu::simd::Isa;
    use crate::ops::testing::{matrix, values};

    /// y [rows, columns] with gaps of 3 between rows, of x and W with gaps of 2 and 5.
    fn check(isa: Isa, [rows, depth, columns]: [usize; 3]) {
        let (x_row, w_row, y_row) = (depth + 2, columns + 5, columns + 3);
        let (x, w) = (matrix(&[rows, x_row], 1), matrix(&[depth.max(1), w_row], 2));
        let mut y: Vec<f32> = vec![0.25; rows * y_row];
        let floats = |t| values(t).into_iter().map(|v| v as f32).collect::<Vec<f32>>();
        let (x, w) = (floats(&x), floats(&w));
        isa.run(Matmul { rows, depth, columns, x: x.as_ptr(), x_row, w: w.as_ptr(), w_row, y: y.as_mut_ptr(), y_row });
        for r in 0..rows {
            for c in 0..y_row {
                let dot = (0..depth).map(|k| f64::from(x[r * x_row + k]) * f64::from(w[k * w_row + c])).sum::<f64>();
                let expected = if c >= columns { 0.25 } else { dot };
                let found = f64::from(y[r * y_row + c]);
                assert!((found - expected).abs() < 1e-5, "{isa:?} {rows} {depth} {columns}: {found} {expected}");
            }
        }
    }

    #[test]
    fn products_of_every_tile_and_rest() {
        for isa in Isa::available() {
            for rows in [1, 2, 3, 4, 5, 6, 7, 8, 9, 17, 23] {
                for columns in [1, 3, 4, 7, 8, 15, 16, 31, 33, 48, 49, 97] {
                    check(isa, [rows, 37, columns]);
                }
            }
            for depth in [0, 1, 31, 32, 33, 96] {
                check(isa, [5, depth, 50]);
            }
        }
    }
}
