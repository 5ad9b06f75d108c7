//! Sums of two tensors of one shape: what a block adds to the stream.

use super::Kernels;
use super::cpu::Isa;
use super::cpu::parallel::split;
use super::cpu::simd::{Kernel, Simd};
use super::cpu::tensor::{Fresh, Rows};
use crate::error::Result;
use candle_core::Tensor;

/// `a + b`. candle's own sum of large tensors waits at a barrier of a thread pool of its own, which the threads of ours
/// would spin at.
///
/// # Shapes
/// a, b [rows, …] → the same.
///
/// # Errors
/// `INTERNAL` where shapes differ.
pub fn add(kernels: Kernels, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    match kernels {
        Kernels::Fused(isa) if a.dims() == b.dims() => fused(isa, a, b),
        _ => Ok((a + b)?),
    }
}

fn fused(isa: Isa, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let mut y = Fresh::new(a.shape());
    let place = y.place();
    let (a, b) = (Rows::of(a)?, Rows::of(b)?);
    let (of_a, of_b, width) = (a.numbers()?, b.numbers()?, a.width);
    split(a.n, 16, 1, &|rows| {
        for row in rows {
            let (a, b) = (&of_a[row * a.stride..][..width], &of_b[row * b.stride..][..width]);
            isa.run(Sum { a, b, y: place.at(row * width) });
        }
    });
    // SAFETY: row by row
    unsafe { y.written() }
}

/// One row; y has as many numbers as a and b.
struct Sum<'a> {
    a: &'a [f32],
    b: &'a [f32],
    y: *mut f32,
}

impl Kernel for Sum<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self) {
        for (i, (a, b)) in self.a.iter().zip(self.b).enumerate() {
            // SAFETY: y has as many numbers
            unsafe { self.y.add(i).write(a + b) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{matrix, test_device, values};

    test_device!(a_sum_is_its_definition_at_odd_sizes);
    fn a_sum_is_its_definition_at_odd_sizes() {
        for kernels in Kernels::all() {
            for shape in [[1, 1], [3, 7], [5, 33], [40, 130]] {
                // rows of a lie apart
                let (a, b) = (matrix(&[shape[0], shape[1] + 3], 1).narrow(1, 2, shape[1]).unwrap(), matrix(&shape, 2));
                let expected: Vec<f64> =
                    values(&a).iter().zip(values(&b)).map(|(a, b)| f64::from((a + b) as f32)).collect();
                assert_eq!(values(&add(kernels, &a, &b).unwrap()), expected);
            }
            assert!(add(kernels, &matrix(&[2, 3], 1), &matrix(&[2, 4], 2)).is_err());
        }
    }
}
