//! Rotary positions (Su et al. 2021): pairs of numbers of a head turn by an angle that grows with the position.
//!
//! ```text
//! f_i = θ^(−2i/dim)                        angle per position, changed by a scaling for long contexts
//! (x, y) ← (x cos pf − y sin pf, y cos pf + x sin pf)      at position p, for every pair
//! ```
//!
//! Angles are taken in f32, as transformers does: at large positions another precision would be another model.

use super::Kernels;
use super::cpu::Isa;
use super::cpu::parallel::split;
use super::cpu::simd::{Kernel, Simd};
use super::cpu::tensor::{Fresh, Rows};
use crate::config::{Rotary, RotaryScaling, RotaryStyle};
use crate::error::Result;
use candle_core::{Device, Tensor};
use std::f64::consts::PI;
use std::ops::Range;

/// Angles per position, [dim / 2], for a prompt of `length` tokens, and what cos and sin are multiplied with.
pub fn frequencies(rotary: &Rotary, length: usize) -> (Vec<f32>, f64) {
    let n = rotary.dim;
    let power = |theta: f64, i: usize| theta.powf(-((2 * i) as f64) / n as f64);
    let plain = |i: usize| power(rotary.theta, i);
    let all = |f: &dyn Fn(usize) -> f64| (0..n / 2).map(|i| f(i) as f32).collect();
    match &rotary.scaling {
        RotaryScaling::Default => (all(&plain), 1.0),
        RotaryScaling::Linear { factor } => (all(&|i| plain(i) / factor), 1.0),
        RotaryScaling::Dynamic { factor, original } => {
            let stretch = factor * length.max(*original) as f64 / *original as f64 - (factor - 1.0);
            let theta = rotary.theta * stretch.powf(n as f64 / (n as f64 - 2.0));
            (all(&|i| power(theta, i)), 1.0)
        }
        RotaryScaling::Llama3 { factor, low, high, original } => {
            let original = *original as f64;
            let scaled = |i| {
                let f = plain(i);
                let wave = 2.0 * PI / f;
                if wave < original / high {
                    return f;
                }
                if wave > original / low {
                    return f / factor;
                }
                let smooth = (original / wave - low) / (high - low);
                (1.0 - smooth) * f / factor + smooth * f
            };
            (all(&scaled), 1.0)
        }
        RotaryScaling::Yarn { factor, beta_fast, beta_slow, truncate, original, attention_factor } => {
            let index = |rotations: f64| {
                n as f64 * (*original as f64 / (rotations * 2.0 * PI)).ln() / (2.0 * rotary.theta.ln())
            };
            let (mut low, mut high) = (index(*beta_fast), index(*beta_slow));
            if *truncate {
                (low, high) = (low.floor(), high.ceil());
            }
            (low, high) = (low.max(0.0), high.min(n as f64 - 1.0));
            if low == high {
                high += 0.001;
            }
            let scaled = |i| {
                let ramp = ((i as f64 - low) / (high - low)).clamp(0.0, 1.0);
                plain(i) / factor * ramp + plain(i) * (1.0 - ramp)
            };
            (all(&scaled), *attention_factor)
        }
        RotaryScaling::LongRope { short, long, original, attention_factor } => {
            let factors = if length > *original { long } else { short };
            (all(&|i| plain(i) / factors[i]), *attention_factor)
        }
    }
}

/// cos and sin at some positions of a prompt.
#[derive(Clone)]
pub struct Angles {
    cos: Tensor,
    sin: Tensor,
}

impl Angles {
    /// Of consecutive positions of a prompt of `length` tokens: [pos, 1, dim / 2] each.
    ///
    /// # Errors
    /// `INTERNAL`.
    pub fn new(rotary: &Rotary, positions: Range<usize>, length: usize, device: &Device) -> Result<Self> {
        let (frequencies, factor) = frequencies(rotary, length);
        let angles = || positions.clone().flat_map(|p| frequencies.iter().map(move |f| p as f32 * f));
        let table = |of: fn(f64) -> f64| {
            let values: Vec<f32> = angles().map(|a| (of(f64::from(a)) * factor) as f32).collect();
            Tensor::from_vec(values, (positions.len(), 1, frequencies.len()), device)
        };
        Ok(Angles { cos: table(f64::cos)?, sin: table(f64::sin)? })
    }

