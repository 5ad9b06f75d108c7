//! Linear layers: `y = x W + b`, what every part of x adds to it, and the way back, `u Wᵀ`; for matrices of a row per
//! output, `y = x Wᵀ`.

use super::Kernels;
use super::cpu::amx;
use super::cpu::panels::{Fold, Onto, Panels, Product, Strips, WIDTH};
use super::cpu::parallel::{split, spread};
use super::cpu::simd::{Isa, Kernel, Simd};
use super::cpu::tensor::{Fresh, Rows, Shared};
use super::matmul::{by_rows, matmul, narrow_product};
use super::weight::{self, Weight};
use crate::error::{PrismError, Result};
use candle_core::Tensor;
use std::ops::Range;
use std::sync::OnceLock;

/// Up to this many rows, the matrix unit is no help: the time is that of reading W.
const FEW_ROWS: usize = 24;
/// Up to this many rows, the dots with rows of W read it once.
const FEW_DOTS: usize = 8;
/// From so many rows on, `x Wᵀ` is a product with a copy of W that lies the other way: the copy costs less than the library
/// loses.
const MANY_ROWS: usize = 64;
/// Bytes of W that a thread takes at least where W is only read: less is read before another thread has come.
const LEAST_READ: usize = 96 << 10;

/// `x W + b`.
///
/// # Shapes
/// x [rows, in], weight [in, out], bias [out] → [rows, out].
///
/// # Errors
/// `INTERNAL` where shapes do not fit.
pub fn linear(kernels: Kernels, x: &Tensor, weight: &Weight, bias: Option<&Tensor>) -> Result<Tensor> {
    let fits = x.dims2()?.1 == weight.n_in() && bias.is_none_or(|bias| bias.dims() == [weight.n_out()]);
    if !fits {
        let problem = format!("{:?} and a bias {:?}", x.shape(), bias.map(Tensor::shape));
        let problem = format!("a matrix [{}, {}] does not fit {problem}", weight.n_in(), weight.n_out());
        return Err(PrismError::Internal { place: "a linear layer".into(), problem });
    }
    match kernels {
        Kernels::Plain => plain(x, &weight.dense()?, bias),
        Kernels::Fused(isa) => fused(isa, x, weight, bias),
    }
}

fn plain(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let (x, weight) = (x.contiguous()?, weight.contiguous()?);
    let narrow = weight.dtype().size_in_bytes() < x.dtype().size_in_bytes();
    let y = if narrow { narrow_product(&x, &weight)? } else { matmul(&x, &weight)? };
    Ok(match bias {
        Some(bias) => y.broadcast_add(bias)?,
        None => y,
    })
}

fn fused(isa: Isa, x: &Tensor, weight: &Weight, bias: Option<&Tensor>) -> Result<Tensor> {
    let Some(w) = weight.panels() else { return fused(isa, x, &weight.realigned()?, bias) };
    let (n_in, n_out) = (weight.n_in(), weight.n_out());
    let (x, bias) = (Rows::of(x)?, bias.map(Rows::of).transpose()?);
    let bias = bias.as_ref().map(Rows::numbers).transpose()?;
    let mut y = Fresh::new((x.n, n_out));
    let (rows, of_x, place) = (x.n, x.numbers()?, y.place());
    // SAFETY: x and y have these sizes
    unsafe {
        let operands = Operands { rows, n_in, n_out, x: &of_x, x_row: x.stride, w, y: place, y_row: n_out };
        operands.multiply(isa, bias.as_deref());
        y.written() // row by row
    }
}

/// The rows of x and y may lie apart.
struct Operands<'a> {
    rows: usize,
    n_in: usize,
    n_out: usize,
    x: &'a [f32],
    x_row: usize,
    w: weight::Panels<'a>,
    y: Shared,
    y_row: usize,
}

