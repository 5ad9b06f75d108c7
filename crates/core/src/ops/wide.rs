//! Dot products of f32 that are summed in f64: the measure by which sums of components are checked.

use super::Kernels;
use super::cpu::parallel::split;
use super::cpu::simd::{Isa, Kernel, Simd};
use super::cpu::tensor::{Rows, Shared};
use super::matmul::by_rows;
use crate::error::Result;
use candle_core::{DType, Tensor};

/// Rows of W that a thread takes at least.
const LEAST: usize = 64;

/// `x Wᵀ` in f64.
///
/// # Shapes
/// x [rows, in], weight [out, in] → [rows, out], row-major.
///
/// # Errors
/// `INTERNAL` where shapes do not fit.
pub fn project_wide(kernels: Kernels, x: &Tensor, weight: &Tensor) -> Result<Vec<f64>> {
    match kernels {
        Kernels::Fused(isa) if x.dims2()?.1 == weight.dims2()?.1 => fused(isa, x, weight),
        _ => {
            let products = by_rows(&x.to_dtype(DType::F64)?, &weight.to_dtype(DType::F64)?)?;
            Ok(products.flatten_all()?.to_vec1()?)
        }
    }
}

/// W is read once; threads share its rows.
fn fused(isa: Isa, x: &Tensor, weight: &Tensor) -> Result<Vec<f64>> {
    let wide: Vec<f64> = x.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?;
    let (rows, weight) = (x.dim(0)?, Rows::of(weight)?);
    let (of_w, n_out) = (weight.numbers()?, weight.n);
    let mut y = vec![0.0; rows * n_out];
    let place = Shared::of(&mut y);
    split(n_out, LEAST, 1, &|outputs| {
        let mut w = vec![0.0; weight.width];
        for o in outputs {
            let narrow = &of_w[o * weight.stride..][..weight.width];
            w.iter_mut().zip(narrow).for_each(|(wide, narrow)| *wide = f64::from(*narrow));
            // SAFETY: column o of y
            isa.run(Dots { x: &wide, w: &w, to: |row, dot| unsafe { place.at(row * n_out + o).write(dot) } });
        }
    });
    Ok(y)
}

/// Every row of x, as long as w, with w.
struct Dots<'a, F> {
    x: &'a [f64],
    w: &'a [f64],
    to: F,
}

impl<F: Fn(usize, f64)> Kernel for Dots<'_, F> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self) {
        /// Rows that are taken together: sums of one would wait for each other.
        const TOGETHER: usize = 4;
        let n = self.w.len();
        let rows = self.x.len() / n.max(1);
        for row in (0..rows / TOGETHER * TOGETHER).step_by(TOGETHER) {
            let x: [&[f64]; TOGETHER] = std::array::from_fn(|i| &self.x[(row + i) * n..][..n]);
            dots(x, self.w).into_iter().enumerate().for_each(|(i, dot)| (self.to)(row + i, dot));
        }
        for row in rows / TOGETHER * TOGETHER..rows {
            (self.to)(row, dots([&self.x[row * n..][..n]], self.w)[0]);
        }
    }
}

#[inline(always)]
fn dots<const N: usize>(x: [&[f64]; N], w: &[f64]) -> [f64; N] {
    const LANES: usize = 8; // with 16 the compiler makes worse code: a quarter of the speed
    let mut sums = [[0f64; LANES]; N];
    let (whole, rest) = w.as_chunks::<LANES>();
    for (i, w) in whole.iter().enumerate() {
        for (sums, x) in sums.iter_mut().zip(x) {
            let x = &x[i * LANES..][..LANES];
            (0..LANES).for_each(|lane| sums[lane] += x[lane] * w[lane]);
        }
    }
    std::array::from_fn(|r| {
        let rest: f64 = x[r][whole.len() * LANES..].iter().zip(rest).map(|(x, w)| x * w).sum();
        sums[r].iter().sum::<f64>() + rest
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{matrix, values};

    #[test]
    fn dots_are_their_definition_to_the_precision_of_f64() {
        for (rows, n_in, n_out) in [(0, 3, 4), (1, 1, 1), (3, 16, 5), (4, 33, 70), (9, 100, 200)] {
            // a large part that cancels: sums in f32 would be off by 1e-3
            let x = (matrix(&[rows, n_in], 1) + 1e4).unwrap();
            let w = matrix(&[n_out, n_in], 2);
            let (of_x, of_w) = (values(&x), values(&w));
            for kernels in Kernels::all() {
                let found = project_wide(kernels, &x, &w).unwrap();
                assert_eq!(found.len(), rows * n_out);
                for (i, found) in found.into_iter().enumerate() {
                    let (x, w) = (&of_x[i / n_out * n_in..][..n_in], &of_w[i % n_out * n_in..][..n_in]);
                    let expected: f64 = x.iter().zip(w).map(|(x, w)| x * w).sum();
                    assert!((found - expected).abs() < 1e-9, "{kernels:?} {rows} {n_in} {n_out}: {found} {expected}");
                }
            }
        }
        assert!(Kernels::all().iter().all(|k| project_wide(*k, &matrix(&[2, 3], 1), &matrix(&[2, 4], 2)).is_err()));
    }
}
