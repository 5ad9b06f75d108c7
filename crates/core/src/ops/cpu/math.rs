//! Functions of one number that vectorise: no branches, no tables, no library calls. The polynomials are Cephes'
//! (S. Moshier, single precision); errors against f64 are in the tests.

// as they are published; the compiler rounds them
#![allow(clippy::excessive_precision)]

use super::simd::Simd;
use std::f32::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI, LOG2_E};

/// `Σ c_i x^(n−1−i)`, the highest power first.
#[inline(always)]
fn polynomial<S: Simd, const N: usize>(x: f32, coefficients: [f32; N]) -> f32 {
    let mut sum = coefficients[0];
    for c in &coefficients[1..] {
        sum = S::mul_add(sum, x, *c);
    }
    sum
}

/// `e^x` over the whole range: denormal results, 0, infinity and NaN included.
#[inline(always)]
pub(crate) fn exp<S: Simd>(x: f32) -> f32 {
    /// Adding it rounds to a whole number, which then stands in the lowest bits.
    const ROUND: f32 = 12_582_912.0;
    // beyond these the result is infinity or 0 anyway; comparisons let NaN through
    let x = if x > 89.0 { 89.0 } else { x };
    let x = if x < -104.0 { -104.0 } else { x };
    let shifted = S::mul_add(x, LOG2_E, ROUND);
    let n = shifted - ROUND;
    // ln 2 in two parts, the first short enough that its product is exact
    let r = S::mul_add(n, -0.693_359_375, x);
    let r = S::mul_add(n, 2.121_944_4e-4, r);
    let p = polynomial::<S, 6>(r, [1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5]);
    let p = S::mul_add(p, r * r, r) + 1.0;
    // 2^n in two factors: one alone does not reach denormal numbers or 2^128
    let n = (shifted.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32);
    let half = n >> 1;
    p * power_of_two(half) * power_of_two(n.wrapping_sub(half))
}

#[inline(always)]
fn power_of_two(n: i32) -> f32 {
    f32::from_bits((n.wrapping_add(127) as u32) << 23)
}

/// `1 / (1 + e^−x)`
#[inline(always)]
pub(crate) fn sigmoid<S: Simd>(x: f32) -> f32 {
    1.0 / (1.0 + exp::<S>(-x))
}

/// `tanh x`, exact to the last bits near 0 too.
#[inline(always)]
pub(crate) fn tanh<S: Simd>(x: f32) -> f32 {
    let square = x * x;
    let p =
        polynomial::<S, 5>(square, [-5.704_988_7e-3, 2.063_908_9e-2, -5.373_971_6e-2, 1.333_144_2e-1, -3.333_328_2e-1]);
    let small = S::mul_add(p * square, x, x);
    let large = 1.0 - 2.0 / (exp::<S>(2.0 * x.abs()) + 1.0);
    if x.abs() < 0.625 { small } else { large.copysign(x) }
}

