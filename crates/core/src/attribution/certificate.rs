//! The certificate: `Σ_c attribution(c) + constant = Σ_t w_t logit_t`, checked on every row. It proves that the
//! components add up to what the forward pass computed; it does not prove the forward pass.

use super::Row;
use crate::error::{PrismError, Result};

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
    /// How far apart the two may be: `1e-5 (1 + A)` with `A = Σ_c |attribution(c)|` over heads, biases and MLPs.
    /// Components can be large and cancel, so an absolute bound would be false.
    pub tolerance: f64,
}

/// Of the f32 forward pass: `attribution.md` gives the same for every CPU model.
const RELATIVE: f64 = 1e-5;

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

/// The certificates of rows of `n` components each.
pub(super) fn certify(values: &[f64], n: usize, constant: &[f64], measured: &[f64]) -> Vec<Certificate> {
    let row = |((values, constant), measured): ((&[f64], &f64), &f64)| Certificate {
        total: values.iter().sum::<f64>() + constant,
        measured: *measured,
        tolerance: RELATIVE * (1.0 + values.iter().map(|v| v.abs()).sum::<f64>()),
    };
    values.chunks_exact(n).zip(constant).zip(measured).map(row).collect()
}

/// That every certificate holds.
///
/// # Errors
/// `INCOMPLETE`, with the first row that does not and the number of such rows.
pub(super) fn check(certificates: &[Certificate], rows: &[Row]) -> Result<()> {
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
