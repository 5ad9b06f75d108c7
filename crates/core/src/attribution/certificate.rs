//! The certificate: `Σ_c attribution(c) + constant = Σ_t w_t logit_t`, checked on every row. It proves that the
//! components add up to what the forward pass computed; it does not prove the forward pass.

use crate::chunk::Row;
use crate::error::{PrismError, Result};
use candle_core::DType;

/// What is done with a row whose sum is beyond its tolerance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnViolation {
    /// The call fails with `INCOMPLETE`.
    Throw,
    /// The result says so.
    Warn,
}

/// Both sides of the equation at one row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Certificate {
    /// `Σ_c attribution(c) + constant`
    pub total: f64,
    /// The same quantity by the forward pass's own final norm and unembedding.
    pub measured: f64,
    /// How far apart the two may be: `1e-5 (1 + A)` with `A = Σ_c |attribution(c)|` over every component, heads one by one;
    /// more where weights are held in a smaller type than f32.
    /// Components can be large and cancel, so an absolute bound would be false.
    pub tolerance: f64,
}

/// How far the two sides may be apart, relative to `1 + A`, where weights are of this type: products with smaller ones are
/// rounded to them.
pub(super) fn relative(weights: DType) -> f64 {
    match weights {
        DType::BF16 => 2.5e-3,
        DType::F16 => 3e-4,
        _ => 1e-5,
    }
}

impl Certificate {
    /// `total − measured`
    pub fn residual(&self) -> f64 {
        self.total - self.measured
    }

    /// Whether the two sides agree. NaN does not.
    pub fn holds(&self) -> bool {
        self.residual().abs() <= self.tolerance
    }
}

/// `Σ_c` and `A = Σ_c |·|` of a row's numbers, in f64.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Sums {
    pub total: f64,
    pub magnitude: f64,
}

impl Sums {
    /// Of these numbers.
    pub fn of<T: Copy + Into<f64>>(numbers: &[T]) -> Self {
        let mut sums = Sums::default();
        sums.add(numbers);
        sums
    }

    /// Adds some numbers.
    pub fn add<T: Copy + Into<f64>>(&mut self, numbers: &[T]) {
        // side by side, or every addition would wait for the one before it
        const SIDE: usize = 16;
        let (mut totals, mut magnitudes) = ([0f64; SIDE], [0f64; SIDE]);
        let (whole, rest) = numbers.as_chunks::<SIDE>();
        for numbers in whole {
            for i in 0..SIDE {
                let number: f64 = numbers[i].into();
                totals[i] += number;
                magnitudes[i] += number.abs();
            }
        }
        for (i, number) in rest.iter().enumerate() {
            let number: f64 = (*number).into();
            totals[i] += number;
            magnitudes[i] += number.abs();
        }
        self.total += totals.iter().sum::<f64>();
        self.magnitude += magnitudes.iter().sum::<f64>();
    }
}

/// The certificates of rows of these sums, by the model's [`relative`] tolerance.
pub(super) fn certify(relative: f64, sums: &[Sums], constant: &[f64], measured: &[f64]) -> Vec<Certificate> {
    let row = |((sums, constant), measured): ((&Sums, &f64), &f64)| Certificate {
        total: sums.total + constant,
        measured: *measured,
        tolerance: relative * (1.0 + sums.magnitude),
    };
    sums.iter().zip(constant).zip(measured).map(row).collect()
}

/// The certificate of two sides that were formed of attributions of this sum of magnitudes, with weights of this type.
pub(crate) fn certify_sums(weights: DType, total: f64, measured: f64, magnitude: f64) -> Certificate {
    Certificate { total, measured, tolerance: relative(weights) * (1.0 + magnitude) }
}

/// That every certificate holds.
///
/// # Errors
/// `INCOMPLETE`, with the first row that does not and the number of such rows.
pub(crate) fn check(certificates: &[Certificate], rows: &[Row]) -> Result<()> {
    let failing = || certificates.iter().zip(rows).filter(|(c, _)| !c.holds());
    match failing().next() {
        None => Ok(()),
        Some((c, row)) => Err(PrismError::Incomplete {
            prompt: row.prompt,
            position: row.position,
            total: c.total,
            measured: c.measured,
            tolerance: c.tolerance,
            rows: failing().count(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(total: f64, measured: f64) -> Certificate {
        Certificate { total, measured, tolerance: 0.5 }
    }

    #[test]
    fn a_certificate_holds_up_to_its_tolerance_on_both_sides() {
        assert_eq!(certificate(3.0, 1.0).residual(), 2.0);
        for (total, measured, holds) in [
            (1.0, 1.0, true),
            (1.5, 1.0, true),
            (0.5, 1.0, true),
            (1.5625, 1.0, false),
            (0.4375, 1.0, false),
            (f64::NAN, 1.0, false),
            (1.0, f64::NAN, false),
            (f64::INFINITY, 1.0, false),
            (f64::INFINITY, f64::INFINITY, false),
        ] {
            assert_eq!(certificate(total, measured).holds(), holds, "{total} and {measured}");
        }
        assert!(!Certificate { tolerance: f64::NAN, ..certificate(1.0, 1.0) }.holds());
    }

    #[test]
    fn tolerance_grows_with_what_cancels() {
        let sums = [[1.5, -2.5], [0.25, 0.25]].map(|row| Sums::of(&row));
        let certificates = certify(relative(DType::F32), &sums, &[3.0, -1.0], &[2.0, 7.0]);
        let expected = [
            Certificate { total: 2.0, measured: 2.0, tolerance: 1e-5 * 5.0 }, // A = 1.5 + 2.5: neither sum nor constant
            Certificate { total: -0.5, measured: 7.0, tolerance: 1e-5 * 1.5 },
        ];
        assert_eq!(certificates, expected);
    }

    #[test]
    fn sums_of_many_numbers() {
        // 1 − 2 + 3 − … : exact in f64, whatever the order
        for n in [0, 1, 15, 16, 17, 100_003u32] {
            let numbers: Vec<f32> = (1..=n).map(|i| if i % 2 == 1 { i as f32 } else { -(i as f32) }).collect();
            let mut sums = Sums { total: 0.5, magnitude: 0.25 };
            sums.add(&numbers);
            let (n, odd) = (f64::from(n), n % 2 == 1);
            let total = if odd { n / 2.0 + 0.5 } else { -n / 2.0 };
            assert_eq!(sums, Sums { total: total + 0.5, magnitude: n * (n + 1.0) / 2.0 + 0.25 });
        }
    }

    #[test]
    fn the_first_failing_row_is_named_and_all_are_counted() {
        let row = |prompt, position| Row { prompt, position };
        let rows = [row(0, 4), row(1, 2), row(1, 3), row(5, 0)];
        let good = certificate(1.0, 1.25);
        check(&[good; 4], &rows).unwrap();
        check(&[], &[]).unwrap();
        let error = check(&[good, certificate(1.0, 2.0), good, certificate(f64::NAN, 1.0)], &rows).unwrap_err();
        let details = serde_json::json!({ "prompt": 1, "position": 2, "total": 1.0, "measured": 2.0, "tolerance": 0.5, "rows": 2 });
        assert_eq!((error.code(), error.details()), ("INCOMPLETE", details));
    }
}
