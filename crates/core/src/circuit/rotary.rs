//! Rotary positions between queries and keys: a query at position p and a key at position p − δ score
//! `q T(p) T(p − δ)ᵀ kᵀ = q T(δ) kᵀ`, where T turns pairs of numbers. Only the offset δ is left.

use crate::config::{Rotary, RotaryScaling, RotaryStyle};
use crate::ops::frequencies;
use nalgebra::DMatrix;
use std::ops::RangeInclusive;

/// The mean of `T(δ)` over some offsets, [d_head, d_head], for a prompt of `length` tokens. Numbers that do not turn stay;
/// those that do carry the square of what the scaling multiplies cos and sin with.
pub fn turn(rotary: &Rotary, d_head: usize, offsets: RangeInclusive<usize>, length: usize) -> DMatrix<f64> {
    let (frequencies, factor) = frequencies(rotary, length);
    let n = (offsets.end() - offsets.start() + 1) as f64;
    let mut turn = DMatrix::identity(d_head, d_head);
    for (i, frequency) in frequencies.iter().enumerate() {
        let mean = |of: fn(f64) -> f64| {
            let sum: f64 = offsets.clone().map(|offset| of(offset as f64 * f64::from(*frequency))).sum();
            factor * factor * sum / n
        };
        let (cos, sin) = (mean(f64::cos), mean(f64::sin));
        let (x, y) = match rotary.style {
            RotaryStyle::Halves => (i, i + rotary.dim / 2),
            RotaryStyle::Pairs => (2 * i, 2 * i + 1),
        };
        (turn[(x, x)], turn[(x, y)]) = (cos, sin);
        (turn[(y, x)], turn[(y, y)]) = (-sin, cos);
    }
    turn
}

/// The length up to which a scaling's angles are those of its training; `None` where they are the same at every length.
pub fn original_length(rotary: &Rotary) -> Option<usize> {
    match rotary.scaling {
        RotaryScaling::Dynamic { original, .. } | RotaryScaling::LongRope { original, .. } => Some(original),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{matrix, values};
    use crate::ops::{Angles, rotate};
    use candle_core::{Device, Tensor};

    /// Rows turned by the forward pass' own kernel, one position each.
    fn turned(x: &Tensor, rotary: &Rotary, from: usize, length: usize) -> Vec<f64> {
        let n = x.dim(0).unwrap();
        let angles = Angles::new(rotary, from..length, length, &Device::Cpu).unwrap();
        assert_eq!(n, length - from);
        values(&rotate(crate::ops::Kernels::Plain, x, &angles, rotary.style).unwrap())
    }

    #[test]
    fn a_score_of_turned_queries_and_keys_depends_on_the_offset_as_said() {
        let (e, length) = (8, 12);
        let scalings = || {
            [
                RotaryScaling::Default,
                RotaryScaling::Dynamic { factor: 2.0, original: 10 },
                RotaryScaling::LongRope {
                    short: vec![1.0, 2.0, 1.5],
                    long: vec![4.0, 5.0, 1.0],
                    original: 10,
                    attention_factor: 1.5,
                },
            ]
        };
        for style in [RotaryStyle::Halves, RotaryStyle::Pairs] {
            for scaling in scalings() {
                let rotary = Rotary { dim: 6, theta: 100.0, style, scaling };
                let (q, k) = (matrix(&[length, 1, e], 1), matrix(&[length, 1, e], 2));
                let (turned_q, turned_k) = (turned(&q, &rotary, 0, length), turned(&k, &rotary, 0, length));
                let (q, k) = (values(&q), values(&k));
                for (query, key) in [(11, 11), (11, 4), (7, 6)] {
                    let of = |x: &[f64], p: usize| DMatrix::from_row_slice(1, e, &x[p * e..(p + 1) * e]);
                    let expected = of(&turned_q, query).dot(&of(&turned_k, key));
                    let offset = query - key;
                    let found = of(&q, query) * turn(&rotary, e, offset..=offset, length) * of(&k, key).transpose();
                    assert!((found[0] - expected).abs() < 1e-5 * (1.0 + expected.abs()), "{found} and {expected}");
                }
            }
        }
    }

    #[test]
    fn a_mean_over_offsets_by_hand() {
        // one pair at frequency 1 over offsets 0, 1, 2: cos 1, 0.5403, −0.4161; sin 0, 0.8415, 0.9093
        let rotary = Rotary { dim: 2, theta: 10000.0, style: RotaryStyle::Halves, scaling: RotaryScaling::Default };
        let found = turn(&rotary, 3, 0..=2, 1);
        let (c, s) = (0.374_718_49, 0.583_589_47);
        let expected = DMatrix::from_row_slice(3, 3, &[c, s, 0.0, -s, c, 0.0, 0.0, 0.0, 1.0]);
        assert!((found - expected).amax() < 1e-7);
    }
}