    /// Those of several prompts, one behind the other.
    ///
    /// # Errors
    /// `INTERNAL` where there are none.
    pub fn cat(all: &[Angles]) -> Result<Self> {
        let part = |of: fn(&Angles) -> &Tensor| Tensor::cat(&all.iter().map(of).collect::<Vec<_>>(), 0);
        Ok(Angles { cos: part(|a| &a.cos)?, sin: part(|a| &a.sin)? })
    }

    /// Those of the first rows.
    ///
    /// # Errors
    /// `INTERNAL` where there are fewer.
    pub fn first(&self, rows: usize) -> Result<Self> {
        Ok(Angles { cos: self.cos.narrow(0, 0, rows)?, sin: self.sin.narrow(0, 0, rows)? })
    }

    /// Those of some rows.
    ///
    /// # Errors
    /// `INTERNAL` where there is no such row.
    pub fn of_rows(&self, rows: &Tensor) -> Result<Self> {
        Ok(Angles { cos: self.cos.index_select(rows, 0)?, sin: self.sin.index_select(rows, 0)? })
    }
}

/// Turns the first `2 · angles` numbers of every head.
///
/// # Shapes
/// x [rows, heads, d_head] → the same.
///
/// # Errors
/// `INTERNAL` where shapes do not fit.
pub fn rotate(kernels: Kernels, x: &Tensor, angles: &Angles, style: RotaryStyle) -> Result<Tensor> {
    match kernels {
        Kernels::Plain => plain(x, angles, style),
        Kernels::Fused(isa) => fused(isa, x, angles, style),
    }
}

fn plain(x: &Tensor, angles: &Angles, style: RotaryStyle) -> Result<Tensor> {
    let (rows, heads, d_head) = x.dims3()?;
    let half = angles.cos.dim(2)?;
    let turning = x.narrow(2, 0, 2 * half)?;
    let (a, b) = match style {
        RotaryStyle::Halves => (turning.narrow(2, 0, half)?, turning.narrow(2, half, half)?),
        RotaryStyle::Pairs => {
            let pairs = turning.contiguous()?.reshape((rows, heads, half, 2))?;
            (pairs.narrow(3, 0, 1)?.squeeze(3)?, pairs.narrow(3, 1, 1)?.squeeze(3)?)
        }
    };
    let turned_a = (a.broadcast_mul(&angles.cos)? - b.broadcast_mul(&angles.sin)?)?;
    let turned_b = (b.broadcast_mul(&angles.cos)? + a.broadcast_mul(&angles.sin)?)?;
    let turned = match style {
        RotaryStyle::Halves => Tensor::cat(&[turned_a, turned_b], 2)?,
        RotaryStyle::Pairs => Tensor::stack(&[turned_a, turned_b], 3)?.reshape((rows, heads, 2 * half))?,
    };
    let rest = d_head - 2 * half;
    if rest == 0 {
        return Ok(turned);
    }
    Ok(Tensor::cat(&[turned, x.narrow(2, 2 * half, rest)?], 2)?)
}

fn fused(isa: Isa, x: &Tensor, angles: &Angles, style: RotaryStyle) -> Result<Tensor> {
    let (rows, heads, d_head) = x.dims3()?;
    let half = angles.cos.dim(2)?;
    if angles.cos.dim(0)? != rows || 2 * half > d_head {
        return plain(x, angles, style); // which says what does not fit
    }
    let (x, cos, sin) = (Rows::of(x)?, Rows::of(&angles.cos)?, Rows::of(&angles.sin)?);
    let (numbers, cos, sin) = (x.numbers()?, cos.numbers()?, sin.numbers()?);
    let mut y = Fresh::new((rows, heads, d_head));
    let place = y.place();
    split(rows, 16, 1, &|part| {
        for row in part {
            let (cos, sin) = (&cos[row * half..][..half], &sin[row * half..][..half]);
            for head in 0..heads {
                let at = row * x.stride + head * d_head;
                let y = place.at((row * heads + head) * d_head);
                isa.run(Turn { x: &numbers[at..][..d_head], cos, sin, style, y });
            }
        }
    });
    // SAFETY: head by head
    unsafe { y.written() }
}

