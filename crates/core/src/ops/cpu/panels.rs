//! Matrix products with panels of W (`ops/weight.rs`), of one thread.
//!
//! x is turned into strips first: of up to 24 rows (as many as the registers hold sums of), the numbers that meet the same
//! row of W lie side by side. A tile of y, a strip by a panel, stays in registers while both are read from end to end. For
//! few rows the time is that of reading W once; for many, a block of x stays in the second cache and a block of a panel
//! in the first. Whatever the number of rows, a number of y is summed in the same order.

use super::simd::{Isa, Kernel, Simd};
use std::ops::Range;

/// Columns of a panel: a cache line.
pub(crate) const WIDTH: usize = 16;
/// Of the inner axis at once: then a block of a panel is a third of the first cache.
const BLOCK: usize = 256;
/// Numbers of x that stay in the second cache. With more, they are taken in blocks.
const NEAR: usize = 1 << 16;
/// Columns of y that stay in the second cache beside x.
const COLUMNS: usize = 8 * WIDTH;
/// Rows of W that are fetched ahead: with fewer, memory answers too late where a row of W is soon multiplied.
const AHEAD: usize = 96;

/// Operands of `y = x W`: x [rows, depth], W panels of `depth` rows each, y [rows, columns], and how far apart rows and
/// panels lie. Whoever runs it vouches that the pointers are valid for these sizes, and y apart from x and W.
#[derive(Clone, Copy)]
pub(crate) struct Product {
    pub rows: usize,
    pub depth: usize,
    pub columns: usize,
    pub x: *const f32,
    pub x_row: usize,
    pub w: *const f32,
    pub panel: usize,
    pub y: *mut f32,
    pub y_row: usize,
    /// What the product is added to; y need not be initialised unless it is y itself.
    pub onto: Onto,
}

/// The start of a product's sums.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Onto {
    /// Nothing.
    Zero,
    /// The same row of numbers everywhere, [columns].
    Row(*const f32),
    /// What y holds.
    Y,
}

impl Product {
    /// The numbers that the product is added to, and how far apart their rows lie.
    #[inline(always)]
    pub fn start(&self) -> Option<(*const f32, usize)> {
        match self.onto {
            Onto::Zero => None,
            Onto::Row(row) => Some((row, 0)),
            Onto::Y => Some((self.y, self.y_row)),
        }
    }
}

/// Turns `rows` rows of `depth` numbers: number k of row r goes to `to[k * height + r]`; rows beyond, up to `height`,
/// become 0.
///
/// # Safety
/// Pointers are valid for these sizes, `to` for `depth * height`; at most `height` rows.
#[inline(always)]
pub(crate) unsafe fn turn(from: *const f32, row: usize, rows: usize, depth: usize, to: *mut f32, height: usize) {
    const SIDE: usize = 4;
    let whole = (rows / SIDE * SIDE, depth / SIDE * SIDE);
    // SAFETY: the caller's
    unsafe {
        for k in (0..whole.1).step_by(SIDE) {
            for r in (0..whole.0).step_by(SIDE) {
                let block: [[f32; SIDE]; SIDE] =
                    std::array::from_fn(|i| from.add((r + i) * row + k).cast::<[f32; SIDE]>().read_unaligned());
                (0..SIDE).for_each(|j| {
                    let column: [f32; SIDE] = std::array::from_fn(|i| block[i][j]);
                    to.add((k + j) * height + r).cast::<[f32; SIDE]>().write_unaligned(column);
                });
            }
        }
        for k in 0..depth {
            for r in if k < whole.1 { whole.0 } else { 0 }..height {
                to.add(k * height + r).write(if r < rows { *from.add(r * row + k) } else { 0.0 });
            }
        }
    }
}

/// x in strips: [strips][depth][height], the last one filled up with zeros.
pub(crate) struct Strips {
    numbers: Vec<f32>,
    height: usize,
    n: usize,
    rows: usize,
    depth: usize,
}

/// The heights that there is code for.
const HEIGHTS: [usize; 9] = [1, 2, 4, 6, 8, 12, 16, 20, 24];

