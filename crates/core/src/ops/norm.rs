//! Norms: `y = γ ⊙ n + β` of the normalised rows n, layer norm `n = (x − mean(x)) / s` with `s = sqrt(var(x) + ε)`, or RMS
//! norm `n = x / s` with `s = sqrt(mean(x²) + ε)`.

use super::Kernels;
use super::cpu::Isa;
use super::cpu::parallel::split;
use super::cpu::simd::{Kernel, Simd};
use super::cpu::tensor::{Fresh, Rows};
use crate::config::{Norm, NormKind};
use crate::error::Result;
use candle_core::{D, Tensor};

/// What a norm makes of some rows.
pub struct Normed {
    /// With gain and bias, as x.
    pub y: Tensor,
    /// Without them, as x; only if it was to be kept.
    pub normalized: Option<Tensor>,
    /// s, […, 1]
    pub scale: Tensor,
}

/// Normalises every row. Two passes: the variance is taken of `x − mean(x)`, so a large mean costs no precision.
///
/// # Shapes
/// x […, d]; γ and β: the last axes of x.
///
/// # Errors
/// `INTERNAL` where shapes do not fit.
pub fn norm(
    kernels: Kernels,
    x: &Tensor,
    norm: Norm,
    [gamma, beta]: [Option<&Tensor>; 2],
    keep: bool,
) -> Result<Normed> {
    match kernels {
        Kernels::Plain => plain(x, norm, [gamma, beta], keep),
        Kernels::Fused(isa) => fused(isa, x, norm, [gamma, beta], keep),
    }
}

fn plain(x: &Tensor, norm: Norm, [gamma, beta]: [Option<&Tensor>; 2], keep: bool) -> Result<Normed> {
    let centred = match norm.kind {
        NormKind::LayerNorm => x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?,
        NormKind::RmsNorm => x.clone(),
    };
    let scale = (centred.sqr()?.mean_keepdim(D::Minus1)? + norm.eps)?.sqrt()?;
    let normalized = centred.broadcast_div(&scale)?;
    let y = gain_and_bias(&normalized, [gamma, beta])?;
    Ok(Normed { y, normalized: keep.then_some(normalized), scale })
}

/// `γ ⊙ n + β`
///
/// # Errors
/// `INTERNAL` where shapes do not fit.
pub fn gain_and_bias(normalized: &Tensor, [gamma, beta]: [Option<&Tensor>; 2]) -> Result<Tensor> {
    let y = gamma.map_or_else(|| Ok(normalized.clone()), |gamma| normalized.broadcast_mul(gamma))?;
    Ok(beta.map_or_else(|| Ok(y.clone()), |beta| y.broadcast_add(beta))?)
}

fn fused(isa: Isa, x: &Tensor, norm: Norm, [gamma, beta]: [Option<&Tensor>; 2], keep: bool) -> Result<Normed> {
    let d = x.dim(D::Minus1)?;
    let fits = |part: &Tensor| x.dims().ends_with(part.dims()) && part.rank() > 0;
    if d == 0 || x.rank() < 2 || !gamma.into_iter().chain(beta).all(fits) {
        return plain(x, norm, [gamma, beta], keep); // which says what does not fit
    }
    let rows = Rows::of(&x.contiguous()?.flatten_to(D::Minus2)?)?;
    let numbers = rows.numbers()?;
    let flat = |part: Option<&Tensor>| part.map(|part| Rows::of(&part.flatten_all()?)).transpose();
    let (gamma, beta) = (flat(gamma)?, flat(beta)?);
    let gamma = gamma.as_ref().map(Rows::numbers).transpose()?;
    let beta = beta.as_ref().map(Rows::numbers).transpose()?;

    let mut scale_shape = x.dims().to_vec();
    scale_shape[x.rank() - 1] = 1;
    let (mut y, mut scale) = (Fresh::new(x.shape()), Fresh::new(scale_shape));
    let mut normalized = keep.then(|| Fresh::new(x.shape()));
    let places = (y.place(), scale.place(), normalized.as_mut().map(Fresh::place));
    split(rows.n, 16, 1, &|part| {
        for row in part {
            let at = row * d;
            isa.run(Row {
                x: &numbers[at..at + d],
                norm,
                gamma: gamma.as_ref().map(|gamma| &gamma[at % gamma.len()..][..d]),
                beta: beta.as_ref().map(|beta| &beta[at % beta.len()..][..d]),
                y: places.0.at(at),
                scale: places.1.at(row),
                normalized: places.2.map(|place| place.at(at)),
            });
        }
    });
    // SAFETY: row by row
    unsafe {
        Ok(Normed {
            y: y.written()?,
            normalized: normalized.map(|n| n.written()).transpose()?,
            scale: scale.written()?,
        })
    }
}

