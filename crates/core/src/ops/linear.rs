//! Linear layers: `y = x W + b`, and `y = x Wᵀ` for matrices that are kept a row per output.

use super::Kernels;
use super::cpu::matmul::{Matmul, Onto};
use super::cpu::parallel::split;
use super::cpu::simd::{Kernel, Simd};
use super::cpu::tensor::{Fresh, Rows};
use super::cpu::{Isa, amx};
use super::matmul::{by_rows, matmul, narrow_product};
use crate::error::Result;
use candle_core::Tensor;
use std::ops::Range;

/// Up to this many rows the product is a stream of W; with more, `gemm` gains more by copying W than that costs.
const FEW_ROWS: usize = 32;
/// The same where there is a matrix unit.
const FEW_FOR_UNIT: usize = 24;
/// Up to this many rows, `x Wᵀ` is a stream of W as well.
const FEW_DOTS: usize = 8;
/// From so many rows on, `x Wᵀ` is a product with a copy of W that lies the other way: the copy costs less than the library
/// loses.
const MANY_ROWS: usize = 64;

/// `x W + b`.
///
/// # Shapes
/// x [rows, in], weight [in, out], bias [out] → [rows, out].
///
/// # Errors
/// `INTERNAL` where shapes do not fit.
pub fn linear(kernels: Kernels, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    match kernels {
        Kernels::Plain => plain(x, weight, bias),
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

/// Threads share columns, so that each weight is read once.
fn fused(isa: Isa, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let (n_in, n_out) = weight.dims2()?;
    if x.dims2()?.1 != n_in || bias.is_some_and(|b| b.dims() != [n_out]) {
        return plain(x, weight, bias); // which says what does not fit
    }
    let is_few = x.dim(0)? <= if isa.has_matrix_unit() { FEW_FOR_UNIT } else { FEW_ROWS };
    let (x, weight, bias) = (Rows::of(x)?, Rows::of(weight)?, bias.map(Rows::of).transpose()?);
    let (rows, x_row, w_row) = (x.n, x.stride, weight.stride);
    let (x, w) = (x.numbers()?, weight.numbers()?);
    let bias = bias.as_ref().map(Rows::numbers).transpose()?;
    let mut y = Fresh::new((rows, n_out));
    let place = y.place();
    let part = |columns: Range<usize>| {
        let matmul = Matmul {
            rows,
            depth: n_in,
            columns: columns.len(),
            x: x.as_ptr(),
            x_row,
            w: w.as_ptr().wrapping_add(columns.start),
            w_row,
            y: place.at(columns.start),
            y_row: n_out,
            onto: bias.as_ref().map_or(Onto::Zero, |bias| Onto::Row(bias[columns].as_ptr())),
        };
        if is_few { isa.run(matmul) } else { large(isa, matmul) }
    };
    split(n_out, if is_few { 48 } else { 96 }, 96, &part);
    // SAFETY: column by column
    unsafe { y.written() }
}

/// The same product for many rows, on this thread.
fn large(isa: Isa, m: Matmul) {
    // SAFETY: the unit is there, and who made `m` vouches for pointers and sizes
    let done = isa.has_matrix_unit() && unsafe { amx::product(m) };
    if !done {
        gemm(m);
    }
}

/// By the library, which adds to y.
fn gemm(m: Matmul) {
    if let Onto::Row(start) = m.onto {
        for row in 0..m.rows {
            // SAFETY: rows of y, for which who made `m` vouches
            unsafe { std::ptr::copy_nonoverlapping(start, m.y.add(row * m.y_row), m.columns) };
        }
    }
    let step = |row: usize| row as isize;
    // SAFETY: who made `m` vouches for pointers and sizes; `read_dst` says whether y is initialised
    unsafe {
        gemm::gemm(
            m.rows,
            m.columns,
            m.depth,
            m.y,
            1,
            step(m.y_row),
            m.onto != Onto::Zero,
            m.x,
            1,
            step(m.x_row),
            m.w,
            1,
            step(m.w_row),
            1.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
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
        (rows, _) if rows >= MANY_ROWS => fused(isa, x, &transposed(weight)?, None),
        _ => by_rows(x, weight),
    }
}

/// Wᵀ, sixteen columns at a time: what is written lies in whole cache lines.
fn transposed(weight: &Tensor) -> Result<Tensor> {
    const BLOCK: usize = 16;
    let weight = Rows::of(weight)?;
    let (numbers, n_out) = (weight.numbers()?, weight.n);
    let mut turned = Fresh::new((weight.width, n_out));
    let place = turned.place();
    split(n_out, 4 * BLOCK, BLOCK, &|outputs| {
        for first in outputs.clone().step_by(BLOCK) {
            let block = first..outputs.end.min(first + BLOCK);
            for i in 0..weight.width {
                for o in block.clone() {
                    // SAFETY: a number of these columns
                    unsafe { place.at(i * n_out + o).write(numbers[o * weight.stride + i]) };
                }
            }
        }
    });
    // SAFETY: every row of W is a column
    unsafe { turned.written() }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{close, matrix, values};

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
        for (rows, n_in, n_out) in [(1, 1, 1), (1, 7, 3), (5, 33, 17), (65, 19, 130)] {
            let (x, w) = (matrix(&[rows, n_in], 1), matrix(&[n_in, n_out], 2));
            let b = matrix(&[n_out], 3);
            for kernels in Kernels::all() {
                close(&linear(kernels, &x, &w, None).unwrap(), &naive(&x, &w, None), 1e-5);
                close(&linear(kernels, &x, &w, Some(&b)).unwrap(), &naive(&x, &w, Some(&b)), 1e-5);
            }
            let rows_of_outputs = w.t().unwrap().contiguous().unwrap();
            for kernels in Kernels::all() {
                close(&project(kernels, &x, &rows_of_outputs).unwrap(), &naive(&x, &w, None), 1e-5);
            }
        }
    }

    #[test]
    fn by_hand() {
        let x = Tensor::new(&[[1f32, 2.0], [0.5, -1.0]], &candle_core::Device::Cpu).unwrap();
        let w = Tensor::new(&[[3f32, 0.0, 1.0], [1.0, -2.0, 4.0]], &candle_core::Device::Cpu).unwrap();
        let b = Tensor::new(&[10f32, 20.0, 30.0], &candle_core::Device::Cpu).unwrap();
        for kernels in Kernels::all() {
            assert_eq!(values(&linear(kernels, &x, &w, Some(&b)).unwrap()), [15.0, 16.0, 39.0, 10.5, 22.0, 26.5]);
        }
    }

    #[test]
    fn rows_may_lie_apart_and_huge_and_tiny_numbers_pass() {
        for rows in [5, 40] {
            let (all, w) = (matrix(&[rows, 50], 1), matrix(&[20, 30], 2));
            let x = all.narrow(1, 7, 20).unwrap();
            let expected = naive(&x.contiguous().unwrap(), &w, None);
            for kernels in Kernels::all() {
                close(&linear(kernels, &x, &w, None).unwrap(), &expected, 1e-5);
                for factor in [1e18, 1e-18] {
                    let (x, w) = ((&x * factor).unwrap(), (&w * factor).unwrap());
                    let scaled = (linear(kernels, &x, &w, None).unwrap() * (1.0 / factor)).unwrap();
                    close(&(scaled * (1.0 / factor)).unwrap(), &expected, 1e-5);
                }
            }
        }
    }

    #[test]
    fn a_row_is_the_same_among_others_and_on_any_number_of_threads() {
        let (x, w, b) = (matrix(&[64, 96], 1), matrix(&[96, 1000], 2), matrix(&[1000], 3));
        let pool = |n| rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap();
        for rows in [1, 9, 32, 64] {
            let x = x.narrow(0, 0, rows).unwrap();
            let product = || values(&linear(Kernels::default(), &x, &w, Some(&b)).unwrap());
            let alone = product();
            for threads in [1, 2, 5] {
                assert_eq!(pool(threads).install(product), alone, "{rows} rows on {threads} threads");
            }
            let first = linear(Kernels::default(), &x.narrow(0, 0, 1).unwrap(), &w, Some(&b)).unwrap();
            close(&first, &alone[..1000], 5e-6); // `gemm` sums in another order
        }
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        for kernels in Kernels::all() {
            assert!(linear(kernels, &matrix(&[2, 3], 1), &matrix(&[4, 5], 2), None).is_err());
            assert!(linear(kernels, &matrix(&[2, 4], 1), &matrix(&[4, 5], 2), Some(&matrix(&[4], 3))).is_err());
        }
    }
}