impl Strips {
    /// Of x [rows, depth], for these instructions.
    ///
    /// # Safety
    /// The pointer is valid for these sizes.
    pub unsafe fn of(isa: Isa, x: *const f32, x_row: usize, rows: usize, depth: usize) -> Self {
        isa.run(Turn { x, x_row, rows, depth })
    }
}

struct Turn {
    x: *const f32,
    x_row: usize,
    rows: usize,
    depth: usize,
}

impl Kernel for Turn {
    type Out = Strips;
    #[inline(always)]
    fn run<S: Simd>(self) -> Strips {
        let Turn { x, x_row, rows, depth } = self;
        // cut evenly: a strip of one row costs nearly as much as a whole one
        let highest = if rows <= S::STRIP { S::STRIP } else { S::BESIDE.0 };
        let least = rows.div_ceil(rows.div_ceil(highest).max(1)).max(1);
        let height = HEIGHTS.into_iter().find(|height| *height >= least).unwrap_or(highest);
        let n = rows.div_ceil(height);
        let mut numbers: Vec<f32> = Vec::with_capacity(n * height * depth);
        for strip in 0..n {
            let first = strip * height;
            // SAFETY: the caller's; there is room for all strips
            unsafe {
                let (from, to) = (x.add(first * x_row), numbers.as_mut_ptr().add(first * depth));
                let rows = height.min(rows - first);
                match height {
                    1 => turn(from, x_row, rows, depth, to, 1),
                    2 => turn(from, x_row, rows, depth, to, 2),
                    4 => turn(from, x_row, rows, depth, to, 4),
                    6 => turn(from, x_row, rows, depth, to, 6),
                    8 => turn(from, x_row, rows, depth, to, 8),
                    12 => turn(from, x_row, rows, depth, to, 12),
                    16 => turn(from, x_row, rows, depth, to, 16),
                    20 => turn(from, x_row, rows, depth, to, 20),
                    _ => turn(from, x_row, rows, depth, to, 24),
                }
            }
        }
        // SAFETY: strip by strip, all of it
        unsafe { numbers.set_len(n * height * depth) };
        Strips { numbers, height, n, rows, depth }
    }
}

/// `y = x W`, x in strips.
pub(crate) struct Panels<'a> {
    pub product: Product,
    pub x: &'a Strips,
}

impl Kernel for Panels<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self) {
        let (m, x) = (self.product, self.x);
        let strips_near = (NEAR / (BLOCK * x.height)).max(1);
        // one strip: panel by panel, from end to end; more: some of the inner axis for a part of y that stays near
        let at_once = if x.n == 1 { x.depth.max(1) } else { BLOCK };
        for strips in (0..x.n).step_by(strips_near).map(|first| first..x.n.min(first + strips_near)) {
            for first in (0..m.columns).step_by(COLUMNS) {
                for k in (0..x.depth.max(1)).step_by(at_once) {
                    let inner = k..x.depth.min(k + at_once);
                    let (mut column, end) = (first, m.columns.min(first + COLUMNS));
                    while column < end {
                        let beside = if x.n > 1 && column + S::BESIDE.1 * WIDTH <= end { S::BESIDE.1 } else { 1 };
                        for strip in strips.clone() {
                            let ahead = if strip == strips.start { AHEAD * WIDTH } else { 0 };
                            // SAFETY: offsets stay inside the operands, for which the caller vouches
                            unsafe { self.tile(strip, column, inner.clone(), ahead).run::<S>(x.height, beside) };
                        }
                        column += beside * WIDTH;
                    }
                }
            }
        }
        S::fence();
    }
}