/// One head at one position; y has as many numbers as x.
struct Turn<'a> {
    x: &'a [f32],
    cos: &'a [f32],
    sin: &'a [f32],
    style: RotaryStyle,
    y: *mut f32,
}

impl Kernel for Turn<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self) {
        let half = self.cos.len();
        let turned = |a: f32, b: f32, cos: f32, sin: f32| (a * cos - b * sin, b * cos + a * sin);
        let put = |i: usize, y: f32| {
            // SAFETY: i is below the number of x
            unsafe { self.y.add(i).write(y) }
        };
        let (turning, rest) = self.x.split_at(2 * half);
        match self.style {
            RotaryStyle::Halves => {
                let (a, b) = turning.split_at(half);
                for i in 0..half {
                    let (a, b) = turned(a[i], b[i], self.cos[i], self.sin[i]);
                    put(i, a);
                    put(half + i, b);
                }
            }
            RotaryStyle::Pairs => {
                for (i, pair) in turning.chunks_exact(2).enumerate() {
                    let (a, b) = turned(pair[0], pair[1], self.cos[i], self.sin[i]);
                    put(2 * i, a);
                    put(2 * i + 1, b);
                }
            }
        }
        rest.iter().enumerate().for_each(|(i, x)| put(2 * half + i, *x));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{close, device, matrix, test_device, values};

    fn rotary(dim: usize, style: RotaryStyle, scaling: RotaryScaling) -> Rotary {
        Rotary { dim, theta: 10000.0, style, scaling }
    }

    /// Every pair as a complex number, times `exp(i p f)`.
    fn naive(x: &Tensor, dim: usize, style: RotaryStyle, start: usize) -> Vec<f64> {
        let (rows, heads, d_head) = x.dims3().unwrap();
        let mut out = values(x);
        for row in 0..rows {
            for head in 0..heads {
                for i in 0..dim / 2 {
                    let at = (row * heads + head) * d_head;
                    let (a, b) = match style {
                        RotaryStyle::Halves => (at + i, at + i + dim / 2),
                        RotaryStyle::Pairs => (at + 2 * i, at + 2 * i + 1),
                    };
                    let angle = (start + row) as f64 * 10000f64.powf(-2.0 * i as f64 / dim as f64);
                    let (x, y) = (out[a], out[b]);
                    (out[a], out[b]) = (x * angle.cos() - y * angle.sin(), x * angle.sin() + y * angle.cos());
                }
            }
        }
        out
    }

    test_device!(rotation_is_its_definition);
    fn rotation_is_its_definition() {
        for (d_head, dim, start) in [(2, 2, 0), (8, 8, 3), (12, 4, 5), (6, 2, 0)] {
            for style in [RotaryStyle::Halves, RotaryStyle::Pairs] {
                // rows lie apart, as queries do beside keys
                let x = matrix(&[5, 7, d_head], 9).narrow(1, 2, 3).unwrap();
                let angles =
                    Angles::new(&rotary(dim, style, RotaryScaling::Default), start..start + 5, start + 5, &device())
                        .unwrap();
                for kernels in Kernels::all() {
                    close(&rotate(kernels, &x, &angles, style).unwrap(), &naive(&x, dim, style, start), 1e-5);
                }
            }
        }
    }

    /// Frequencies by hand: θ = 10000, dim 4, so the plain ones are 1 and 0.01.
    fn check(scaling: RotaryScaling, length: usize, expected: [f64; 2], factor: f64) {
        let (found, attention) = frequencies(&rotary(4, RotaryStyle::Halves, scaling), length);
        for (f, e) in found.iter().zip(expected) {
            assert!((f64::from(*f) - e).abs() <= 1e-6 * e, "{f} is not {e}");
        }
        assert_eq!(attention, factor);
    }

