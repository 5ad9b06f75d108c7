//! The matrices of a head in f64, with the norms around them folded in:
//!
//! ```text
//! reads   n(x) = γ ⊙ (x − mean(x)) / s   →   C diag(γ) W     C takes the mean off, for layer norms only
//! writes  through a norm after attention →   W_O C diag(γ)
//! ```

use crate::config::NormKind;
use crate::error::{PrismError, Result};
use crate::model::{NormLayer, Transformer};
use candle_core::{DType, Tensor};
use nalgebra::DMatrix;

/// Whether the norms of the residual stream are folded into the matrices that read it and write to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Folding {
    /// γ and the centring are in the matrices; only the scale of every token is left out.
    Folded,
    /// Norms are left out altogether.
    Raw,
}

/// The matrices of one head. What the block is multiplied with is in `o`, whatever the folding.
pub struct Folded {
    /// W_Q, [d_model, e]
    pub q: DMatrix<f64>,
    /// W_K of the head's group, [d_model, e]
    pub k: DMatrix<f64>,
    /// W_V of the head's group, [d_model, e]
    pub v: DMatrix<f64>,
    /// W_O, [e, d_model]
    pub o: DMatrix<f64>,
}

impl Folded {
    /// Copies the matrices of head `h` of layer `l` out of the model.
    ///
    /// # Errors
    /// `NOT_FINITE` for weights that are not: no iteration over them would end. `INTERNAL` where there is no such head.
    pub fn new(model: &Transformer, l: usize, h: usize, folding: Folding) -> Result<Self> {
        let block = &model.blocks[l];
        let weights = block.attention.head_weights(h)?;
        let [mut q, mut k, mut v] = [matrix(&weights.q)?, matrix(&weights.k)?, matrix(&weights.v)?];
        let mut o = matrix(&weights.o)? * block.multiplier;
        if [&q, &k, &v, &o].iter().any(|w| w.iter().any(|x| !x.is_finite())) {
            return Err(PrismError::NotFinite { first: format!("the weights of L{l}H{h}"), prompt: 0 });
        }
        if folding == Folding::Folded {
            if let Some(norm) = &block.ln1 {
                for reads in [&mut q, &mut k, &mut v] {
                    fold_before(norm, reads)?;
                }
            }
            if let Some(norm) = &block.ln1_post {
                fold_after(norm, &mut o)?;
            }
        }
        Ok(Folded { q, k, v, o })
    }
}

/// W [d_model, n] ← C diag(γ) W: what reads behind a norm, as it reads in front of it.
fn fold_before(norm: &NormLayer, w: &mut DMatrix<f64>) -> Result<()> {
    let gamma = gamma(norm)?;
    for mut column in w.column_iter_mut() {
        gamma.iter().flatten().zip(column.iter_mut()).for_each(|(gamma, x)| *x *= gamma);
        if norm.norm.kind == NormKind::LayerNorm {
            let mean = column.mean();
            column.add_scalar_mut(-mean);
        }
    }
    Ok(())
}

/// W [n, d_model] ← W C diag(γ): what is written through a norm.
pub(super) fn fold_after(norm: &NormLayer, w: &mut DMatrix<f64>) -> Result<()> {
    let gamma = gamma(norm)?;
    for mut row in w.row_iter_mut() {
        if norm.norm.kind == NormKind::LayerNorm {
            let mean = row.mean();
            row.add_scalar_mut(-mean);
        }
        gamma.iter().flatten().zip(row.iter_mut()).for_each(|(gamma, x)| *x *= gamma);
    }
    Ok(())
}

fn gamma(norm: &NormLayer) -> Result<Option<Vec<f64>>> {
    let of = |gamma: &Tensor| gamma.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>();
    Ok(norm.gamma.as_ref().map(of).transpose()?)
}

/// A tensor of two axes in f64.
fn matrix(tensor: &Tensor) -> Result<DMatrix<f64>> {
    let (rows, columns) = tensor.dims2()?;
    let values: Vec<f32> = tensor.to_dtype(DType::F32)?.contiguous()?.flatten_all()?.to_vec1()?;
    Ok(DMatrix::from_row_iterator(rows, columns, values.into_iter().map(f64::from)))
}