impl Panels<'_> {
    /// Of a strip and the panel that begins with a column.
    #[inline(always)]
    unsafe fn tile(&self, strip: usize, column: usize, inner: Range<usize>, ahead: usize) -> Tile {
        let (m, x, row) = (self.product, self.x, strip * self.x.height);
        let onto = if inner.start > 0 { Some((m.y.cast_const(), m.y_row)) } else { m.start() };
        let is_aligned = m.y.addr().is_multiple_of(4 * WIDTH) && m.y_row.is_multiple_of(WIDTH);
        // SAFETY: the caller's
        unsafe {
            Tile {
                rows: x.height.min(x.rows - row),
                columns: m.columns - column,
                panel: m.panel,
                depth: inner.len(),
                x: x.numbers.as_ptr().add(row * x.depth + inner.start * x.height),
                w: m.w.add(column / WIDTH * m.panel + inner.start * WIDTH),
                ahead,
                y: m.y.add(row * m.y_row + column),
                y_row: m.y_row,
                is_aside: x.n == 1 && is_aligned,
                onto: onto.map(|(at, gap)| (at.add(row * gap + column), gap)),
            }
        }
    }
}

/// One tile of y, and some of the inner axis, summed block by block.
#[derive(Clone, Copy)]
struct Tile {
    rows: usize,
    /// From its first one to the last of y.
    columns: usize,
    depth: usize,
    x: *const f32,
    w: *const f32,
    /// From a panel to the next.
    panel: usize,
    /// Numbers of W that are fetched ahead.
    ahead: usize,
    y: *mut f32,
    y_row: usize,
    /// Whether y is written past the caches: where W comes from memory, a row of y that is fetched first costs more than it
    /// does to read it again later.
    is_aside: bool,
    onto: Option<(*const f32, usize)>,
}

/// # Safety
/// Pointers are valid for the tile's sizes.
impl Tile {
    #[inline(always)]
    unsafe fn run<S: Simd>(self, height: usize, beside: usize) {
        // SAFETY: the caller's; no strip is higher than `S::STRIP` and `S::BESIDE` say
        unsafe {
            match height {
                12 if beside == 2 => self.of_size::<S, 12, 2>(),
                1 => self.of_height::<S, 1>(),
                2 => self.of_height::<S, 2>(),
                4 => self.of_height::<S, 4>(),
                6 if S::STRIP >= 6 => self.of_height::<S, 6>(),
                8 if S::STRIP >= 8 => self.of_height::<S, 8>(),
                12 if S::STRIP >= 12 => self.of_height::<S, 12>(),
                16 if S::STRIP >= 16 => self.of_height::<S, 16>(),
                20 if S::STRIP >= 20 => self.of_height::<S, 20>(),
                24 if S::STRIP >= 24 => self.of_height::<S, 24>(),
                _ => unreachable!("strips of {height} rows"),
            }
        }
    }

    #[inline(always)]
    unsafe fn of_height<S: Simd, const R: usize>(self) {
        // SAFETY: the caller's; a panel is so many vectors wide
        unsafe {
            match S::LANES {
                16 => self.of_size::<S, R, 1>(),
                8 => self.of_size::<S, R, 2>(),
                _ => self.of_size::<S, R, 4>(),
            }
        }
    }

    /// R rows of C vectors.
    #[inline(always)]
    unsafe fn of_size<S: Simd, const R: usize, const C: usize>(self) {
        // SAFETY: the caller's; rows and columns beyond the tile's are neither read nor written
        unsafe {
            let mut totals = [[S::zero(); C]; R];
            if let Some((start, gap)) = self.onto {
                for (r, totals) in totals.iter_mut().enumerate().take(self.rows) {
                    for (c, total) in totals.iter_mut().enumerate() {
                        let at = c * S::LANES;
                        match self.columns.saturating_sub(at) {
                            0 => (),
                            n if n >= S::LANES => *total = S::load(start.add(r * gap + at)),
                            n => *total = S::load_first(start.add(r * gap + at), n),
                        }
                    }
                }
            }
            let (mut x, mut w) = (self.x, self.w);
            for first in (0..self.depth).step_by(BLOCK) {
                let mut sums = [[S::zero(); C]; R];
                for _ in 0..BLOCK.min(self.depth - first) {
                    S::prefetch(w.wrapping_add(self.ahead));
                    let row: [S::V; C] = std::array::from_fn(|c| {
                        let (panel, at) = (c * S::LANES / WIDTH, c * S::LANES % WIDTH);
                        S::load(w.add(panel * self.panel + at))
                    });
                    for (r, sums) in sums.iter_mut().enumerate() {
                        let x = S::splat(*x.add(r));
                        for (sum, w) in sums.iter_mut().zip(row) {
                            *sum = S::fma(x, w, *sum);
                        }
                    }
                    (x, w) = (x.add(R), w.add(WIDTH));
                }
                for (totals, sums) in totals.iter_mut().zip(sums) {
                    for (total, sum) in totals.iter_mut().zip(sums) {
                        *total = S::add(*total, sum);
                    }
                }
            }
            for (r, totals) in totals.into_iter().enumerate().take(self.rows) {
                let y = self.y.add(r * self.y_row);
                for (c, total) in totals.into_iter().enumerate() {
                    let at = c * S::LANES;
                    match self.columns.saturating_sub(at) {
                        0 => (),
                        n if n >= S::LANES && self.is_aside => S::stream(y.add(at), total),
                        n if n >= S::LANES => S::store(y.add(at), total),
                        n => S::store_first(y.add(at), total, n),
                    }
                }
            }
        }
    }
}