    #[test]
    fn scalings_by_hand() {
        check(RotaryScaling::Default, 7, [1.0, 0.01], 1.0);
        check(RotaryScaling::Linear { factor: 4.0 }, 7, [0.25, 0.0025], 1.0);
        let dynamic = || RotaryScaling::Dynamic { factor: 2.0, original: 10 };
        check(dynamic(), 10, [1.0, 0.01], 1.0); // within the original length nothing changes
        // 20 tokens: 2·20/10 − 1 = 3; θ′ = 10000·3^(4/2) = 90000; f_1 = 90000^−½ = 1/300
        check(dynamic(), 20, [1.0, 1.0 / 300.0], 1.0);
        let llama3 = |original| RotaryScaling::Llama3 { factor: 8.0, low: 1.0, high: 4.0, original };
        // waves of 2π ≈ 6.28 and 628.3 tokens: fast below original/4, slow above original
        check(llama3(100), 7, [1.0, 0.01 / 8.0], 1.0);
        // original 1257: smooth = (1257 / 628.3185 − 1) / 3 = 0.333526, f = 0.666474 · 0.00125 + 0.333526 · 0.01
        check(llama3(1257), 7, [1.0, 0.004_168_352], 1.0);
        // low 2: waves above 1000 / 2 are slow
        let twice = RotaryScaling::Llama3 { factor: 8.0, low: 2.0, high: 4.0, original: 1000 };
        check(twice, 7, [1.0, 0.01 / 8.0], 1.0);
        let longrope = || RotaryScaling::LongRope {
            short: vec![1.0, 2.0],
            long: vec![4.0, 5.0],
            original: 10,
            attention_factor: 1.5,
        };
        check(longrope(), 10, [1.0, 0.005], 1.5);
        check(longrope(), 11, [0.25, 0.002], 1.5);
    }

    #[test]
    fn yarn_by_hand() {
        // dim 4, ln θ = 9.2103, original 1000: index(β) = 4 ln(1000/(2πβ)) / 18.4207
        // β 32: 0.348 → floor 0; β 1: 1.101 → ceil 2; ramps (0, 0.5): 1 and 0.5·0.01/4 + 0.5·0.01
        let yarn = |truncate| RotaryScaling::Yarn {
            factor: 4.0,
            beta_fast: 32.0,
            beta_slow: 1.0,
            truncate,
            original: 1000,
            attention_factor: 1.25,
        };
        check(yarn(true), 7, [1.0, 0.00625], 1.25);
        // a ramp that would end beyond the last index ends there: indices 0.10 → 0 and 3.10 → 4 → 3, so ramp 1/3
        let wide = RotaryScaling::Yarn {
            factor: 4.0,
            beta_fast: 1e6,
            beta_slow: 1.0,
            truncate: true,
            original: 10_000_000,
            attention_factor: 1.0,
        };
        check(wide, 7, [1.0, 0.01 / 4.0 / 3.0 + 0.01 * 2.0 / 3.0], 1.0);
        // a ramp of no length is a step: both ends at index 0.601, so f_0 stays and f_1 is divided
        let step = RotaryScaling::Yarn {
            factor: 4.0,
            beta_fast: 10.0,
            beta_slow: 10.0,
            truncate: false,
            original: 1000,
            attention_factor: 1.0,
        };
        check(step, 7, [1.0, 0.0025], 1.0);
        // without truncation: ramp of 1 = (1 − 0.348335) / (1.100910 − 0.348335) = 0.8659136
        let (found, _) = frequencies(&rotary(4, RotaryStyle::Halves, yarn(false)), 7);
        assert!((f64::from(found[1]) - (0.0025 * 0.865_913_6 + 0.01 * 0.134_086_4)).abs() < 1e-8, "{}", found[1]);
        assert_eq!(found[0], 1.0);
    }
}