impl Operands<'_> {
    /// Writes `y = x W + b`. Threads share columns, so that each weight is read once.
    ///
    /// # Safety
    /// x, w and y have these sizes.
    unsafe fn multiply(&self, isa: Isa, bias: Option<&[f32]>) {
        let Operands { rows, n_in, n_out, x_row, y_row, .. } = *self;
        let product = |columns: Range<usize>| Product {
            rows,
            depth: n_in,
            columns: columns.len(),
            x: self.x.as_ptr(),
            x_row,
            w: self.w.numbers[columns.start / WIDTH * self.w.panel..].as_ptr(),
            panel: self.w.panel,
            y: self.y.at(columns.start),
            y_row,
            onto: bias.map_or(Onto::Zero, |bias| Onto::Row(bias[columns].as_ptr())),
        };
        // SAFETY: x has these sizes
        let strips = || unsafe { Strips::of(isa, self.x.as_ptr(), x_row, rows, n_in) };
        if isa.has_matrix_unit() && rows > FEW_ROWS {
            let turned = OnceLock::new();
            // SAFETY: the unit is there, and the operands have these sizes
            split(n_out, 6 * WIDTH, 6 * WIDTH, &|columns| unsafe {
                if !amx::product(product(columns.clone())) {
                    isa.run(Panels { product: product(columns), x: turned.get_or_init(strips) });
                }
            });
        } else {
            let strips = strips();
            let least = LEAST_READ / (4 * n_in).max(1);
            spread(n_out, least, WIDTH, &|columns| isa.run(Panels { product: product(columns), x: &strips }));
        }
    }
}

/// What every part of x writes for itself: `y[:, p] = x[:, p] W[p]`, W cut into as many parts of its rows.
///
/// # Shapes
/// x [rows, parts, in], weight [parts · in, out] → [rows, parts, out].
///
/// # Errors
/// `INTERNAL` where shapes do not fit.
pub fn by_part(kernels: Kernels, x: &Tensor, weight: &Weight) -> Result<Tensor> {
    let (rows, parts, n_in) = x.dims3()?;
    let n_out = weight.n_out();
    let Kernels::Fused(isa) = kernels else {
        let by_part = matmul(&x.transpose(0, 1)?.contiguous()?, &weight.dense()?.reshape((parts, n_in, n_out))?)?;
        return Ok(by_part.transpose(0, 1)?.contiguous()?);
    };
    if parts * n_in != weight.n_in() {
        let problem = format!("{parts} parts of {n_in} do not fit a matrix [{}, {n_out}]", weight.n_in());
        return Err(PrismError::Internal { place: "a linear layer, part by part".into(), problem });
    }
    let Some(w) = weight.panels() else { return by_part(kernels, x, &weight.realigned()?) };
    let x = Rows::of(x)?;
    let of_x = x.numbers()?;
    let mut y = Fresh::new((rows, parts, n_out));
    let place = y.place();
    for part in 0..if rows == 0 { 0 } else { parts } {
        let w = weight::Panels { numbers: &w.numbers[part * n_in * WIDTH..], panel: w.panel };
        let (x, x_row) = (&of_x[part * n_in..], x.stride);
        let (y, y_row) = (place.from(part * n_out), parts * n_out);
        // SAFETY: a part of x, W and y each
        unsafe { Operands { rows, n_in, n_out, x, x_row, w, y, y_row }.multiply(isa, None) };
    }
    // SAFETY: part by part
    unsafe { y.written() }
}

/// `x Wᵀ`: the dot product of every row of `x` with every row of `W`.
///
/// # Shapes
/// x [rows, in], weight [out, in] → [rows, out].
///
/// # Errors
/// `INTERNAL` where shapes do not fit.
pub fn project(kernels: Kernels, x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let Kernels::Fused(isa) = kernels else { return by_rows(x, weight) };
    match x.dims2()? {
        (_, n_in) if n_in != weight.dims2()?.1 => by_rows(x, weight), // which says what does not fit
        (rows, _) if rows <= FEW_DOTS => dots(isa, x, weight),
        (rows, _) if rows >= MANY_ROWS => fused(isa, x, &Weight::turned(weight)?, None),
        _ => by_rows(x, weight),
    }
}

