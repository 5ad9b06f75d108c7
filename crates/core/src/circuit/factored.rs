//! A matrix of low rank as the product of its factors, `M = A B`. Everything about it is read from matrices of the
//! inner width: `A = Q_a R_a`, `Bᵀ = Q_b R_b`, so `M = Q_a (R_a R_bᵀ) Q_bᵀ`, and the eigenvalues of `A B` other than 0 are
//! those of `B A`. All in f64.

use crate::error::{PrismError, Result};
use nalgebra::linalg::Schur;
use nalgebra::{Complex, DMatrix, DVector};

/// `M = A B`: A [rows, inner], B [inner, columns].
#[derive(Debug, Clone, PartialEq)]
pub struct Factored {
    /// [rows, inner]
    pub a: DMatrix<f64>,
    /// [inner, columns]
    pub b: DMatrix<f64>,
}

/// Some singular values with their vectors.
#[derive(Debug, Clone, PartialEq)]
pub struct SingularVectors {
    /// Largest first, [k]
    pub values: Vec<f64>,
    /// What M reads: one row each, [k, rows of M], of length 1.
    pub left: DMatrix<f64>,
    /// What M writes for it, [k, columns of M], of length 1: `left[i] M = values[i] right[i]`.
    pub right: DMatrix<f64>,
}

/// Steps of the iteration after which it is given up; it takes about two per value.
const STEPS_PER_VALUE: usize = 100;

impl Factored {
    /// M itself, [rows, columns].
    pub fn product(&self) -> DMatrix<f64> {
        &self.a * &self.b
    }

    /// The largest rank that M can have: the number of singular values, and of eigenvalues.
    pub fn rank(&self) -> usize {
        self.a.ncols().min(self.a.nrows()).min(self.b.ncols())
    }

    /// `‖M‖_F`, the root of the sum of all squares.
    pub fn norm(&self) -> f64 {
        let (small, _, _) = self.core();
        small.norm()
    }

    /// Largest first, [rank].
    ///
    /// # Errors
    /// `NOT_FINITE` for weights that are not, `INTERNAL` where the iteration does not end.
    pub fn singular_values(&self) -> Result<Vec<f64>> {
        Ok(self.singular(0)?.values)
    }

    /// All singular values' first `k`, with both vectors. Their sign is chosen: the largest number of a left vector is
    /// positive.
    ///
    /// # Errors
    /// As [`Factored::singular_values`].
    pub fn singular_vectors(&self, k: usize) -> Result<SingularVectors> {
        let mut all = self.singular(k)?;
        all.values.truncate(k);
        Ok(all)
    }

    /// The eigenvalues of M that can differ from 0, [rank]: largest magnitude first, of a pair the one with the positive
    /// imaginary part. M must be square.
    ///
    /// # Errors
    /// As [`Factored::singular_values`].
    pub fn eigenvalues(&self) -> Result<Vec<Complex<f64>>> {
        eigenvalues(if self.a.nrows() < self.a.ncols() { self.product() } else { &self.b * &self.a })
    }

    /// The small matrix `R_a R_bᵀ` and the bases `Q_a`, `Q_b` around it.
    fn core(&self) -> (DMatrix<f64>, DMatrix<f64>, DMatrix<f64>) {
        let (q_a, r_a) = self.a.clone().qr().unpack();
        let (q_b, r_b) = self.b.transpose().qr().unpack();
        (r_a * r_b.transpose(), q_a, q_b)
    }

    /// All singular values, and the vectors of the first `k`.
    fn singular(&self, k: usize) -> Result<SingularVectors> {
        let (small, q_a, q_b) = self.core();
        check_finite(&small)?;
        let steps = STEPS_PER_VALUE * small.nrows();
        let svd = small.try_svd(k > 0, k > 0, f64::EPSILON, steps).ok_or_else(|| endless("singular values"))?;
        let mut order: Vec<usize> = (0..svd.singular_values.len()).collect();
        order.sort_by(|i, j| svd.singular_values[*j].total_cmp(&svd.singular_values[*i]));
        let values = order.iter().map(|i| svd.singular_values[*i]).collect();
        let k = k.min(order.len());
        let (mut left, mut right) = (DMatrix::zeros(k, q_a.nrows()), DMatrix::zeros(k, q_b.nrows()));
        if let (Some(u), Some(v_t)) = (&svd.u, &svd.v_t) {
            for (row, i) in order.iter().take(k).enumerate() {
                let (l, r): (DVector<f64>, DVector<f64>) = (&q_a * u.column(*i), &q_b * v_t.row(*i).transpose());
                let sign = if l.iter().fold(0f64, |most, x| if x.abs() > most.abs() { *x } else { most }) < 0.0 {
                    -1.0
                } else {
                    1.0
                };
                left.set_row(row, &(l * sign).transpose());
                right.set_row(row, &(r * sign).transpose());
            }
        }
        Ok(SingularVectors { values, left, right })
    }
}

/// The eigenvalues of a square matrix by its Schur form: largest magnitude first, of a pair the one with the positive
/// imaginary part.
///
/// # Errors
/// `NOT_FINITE`, `INTERNAL` where the iteration does not end.
pub fn eigenvalues(mut matrix: DMatrix<f64>) -> Result<Vec<Complex<f64>>> {
    check_finite(&matrix)?;
    let size = matrix.amax();
    if size == 0.0 {
        return Ok(vec![Complex::new(0.0, 0.0); matrix.nrows()]);
    }
    matrix /= size; // the iteration compares with ε itself
    let steps = STEPS_PER_VALUE * matrix.nrows();
    let schur = Schur::try_new(matrix, f64::EPSILON, steps).ok_or_else(|| endless("eigenvalues"))?;
    let mut values: Vec<_> = schur.complex_eigenvalues().iter().map(|value| value * size).collect();
    values.sort_by(|x, y| y.norm().total_cmp(&x.norm()).then(y.im.total_cmp(&x.im)));
    Ok(values)
}

/// The elements row after row, in f32.
pub fn row_major(matrix: &DMatrix<f64>) -> Vec<f32> {
    matrix.transpose().iter().map(|x| *x as f32).collect()
}

fn check_finite(matrix: &DMatrix<f64>) -> Result<()> {
    if matrix.iter().all(|x| x.is_finite()) {
        return Ok(());
    }
    Err(PrismError::NotFinite { first: "the head's weights".into(), prompt: 0 })
}

fn endless(what: &str) -> PrismError {
    PrismError::Internal { place: "circuit".into(), problem: format!("the iteration for {what} did not end") }
}
