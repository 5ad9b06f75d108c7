//! Linear layers: `y = x W + b`, and `y = x Wᵀ` for matrices that are kept a row per output.

use crate::error::Result;
use candle_core::Tensor;

/// `x W + b`.
///
/// # Shapes
/// x [rows, in], weight [in, out], bias [out] → [rows, out].
///
/// # Errors
/// `INTERNAL` where shapes do not fit.
pub fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let y = x.matmul(weight)?;
    Ok(match bias {
        Some(bias) => y.broadcast_add(bias)?,
        None => y,
    })
}

/// `x Wᵀ`: the dot product of every row of `x` with every row of `W`.
///
/// # Shapes
/// x [rows, in], weight [out, in] → [rows, out].
///
/// # Errors
/// `INTERNAL` where shapes do not fit.
pub fn project(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    Ok(x.matmul(&weight.t()?)?)
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
            close(&linear(&x, &w, None).unwrap(), &naive(&x, &w, None), 1e-5);
            close(&linear(&x, &w, Some(&b)).unwrap(), &naive(&x, &w, Some(&b)), 1e-5);
            let rows_of_outputs = w.t().unwrap().contiguous().unwrap();
            close(&project(&x, &rows_of_outputs).unwrap(), &naive(&x, &w, None), 1e-5);
        }
    }

    #[test]
    fn by_hand() {
        let x = Tensor::new(&[[1f32, 2.0], [0.5, -1.0]], &candle_core::Device::Cpu).unwrap();
        let w = Tensor::new(&[[3f32, 0.0, 1.0], [1.0, -2.0, 4.0]], &candle_core::Device::Cpu).unwrap();
        let b = Tensor::new(&[10f32, 20.0, 30.0], &candle_core::Device::Cpu).unwrap();
        assert_eq!(values(&linear(&x, &w, Some(&b)).unwrap()), [15.0, 16.0, 39.0, 10.5, 22.0, 26.5]);
    }
}