/// Row by row of W, which is read once. Threads share its rows.
fn dots(isa: Isa, x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let (x, weight) = (Rows::of(x)?, Rows::of(weight)?);
    let (of_x, of_w, n_out) = (x.numbers()?, weight.numbers()?, weight.n);
    let mut y = Fresh::new((x.n, n_out));
    let place = y.place();
    split(n_out, 64, 1, &|outputs| {
        for o in outputs {
            let w = &of_w[o * weight.stride..][..weight.width];
            for row in 0..x.n {
                let dot = isa.run(Dot { x: &of_x[row * x.stride..][..x.width], w });
                // SAFETY: a number of y, of this part's columns
                unsafe { place.at(row * n_out + o).write(dot) };
            }
        }
    });
    // SAFETY: row by row of W, every row of x
    unsafe { y.written() }
}

/// Of two vectors of one length.
struct Dot<'a> {
    x: &'a [f32],
    w: &'a [f32],
}

impl Kernel for Dot<'_> {
    type Out = f32;
    #[inline(always)]
    fn run<S: Simd>(self) -> f32 {
        const SUMS: usize = 4;
        let mut lanes = [0f32; 16];
        // SAFETY: vectors inside both slices; there are at most 16 lanes
        unsafe {
            let (x, w) = (self.x.as_ptr(), self.w.as_ptr());
            let mut sums = [S::zero(); SUMS];
            for (i, at) in (0..self.x.len()).step_by(S::LANES).enumerate() {
                let left = self.x.len() - at;
                let load = |from: *const f32| match left {
                    left if left < S::LANES => S::load_first(from.add(at), left),
                    _ => S::load(from.add(at)),
                };
                sums[i % SUMS] = S::fma(load(x), load(w), sums[i % SUMS]);
            }
            let sum = S::add(S::add(sums[0], sums[1]), S::add(sums[2], sums[3]));
            S::store(lanes.as_mut_ptr(), sum);
        }
        lanes.iter().sum()
    }
}