/// `u Wᵀ` for few rows of u, each [columns]: y [n, rows of W]. W is read once, some rows at a time.
pub(crate) struct Fold<'a> {
    /// Rows of u, `u_row` apart.
    pub u: &'a [f32],
    pub u_row: usize,
    pub n: usize,
    /// Columns of W.
    pub columns: usize,
    /// Panels of W from the first of these rows on.
    pub w: *const f32,
    pub panel: usize,
    /// Rows of W.
    pub rows: usize,
    pub y: *mut f32,
    pub y_row: usize,
}

/// Rows of W whose sums stay in registers.
const ROWS: usize = 8;

impl Kernel for Fold<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self) {
        for first in (0..self.rows).step_by(ROWS) {
            for r in 0..self.n {
                // SAFETY: the caller vouches for pointers and sizes
                unsafe {
                    if first + ROWS <= self.rows {
                        self.sums::<S, ROWS>(first, r);
                    } else {
                        (first..self.rows).for_each(|first| self.sums::<S, 1>(first, r));
                    }
                }
            }
        }
    }
}

impl Fold<'_> {
    /// Row `r` of u with N rows of W.
    #[inline(always)]
    unsafe fn sums<S: Simd, const N: usize>(&self, first: usize, r: usize) {
        let mut lanes = [0f32; WIDTH];
        let u = &self.u[r * self.u_row..][..self.columns];
        // SAFETY: the caller's
        unsafe {
            let mut sums = [S::zero(); N];
            let mut w = self.w.add(first * WIDTH);
            for u in u.chunks(WIDTH) {
                for (at, u) in u.chunks(S::LANES).enumerate() {
                    let n = u.len();
                    let load = |at| if n < S::LANES { S::load_first(at, n) } else { S::load(at) };
                    let u = load(u.as_ptr());
                    for (i, sum) in sums.iter_mut().enumerate() {
                        *sum = S::fma(load(w.add(i * WIDTH + at * S::LANES)), u, *sum);
                    }
                }
                // the panel's next rows, for which it is its turn again when all panels had theirs
                (0..N).for_each(|i| S::prefetch(w.wrapping_add((2 * N + i) * WIDTH)));
                w = w.wrapping_add(self.panel);
            }
            for (i, sum) in sums.into_iter().enumerate() {
                S::store(lanes.as_mut_ptr(), sum);
                self.y.add(r * self.y_row + first + i).write(lanes[..S::LANES].iter().sum());
            }
        }
    }
}

#[cfg(test)]
pub(super) mod testing {
    use super::WIDTH;

    /// W [depth, columns] in panels that lie 7 numbers further apart than they need.
    pub fn panels(w: &[f32], depth: usize, columns: usize) -> (Vec<f32>, usize) {
        let panel = depth * WIDTH + 7;
        let mut all = vec![0.0; columns.div_ceil(WIDTH) * panel];
        for (i, x) in w.iter().enumerate() {
            let (k, c) = (i / columns, i % columns);
            all[c / WIDTH * panel + k * WIDTH + c % WIDTH] = *x;
        }
        (all, panel)
    }
}

