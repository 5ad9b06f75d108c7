//! Norms without their gain and bias: layer norm, `(x − mean(x)) / s` with `s = sqrt(var(x) + ε)`, and RMS norm, `x / s`
//! with `s = sqrt(mean(x²) + ε)`.

use crate::error::Result;
use candle_core::{D, Tensor};

/// Normalises every row; returns the normalised rows and their scales `s`. Two passes: the variance is taken of
/// `x − mean(x)`, so a large mean costs no precision.
///
/// # Shapes
/// x […, d] → the same and […, 1].
///
/// # Errors
/// `INTERNAL` where x has no columns.
pub fn layer_norm(x: &Tensor, eps: f64) -> Result<(Tensor, Tensor)> {
    let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
    let scale = (centred.sqr()?.mean_keepdim(D::Minus1)? + eps)?.sqrt()?;
    Ok((centred.broadcast_div(&scale)?, scale))
}

/// As [`layer_norm`], with the mean left in.
///
/// # Shapes
/// x […, d] → the same and […, 1].
///
/// # Errors
/// `INTERNAL` where x has no columns.
pub fn rms_norm(x: &Tensor, eps: f64) -> Result<(Tensor, Tensor)> {
    let scale = (x.sqr()?.mean_keepdim(D::Minus1)? + eps)?.sqrt()?;
    Ok((x.broadcast_div(&scale)?, scale))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{close, matrix, values};

    fn naive(x: &Tensor, eps: f64) -> (Vec<f64>, Vec<f64>) {
        let (rows, d) = x.dims2().unwrap();
        let x = values(x);
        let (mut normalized, mut scales) = (Vec::new(), Vec::new());
        for r in 0..rows {
            let row = &x[r * d..(r + 1) * d];
            let mean = row.iter().sum::<f64>() / d as f64;
            let var = row.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / d as f64;
            let s = (var + eps).sqrt();
            normalized.extend(row.iter().map(|v| (v - mean) / s));
            scales.push(s);
        }
        (normalized, scales)
    }

    fn check(x: &Tensor, eps: f64, tolerance: f64) {
        let (normalized, scale) = layer_norm(x, eps).unwrap();
        let (n, s) = naive(x, eps);
        assert_eq!(scale.dims(), [x.dim(0).unwrap(), 1]);
        close(&normalized, &n, tolerance);
        close(&scale, &s, tolerance);
    }

    #[test]
    fn layer_norm_is_its_definition() {
        for (rows, d) in [(1, 1), (1, 2), (3, 33), (7, 768)] {
            check(&matrix(&[rows, d], 4), 1e-5, 2e-6);
            check(&matrix(&[rows, d], 4), 0.5, 2e-6);
            check(&(matrix(&[rows, d], 4) * 1e4).unwrap(), 1e-5, 2e-6);
            check(&(matrix(&[rows, d], 4) * 1e-4).unwrap(), 1e-5, 2e-6);
        }
    }

    #[test]
    fn rms_norm_by_hand() {
        let x = Tensor::new(&[[3f32, 4.0, 0.0, 0.0], [1.0, -1.0, 1.0, -1.0]], &candle_core::Device::Cpu).unwrap();
        let (normalized, scale) = rms_norm(&x, 2.75).unwrap(); // mean squares 6.25 and 1
        close(&scale, &[3.0, 3.75f64.sqrt()], 1e-6);
        let small = 1.0 / 3.75f64.sqrt();
        close(&normalized, &[1.0, 4.0 / 3.0, 0.0, 0.0, small, -small, small, -small], 1e-6);
    }

    #[test]
    fn a_large_mean_does_not_hurt() {
        check(&(matrix(&[3, 64], 5) + 1000.0).unwrap(), 1e-5, 2e-4);
    }

    #[test]
    fn by_hand() {
        let x = Tensor::new(&[[1f32, 3.0, 5.0, 7.0]], &candle_core::Device::Cpu).unwrap(); // mean 4, variance 5
        let (normalized, scale) = layer_norm(&x, 4.0).unwrap();
        assert_eq!(values(&scale), [3.0]);
        close(&normalized, &[-1.0, -1.0 / 3.0, 1.0 / 3.0, 1.0], 1e-7);
    }
}