/// `u Wᵀ`: every row of `u`, which lives where W writes, as seen from where W reads.
///
/// # Shapes
/// u [n, out], weight [in, out] → [n, in].
///
/// # Errors
/// `INTERNAL` where shapes do not fit.
pub fn fold(kernels: Kernels, u: &Tensor, weight: &Weight) -> Result<Tensor> {
    let Kernels::Fused(isa) = kernels else { return by_rows(u, &weight.dense()?.contiguous()?) };
    let n = match u.dims2()? {
        (_, n_out) if n_out != weight.n_out() => return by_rows(u, &weight.dense()?.contiguous()?), // which says what does not fit
        (n, _) if n >= MANY_ROWS => return fused(isa, u, &weight.transposed()?, None),
        (n, 0) => return Ok(Tensor::zeros((n, weight.n_in()), u.dtype(), u.device())?),
        (n, _) => n,
    };
    let Some(w) = weight.panels() else { return fold(kernels, u, &weight.realigned()?) };
    let (u, n_in) = (Rows::of(u)?, weight.n_in());
    let of_u = u.numbers()?;
    let mut y = Fresh::new((n, n_in));
    let place = y.place();
    split(n_in, 4 * WIDTH, 4 * WIDTH, &|rows| {
        isa.run(Fold {
            u: &of_u,
            u_row: u.stride,
            n,
            columns: weight.n_out(),
            w: w.numbers[rows.start * WIDTH..].as_ptr(),
            panel: w.panel,
            rows: rows.len(),
            y: place.at(rows.start),
            y_row: n_in,
        });
    });
    // SAFETY: row by row of W, every row of u
    unsafe { y.written() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{close, matrix, values};

    /// W [in, out] as these kernels read it.
    fn weight(kernels: Kernels, w: &Tensor) -> Weight {
        match kernels {
            Kernels::Plain => Weight::of_rows(w.clone()).unwrap(),
            Kernels::Fused(_) => Weight::turned(&w.t().unwrap().contiguous().unwrap()).unwrap(),
        }
    }

    /// The definition, in f64.
    fn naive(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Vec<f64> {
        let (rows, n_in) = x.dims2().unwrap();
        let n_out = weight.dim(1).unwrap();
        let (x, w, b) = (values(x), values(weight), bias.map(values));
        let mut y = Vec::new();
        for r in 0..rows {
            for o in 0..n_out {
                let dot: f64 = (0..n_in).map(|i| x[r * n_in + i] * w[i * n_out + o]).sum();
                y.push(dot + b.as_ref().map_or(0.0, |b| b[o]));
            }
        }
        y
    }

    #[test]
    fn linear_is_its_definition_at_odd_sizes() {
        for (rows, n_in, n_out) in [(1, 1, 1), (1, 7, 3), (5, 33, 17), (9, 40, 300), (30, 600, 100), (65, 19, 130)] {
            let (x, w) = (matrix(&[rows, n_in], 1), matrix(&[n_in, n_out], 2));
            let b = matrix(&[n_out], 3);
            for kernels in Kernels::all() {
                let matrix = weight(kernels, &w);
                close(&linear(kernels, &x, &matrix, None).unwrap(), &naive(&x, &w, None), 1e-5);
                close(&linear(kernels, &x, &matrix, Some(&b)).unwrap(), &naive(&x, &w, Some(&b)), 1e-5);
            }
            let rows_of_outputs = w.t().unwrap().contiguous().unwrap();
            for kernels in Kernels::all() {
                close(&project(kernels, &x, &rows_of_outputs).unwrap(), &naive(&x, &w, None), 1e-5);
                close(&fold(kernels, &x, &weight(kernels, &rows_of_outputs)).unwrap(), &naive(&x, &w, None), 1e-5);
            }
        }
    }

    #[test]
    fn a_view_is_multiplied_as_its_copy() {
        let (w, b) = (matrix(&[40, 70], 2), matrix(&[30], 3));
        for (rows, r, c) in [(3, 0..40, 16..46), (30, 8..24, 0..30), (3, 8..24, 5..35), (30, 0..40, 5..35)] {
            let dense =
                w.narrow(0, r.start, r.len()).unwrap().narrow(1, c.start, c.len()).unwrap().contiguous().unwrap();
            let (x, u) = (matrix(&[rows, r.len()], 1), matrix(&[rows, c.len()], 4));
            for kernels in Kernels::all() {
                let view = weight(kernels, &w).rows(r.clone()).unwrap().columns(c.clone()).unwrap();
                close(&linear(kernels, &x, &view, Some(&b)).unwrap(), &naive(&x, &dense, Some(&b)), 1e-5);
                let folded = naive(&u, &dense.t().unwrap().contiguous().unwrap(), None);
                close(&fold(kernels, &u, &view).unwrap(), &folded, 1e-5);
            }
        }
    }

    #[test]
    fn every_part_is_a_product_of_its_own() {
        let (none, w) = (matrix(&[0, 2, 3], 1), matrix(&[6, 4], 2));
        assert!(Kernels::all().iter().all(|k| by_part(*k, &none, &weight(*k, &w)).unwrap().dims() == [0, 2, 4]));
        for (rows, parts, n_in, n_out) in [(1, 1, 1, 1), (3, 2, 5, 17), (16, 3, 64, 100), (30, 4, 33, 40)] {
            let (x, w) = (matrix(&[rows, parts, n_in], 1), matrix(&[parts * n_in, n_out], 2));
            let mut expected = vec![0.0; rows * parts * n_out];
            for part in 0..parts {
                let of_part = |t: &Tensor, axis| t.narrow(axis, part * n_in, n_in).unwrap().contiguous().unwrap();
                let y = naive(&of_part(&x.flatten_from(1).unwrap(), 1), &of_part(&w, 0), None);
                for (i, y) in y.into_iter().enumerate() {
                    expected[(i / n_out * parts + part) * n_out + i % n_out] = y;
                }
            }
            let wide = matrix(&[parts * n_in, n_out + 3], 2);
            let apart = Tensor::cat(&[&wide.narrow(1, 0, 3).unwrap(), &w], 1).unwrap();
            for kernels in Kernels::all() {
                let found = by_part(kernels, &x, &weight(kernels, &w)).unwrap();
                assert_eq!(found.dims(), [rows, parts, n_out]);
                close(&found, &expected, 1e-5);
                let view = weight(kernels, &apart).columns(3..n_out + 3).unwrap(); // which begins no panel
                close(&by_part(kernels, &x, &view).unwrap(), &expected, 1e-5);
                assert!(by_part(kernels, &x, &weight(kernels, &matrix(&[parts * n_in + 1, n_out], 2))).is_err());
            }
        }
    }

    #[test]
    fn by_hand() {
        let x = Tensor::new(&[[1f32, 2.0], [0.5, -1.0]], &candle_core::Device::Cpu).unwrap();
        let w = Tensor::new(&[[3f32, 0.0, 1.0], [1.0, -2.0, 4.0]], &candle_core::Device::Cpu).unwrap();
        let b = Tensor::new(&[10f32, 20.0, 30.0], &candle_core::Device::Cpu).unwrap();
        for kernels in Kernels::all() {
            assert_eq!(
                values(&linear(kernels, &x, &weight(kernels, &w), Some(&b)).unwrap()),
                [15.0, 16.0, 39.0, 10.5, 22.0, 26.5]
            );
        }
    }

    #[test]
    fn rows_may_lie_apart_and_huge_and_tiny_numbers_pass() {
        for rows in [5, 40] {
            let (all, w) = (matrix(&[rows, 50], 1), matrix(&[20, 30], 2));
            let x = all.narrow(1, 7, 20).unwrap();
            let expected = naive(&x.contiguous().unwrap(), &w, None);
            for kernels in Kernels::all() {
                close(&linear(kernels, &x, &weight(kernels, &w), None).unwrap(), &expected, 1e-5);
                for factor in [1e18, 1e-18] {
                    let (x, w) = ((&x * factor).unwrap(), (&w * factor).unwrap());
                    let scaled = (linear(kernels, &x, &weight(kernels, &w), None).unwrap() * (1.0 / factor)).unwrap();
                    close(&(scaled * (1.0 / factor)).unwrap(), &expected, 1e-5);
                }
            }
        }
    }

    #[test]
    fn a_row_is_the_same_among_others_and_on_any_number_of_threads() {
        let (x, w, b) = (matrix(&[64, 96], 1), matrix(&[96, 1000], 2), matrix(&[1000], 3));
        let w = weight(Kernels::default(), &w);
        let pool = |n| rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap();
        for rows in [1, 9, 32, 64] {
            let x = x.narrow(0, 0, rows).unwrap();
            let product = || values(&linear(Kernels::default(), &x, &w, Some(&b)).unwrap());
            let alone = product();
            for threads in [1, 2, 5] {
                assert_eq!(pool(threads).install(product), alone, "{rows} rows on {threads} threads");
            }
            let first = linear(Kernels::default(), &x.narrow(0, 0, 1).unwrap(), &w, Some(&b)).unwrap();
            close(&first, &alone[..1000], 5e-6); // the matrix unit sums in another order
        }
    }

    #[test]
    fn without_a_matrix_unit_a_row_has_the_same_bits_alone_and_among_others() {
        let (x, w, b) = (matrix(&[30, 600], 1), matrix(&[600, 100], 2), matrix(&[100], 3));
        for isa in Isa::available().into_iter().filter(|isa| !isa.has_matrix_unit()) {
            let (kernels, w) = (Kernels::Fused(isa), weight(Kernels::Fused(isa), &w));
            let all = values(&linear(kernels, &x, &w, Some(&b)).unwrap());
            for rows in [1, 3, 7, 24] {
                let some = values(&linear(kernels, &x.narrow(0, 0, rows).unwrap(), &w, Some(&b)).unwrap());
                assert_eq!(some, all[..some.len()], "{isa:?}, {rows} rows");
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        for kernels in Kernels::all() {
            let w = weight(kernels, &matrix(&[4, 5], 2));
            assert!(linear(kernels, &matrix(&[2, 3], 1), &w, None).is_err());
            assert!(linear(kernels, &matrix(&[2, 4], 1), &w, Some(&matrix(&[4], 3))).is_err());
            assert!(fold(kernels, &matrix(&[2, 4], 1), &w).is_err());
        }
    }
}