#[cfg(test)]
mod tests {
    use super::testing::panels;
    use super::*;
    use crate::ops::testing::{matrix, values};

    fn floats(shape: &[usize], seed: u64) -> Vec<f32> {
        values(&matrix(shape, seed)).into_iter().map(|v| v as f32).collect()
    }

    /// y [rows, columns] with gaps of 3 between rows, of x with gaps of 2.
    fn check(isa: Isa, [rows, depth, columns]: [usize; 3], onto: usize) {
        let (x_row, y_row) = (depth + 2, columns + 3);
        let (x, w) = (floats(&[rows, x_row], 1), floats(&[depth * columns], 2));
        let (all, panel) = panels(&w, depth, columns);
        let mut y: Vec<f32> = vec![0.25; rows * y_row];
        let start: Vec<f32> = (0..columns).map(|c| c as f32 / 8.0).collect();
        let onto_which = [Onto::Zero, Onto::Row(start.as_ptr()), Onto::Y][onto];
        // SAFETY: the buffers are of these sizes
        let strips = unsafe { Strips::of(isa, x.as_ptr(), x_row, rows, depth) };
        let product = Product {
            rows,
            depth,
            columns,
            x: x.as_ptr(),
            x_row,
            w: all.as_ptr(),
            panel,
            y: y.as_mut_ptr(),
            y_row,
            onto: onto_which,
        };
        isa.run(Panels { product, x: &strips });
        for r in 0..rows {
            for c in 0..y_row {
                let found = f64::from(y[r * y_row + c]);
                if c >= columns {
                    assert_eq!(found, 0.25, "beyond the columns");
                    continue;
                }
                let start = [0.0, c as f64 / 8.0, 0.25][onto];
                let terms = (0..depth).map(|k| f64::from(x[r * x_row + k]) * f64::from(w[k * columns + c]));
                let (sum, size) = terms.fold((start, start), |(sum, size), term| (sum + term, size + term.abs()));
                assert!((found - sum).abs() <= 1e-6 * size, "{isa:?} {rows} {depth} {columns}: {found} {sum}");
            }
        }
    }

    #[test]
    fn products_of_every_strip_and_rest() {
        for isa in Isa::available() {
            for rows in 1..=30 {
                for columns in [1, 4, 7, 8, 15, 16, 17, 33, 48] {
                    check(isa, [rows, 37, columns], rows % 3);
                }
            }
            for depth in [0, 1, 3, 255, 256, 257, 600] {
                for onto in 0..3 {
                    check(isa, [5, depth, 50], onto);
                    check(isa, [140, depth, 20], onto);
                }
            }
            // panels beside each other, more columns than stay near, and more strips
            for (onto, size) in [[30, 600, 300], [300, 300, 290], [25, 520, 32]].into_iter().enumerate() {
                check(isa, size, onto);
            }
            for onto in 0..3 {
                for depth in [256, 300] {
                    check(isa, [30, depth, 150], onto);
                }
            }
        }
    }

    #[test]
    fn folds_are_their_definition() {
        for isa in Isa::available() {
            for (n, rows, columns) in [(1, 1, 1), (2, 5, 16), (3, 300, 37), (8, 512, 100), (5, 17, 8)] {
                let (u, w) = (floats(&[n * columns], 1), floats(&[rows * columns], 2));
                let (all, panel) = panels(&w, rows, columns);
                let mut y = vec![0f32; n * rows];
                let (w_at, to) = (all.as_ptr(), y.as_mut_ptr());
                isa.run(Fold { u: &u, u_row: columns, n, columns, w: w_at, panel, rows, y: to, y_row: rows });
                for (i, found) in y.iter().enumerate() {
                    let (u, w) = (&u[i / rows * columns..][..columns], &w[i % rows * columns..][..columns]);
                    let expected: f64 = u.iter().zip(w).map(|(u, w)| f64::from(*u) * f64::from(*w)).sum();
                    assert!((f64::from(*found) - expected).abs() < 1e-5, "{isa:?} {n} {rows} {columns}");
                }
            }
        }
    }
}
