//! The target's direction in the residual stream. With the final norm's scale `s` held at its value of the run,
//!
//! ```text
//! u = κ Σ_t w_t W_U[:,t]                           the direction behind the norm
//! ũ = γ ⊙ u;  for a layer norm  ũ ← ũ − mean(ũ)    the direction before it
//! attribution(c) = (c · ũ) / s
//! constant = u·β + κ Σ_t w_t b_U[t]                what no component writes
//! ```

use super::target::{Resolved, TokenWeights};
use crate::config::NormKind;
use crate::error::{PrismError, Result};
use crate::model::{NormLayer, Transformer, Unembed};
use candle_core::{DType, Tensor};
use std::collections::HashMap;

/// What is done with the final norm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormTreatment {
    /// Its scale is held at the value of the run; exact.
    Frozen,
    /// It is left out: `c · u`, with no gain, scale or centring. Without a certificate.
    None,
}

/// A direction, and what is added beside the components.
#[derive(Debug, Clone, PartialEq)]
pub struct Direction {
    /// ũ, [d_model]
    pub u: Vec<f64>,
    /// What no component writes.
    pub constant: f64,
    /// Whether attributions are divided by the final norm's scale.
    pub scaled: bool,
}

impl Direction {
    /// The direction of weighted logits through the final norm, held at its scale.
    fn frozen(weights: &TokenWeights, ln_final: &NormLayer, unembed: &Unembed) -> Result<Self> {
        let (u, bias) = behind_the_norm(weights, unembed)?;
        let constant = match &ln_final.beta {
            Some(beta) => dot(&u, &host(beta)?) + bias,
            None => bias,
        };
        Ok(Direction { u: before(&u, ln_final)?, constant, scaled: true })
    }

    /// The direction of weighted logits with the norm left out.
    fn without_norm(weights: &TokenWeights, unembed: &Unembed) -> Result<Self> {
        let (u, constant) = behind_the_norm(weights, unembed)?;
        Ok(Direction { u, constant, scaled: false })
    }

    /// A vector that is no logit, read as it is.
    fn raw(v: &[f32]) -> Self {
        Direction { u: v.iter().map(|v| f64::from(*v)).collect(), constant: 0.0, scaled: false }
    }
}

/// `u = κ Σ_t w_t W_U[:,t]` and `κ Σ_t w_t b_U[t]`.
fn behind_the_norm(weights: &TokenWeights, unembed: &Unembed) -> Result<(Vec<f64>, f64)> {
    let (tokens, w): (Vec<u32>, Vec<f64>) = weights.tokens.iter().unzip();
    let mut columns = if tokens.is_empty() { Vec::new() } else { unembed.columns(&tokens)? };
    let mut w = w;
    if weights.mean != 0.0 {
        columns.push(unembed.mean_column()?.clone());
        w.push(weights.mean);
    }
    let mut u = vec![0.0; unembed.weight.dim(1)?];
    let mut bias = 0.0;
    for (column, w) in columns.iter().zip(w) {
        let w = unembed.logit_scale * w;
        u.iter_mut().zip(&column.weight).for_each(|(u, weight)| *u += w * weight);
        bias += w * column.bias;
    }
    Ok((u, bias))
}

/// The direction before a norm, of one behind it, the norm's scale held: `γ ⊙ u`, and for a layer norm less its mean.
pub(crate) fn before(u: &[f64], norm: &NormLayer) -> Result<Vec<f64>> {
    let mut before = u.to_vec();
    if let Some(gamma) = &norm.gamma {
        before.iter_mut().zip(host(gamma)?).for_each(|(u, gamma)| *u *= gamma);
    }
    if norm.norm.kind == NormKind::LayerNorm {
        let mean = before.iter().sum::<f64>() / before.len() as f64;
        before.iter_mut().for_each(|u| *u -= mean);
    }
    Ok(before)
}

/// A vector's values in f64.
pub(crate) fn host(vector: &Tensor) -> Result<Vec<f64>> {
    Ok(vector.flatten_all()?.to_dtype(DType::F64)?.to_vec1()?)
}

pub(crate) fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The distinct directions of some rows.
pub(crate) struct Directions {
    distinct: Vec<Direction>,
    of_row: Vec<usize>,
}

impl Directions {
    /// The direction of every row; rows with the same target share one.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` where a norm treatment is given for a raw direction.
    pub fn of(targets: &[Resolved], norm: Option<NormTreatment>, model: &Transformer) -> Result<Self> {
        let mut index = HashMap::<Vec<u64>, usize>::new();
        let (mut distinct, mut of_row) = (Vec::new(), Vec::new());
        for target in targets {
            let next = distinct.len();
            let known = *index.entry(key(target)).or_insert(next);
            if known == next {
                distinct.push(match (target, norm) {
                    (Resolved::Tokens(w), Some(NormTreatment::None)) => Direction::without_norm(w, &model.unembed)?,
                    (Resolved::Tokens(w), _) => Direction::frozen(w, &model.ln_final, &model.unembed)?,
                    (Resolved::Direction(v), None) => Direction::raw(v),
                    (Resolved::Direction(_), Some(_)) => {
                        let expected = "no norm: a direction is read raw, before the final norm";
                        return Err(PrismError::argument("norm", "given with a direction", expected));
                    }
                });
            }
            of_row.push(known);
        }
        Ok(Directions { distinct, of_row })
    }

    /// The direction of a row.
    pub fn of_row(&self, row: usize) -> &Direction {
        &self.distinct[self.of_row[row]]
    }

    /// Which of the distinct directions a row has.
    pub fn index(&self, row: usize) -> usize {
        self.of_row[row]
    }

    /// Every ũ.
    pub fn all(&self) -> impl Iterator<Item = &[f64]> {
        self.distinct.iter().map(|d| &d.u[..])
    }
}

/// What makes two targets the same direction: their ids and the bits of their weights.
fn key(target: &Resolved) -> Vec<u64> {
    match target {
        Resolved::Tokens(w) => {
            let pairs = w.tokens.iter().flat_map(|(t, w)| [u64::from(*t), w.to_bits()]);
            std::iter::once(w.mean.to_bits()).chain(pairs).collect()
        }
        Resolved::Direction(v) => std::iter::once(u64::MAX).chain(v.iter().map(|v| u64::from(v.to_bits()))).collect(),
    }
}