/// `Φ(x) = (1 + erf(x / √2)) / 2`, the normal distribution, without cancellation where it is small.
#[inline(always)]
pub(crate) fn normal_cdf<S: Simd>(x: f32) -> f32 {
    let z = x * FRAC_1_SQRT_2;
    let square = 0.5 * x * x;
    let erf = z * polynomial::<S, 7>(
        square,
        [7.853_861e-5, -8.010_194e-4, 5.188_327e-3, -2.685_381e-2, 1.128_358_5e-1, -3.761_262_6e-1, FRAC_2_SQRT_PI],
    );
    let inverse = 1.0 / z.abs();
    let y = inverse * inverse;
    let near = polynomial::<S, 9>(
        y,
        [
            2.326_82e-2,
            -1.387_039_4e-1,
            3.687_424_7e-1,
            -5.824_733e-1,
            6.210_004_6e-1,
            -4.944_515_3e-1,
            3.404_88e-1,
            -2.741_127e-1,
            5.638_259_4e-1,
        ],
    );
    let far = polynomial::<S, 8>(
        y,
        [
            -1.047_766_4e1,
            1.297_72e1,
            -7.495_519,
            2.921_019,
            -1.015_265_3,
            4.218_463_4e-1,
            -2.820_767_4e-1,
            5.641_895e-1,
        ],
    );
    let erfc = exp::<S>(-square) * inverse * if square < 4.0 { near } else { far };
    let tail = 0.5 * erfc;
    let outside = if x < 0.0 { tail } else { 1.0 - tail };
    if square < 1.0 { S::mul_add(0.5, erf, 0.5) } else { outside }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::cpu::simd::{Isa, Kernel};

    /// A function on a slice.
    struct Map<'a, F>(&'a mut [f32], F);

    #[derive(Clone, Copy)]
    enum Function {
        Exp,
        Sigmoid,
        Tanh,
        NormalCdf,
    }

    impl Kernel for Map<'_, Function> {
        type Out = ();
        #[inline(always)]
        fn run<S: Simd>(self) {
            match self.1 {
                Function::Exp => self.0.iter_mut().for_each(|x| *x = exp::<S>(*x)),
                Function::Sigmoid => self.0.iter_mut().for_each(|x| *x = sigmoid::<S>(*x)),
                Function::Tanh => self.0.iter_mut().for_each(|x| *x = tanh::<S>(*x)),
                Function::NormalCdf => self.0.iter_mut().for_each(|x| *x = normal_cdf::<S>(*x)),
            }
        }
    }

    fn apply(isa: Isa, function: Function, x: &[f32]) -> Vec<f32> {
        let mut y = x.to_vec();
        isa.run(Map(&mut y, function));
        y
    }

    /// Every 1009th f32 there is, of both signs: denormal numbers, ±0, infinity and NaN among them.
    fn all() -> Vec<f32> {
        (0..=u32::MAX).step_by(1009).map(f32::from_bits).chain([0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY]).collect()
    }

    /// The distance in units of the last place of the expected number, of the smallest normal one at least.
    fn ulps(found: f32, expected: f64) -> f64 {
        if f64::from(found) == expected || f64::from(found) == f64::from(expected as f32) {
            return 0.0;
        }
        let exponent = expected.abs().max(f64::from(f32::MIN_POSITIVE)).log2().floor();
        (f64::from(found) - expected).abs() / (exponent - 23.0).exp2()
    }

    /// The largest error of a function against its f64 twin; NaN goes to NaN and nothing else does.
    fn worst(function: Function, twin: impl Fn(f64) -> f64, range: std::ops::RangeInclusive<f32>) -> f64 {
        let x: Vec<f32> = all().into_iter().filter(|x| x.is_nan() || range.contains(x)).collect();
        let mut worst = 0f64;
        for isa in Isa::available() {
            for (x, y) in x.iter().zip(apply(isa, function, &x)) {
                assert_eq!(x.is_nan(), y.is_nan(), "{isa:?} {x}");
                if !x.is_nan() {
                    worst = worst.max(ulps(y, twin(f64::from(*x))));
                }
            }
        }
        worst
    }

    #[test]
    fn exponential_and_what_is_made_of_it_over_all_numbers() {
        let everything = f32::NEG_INFINITY..=f32::INFINITY;
        let error = worst(Function::Exp, f64::exp, everything.clone());
        assert!(error < 1.5, "exp: {error}");
        let error = worst(Function::Sigmoid, |x| 1.0 / (1.0 + (-x).exp()), -87.0..=f32::INFINITY);
        assert!(error < 3.0, "sigmoid: {error}");
        let below: Vec<f32> = all().into_iter().filter(|x| *x < -87.0).collect();
        assert!(apply(Isa::best(), Function::Sigmoid, &below).iter().all(|y| (0.0..1e-37).contains(y)));
        let error = worst(Function::Tanh, f64::tanh, everything);
        assert!(error < 2.5, "tanh: {error}");
    }

    /// `Φ(x)` in f64: the series of erf, and its continued fraction far out.
    fn phi(x: f64) -> f64 {
        let z = x.abs() / 2f64.sqrt();
        let tail = if z < 2.0 {
            let mut term = z;
            let mut sum = z;
            for n in 1..80 {
                term *= -z * z / f64::from(n);
                sum += term / f64::from(2 * n + 1);
            }
            0.5 - sum / std::f64::consts::PI.sqrt()
        } else {
            let fraction = (1..200).rev().fold(0.0, |below, n| f64::from(n) / 2.0 / (z + below));
            0.5 * (-z * z).exp() / std::f64::consts::PI.sqrt() / (z + fraction)
        };
        if x < 0.0 { tail } else { 1.0 - tail }
    }

    #[test]
    fn the_normal_distribution() {
        assert!((phi(1.0) - 0.841_344_746_068_542_9).abs() < 1e-15); // Python: (1 + math.erf(1/√2)) / 2
        assert!((phi(-3.5) / 2.326_290_790_355_252_4e-4 - 1.0).abs() < 1e-12); // math.erfc(3.5/√2) / 2
        let error = worst(Function::NormalCdf, phi, -1.0..=f32::INFINITY);
        assert!(error < 4.0, "{error}");
        // far out e^(−z²) is as coarse as z² is in f32
        let error = worst(Function::NormalCdf, phi, -12.0..=-1.0);
        assert!(error < 150.0, "{error}");
        let far = apply(Isa::best(), Function::NormalCdf, &[-20.0, f32::NEG_INFINITY, f32::MIN, f32::INFINITY]);
        assert_eq!(far, [0.0, 0.0, 0.0, 1.0]);
    }
}