/// One row; what is written has as many numbers, the scale one.
struct Row<'a> {
    x: &'a [f32],
    norm: Norm,
    gamma: Option<&'a [f32]>,
    beta: Option<&'a [f32]>,
    y: *mut f32,
    scale: *mut f32,
    normalized: Option<*mut f32>,
}

impl Kernel for Row<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self) {
        let n = self.x.len() as f32;
        let mean = match self.norm.kind {
            NormKind::LayerNorm => sum(self.x, |x| x) / n,
            NormKind::RmsNorm => 0.0,
        };
        let variance = sum(self.x, |x| (x - mean) * (x - mean)) / n;
        let scale = (variance + self.norm.eps as f32).sqrt();
        let inverse = 1.0 / scale;
        // a multiplication and an addition, each rounded, so that rows that are kept give the same numbers
        let normal = |x: f32| (x - mean) * inverse;
        // SAFETY: as many numbers as x has
        unsafe {
            self.scale.write(scale);
            if let Some(normalized) = self.normalized {
                self.x.iter().enumerate().for_each(|(i, x)| normalized.add(i).write(normal(*x)));
            }
            match (self.gamma, self.beta) {
                (Some(gamma), Some(beta)) => {
                    for (i, ((x, gamma), beta)) in self.x.iter().zip(gamma).zip(beta).enumerate() {
                        self.y.add(i).write(normal(*x) * gamma + beta);
                    }
                }
                (Some(gamma), None) => {
                    self.x.iter().zip(gamma).enumerate().for_each(|(i, (x, g))| self.y.add(i).write(normal(*x) * g));
                }
                (None, Some(beta)) => {
                    self.x.iter().zip(beta).enumerate().for_each(|(i, (x, b))| self.y.add(i).write(normal(*x) + b));
                }
                (None, None) => self.x.iter().enumerate().for_each(|(i, x)| self.y.add(i).write(normal(*x))),
            }
        }
    }
}

/// `Σ f(x)` in 32 partial sums, which fill the vectors of any machine and keep rounding small.
#[inline(always)]
fn sum(x: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    const LANES: usize = 32;
    let mut sums = [0f32; LANES];
    let blocks = x.chunks_exact(LANES);
    let rest: f32 = blocks.remainder().iter().map(|x| f(*x)).sum();
    for block in blocks {
        for (sum, x) in sums.iter_mut().zip(block) {
            *sum += f(*x);
        }
    }
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            sums[i] += sums[i + width];
        }
        width /= 2;
    }
    sums[0] + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Gain;
    use crate::ops::testing::{close, device, matrix, test_device, values};

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

    fn of(kind: NormKind, eps: f64) -> Norm {
        Norm { kind, eps, gain: Gain::Weight, bias: true }
    }

    fn check(x: &Tensor, eps: f64, tolerance: f64) {
        let (n, s) = naive(x, eps);
        for kernels in Kernels::all() {
            let normed = norm(kernels, x, of(NormKind::LayerNorm, eps), [None, None], true).unwrap();
            assert_eq!(normed.scale.dims(), [x.dim(0).unwrap(), 1]);
            close(&normed.normalized.unwrap(), &n, tolerance);
            close(&normed.y, &n, tolerance);
            close(&normed.scale, &s, tolerance);
        }
    }

    test_device!(gain_and_bias_with_and_without_keeping_what_they_are_applied_to);
    fn gain_and_bias_with_and_without_keeping_what_they_are_applied_to() {
        let x = matrix(&[3, 2, 37], 1);
        for kind in [NormKind::LayerNorm, NormKind::RmsNorm] {
            for shape in [vec![37], vec![2, 37]] {
                let (gamma, beta) = (matrix(&shape, 2), matrix(&shape, 3));
                for parts in [[None, None], [Some(&gamma), None], [None, Some(&beta)], [Some(&gamma), Some(&beta)]] {
                    let run = |kernels, keep| norm(kernels, &x, of(kind, 1e-5), parts, keep).unwrap();
                    let expected = run(Kernels::Plain, true);
                    for kernels in Kernels::all() {
                        let (seen, unseen) = (run(kernels, true), run(kernels, false));
                        close(&seen.y, &values(&expected.y), 2e-6);
                        close(&seen.scale, &values(&expected.scale), 2e-6);
                        assert_eq!(seen.scale.dims(), [3, 2, 1]);
                        assert!(unseen.normalized.is_none());
                        assert_eq!(values(&seen.y), values(&unseen.y));
                        // what a tap hands on may go through gain and bias later: the same numbers
                        let later = gain_and_bias(&seen.normalized.unwrap(), parts).unwrap();
                        assert_eq!(values(&later), values(&seen.y));
                    }
                }
            }
        }
        let short = matrix(&[36], 2);
        for kernels in Kernels::all() {
            assert!(norm(kernels, &x, of(NormKind::LayerNorm, 1e-5), [Some(&short), None], false).is_err());
        }
    }

    test_device!(layer_norm_is_its_definition);
    fn layer_norm_is_its_definition() {
        for (rows, d) in [(1, 1), (1, 2), (3, 33), (7, 768)] {
            check(&matrix(&[rows, d], 4), 1e-5, 2e-6);
            check(&matrix(&[rows, d], 4), 0.5, 2e-6);
            check(&(matrix(&[rows, d], 4) * 1e4).unwrap(), 1e-5, 2e-6);
            check(&(matrix(&[rows, d], 4) * 1e-4).unwrap(), 1e-5, 2e-6);
        }
    }

    test_device!(rms_norm_by_hand);
    fn rms_norm_by_hand() {
        let x = Tensor::new(&[[3f32, 4.0, 0.0, 0.0], [1.0, -1.0, 1.0, -1.0]], &device()).unwrap();
        for kernels in Kernels::all() {
            // mean squares 6.25 and 1
            let normed = norm(kernels, &x, of(NormKind::RmsNorm, 2.75), [None, None], false).unwrap();
            close(&normed.scale, &[3.0, 3.75f64.sqrt()], 1e-6);
            let small = 1.0 / 3.75f64.sqrt();
            close(&normed.y, &[1.0, 4.0 / 3.0, 0.0, 0.0, small, -small, small, -small], 1e-6);
        }
    }

    test_device!(a_large_mean_does_not_hurt);
    fn a_large_mean_does_not_hurt() {
        check(&(matrix(&[3, 64], 5) + 1000.0).unwrap(), 1e-5, 2e-4);
    }

    test_device!(by_hand);
    fn by_hand() {
        let x = Tensor::new(&[[1f32, 3.0, 5.0, 7.0]], &device()).unwrap(); // mean 4, variance 5
        for kernels in Kernels::all() {
            let normed = norm(kernels, &x, of(NormKind::LayerNorm, 4.0), [None, None], false).unwrap();
            assert_eq!(values(&normed.scale), [3.0]);
            close(&normed.y, &[-1.0, -1.0 / 3.0, 1.0 / 3.0, 1.0], 1e-7);
        }
    }
}
