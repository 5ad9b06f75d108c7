//! A norm with its weights: `γ ⊙ (x − mean(x)) / s + β`, or RMS norm, without the mean.

use super::attention::Pass;
use crate::config::{Norm, NormKind};
use crate::error::Result;
use crate::hook::{BlockPoint, HookPoint};
use crate::ops::{self, Kernels, Normed};
use crate::tap::Tap;
use candle_core::{D, Tensor};

/// A norm over the last axis.
pub struct NormLayer {
    /// Kind and ε.
    pub norm: Norm,
    /// γ; 1 where there is none.
    pub gamma: Option<Tensor>,
    /// β; 0 where there is none.
    pub beta: Option<Tensor>,
}

impl NormLayer {
    /// x [rows, d_model] → the same; passes scale and normalised rows through their points of this layer.
    ///
    /// # Errors
    /// `INTERNAL` where shapes do not fit.
    pub fn forward(&self, x: &Tensor, pass: &Pass, points: [BlockPoint; 2], tap: &mut Tap) -> Result<Tensor> {
        let [scale_point, normalized_point] = points.map(|point| HookPoint::Block(pass.layer, point));
        let Normed { y, normalized, scale } = self.normed(x, pass.kernels, tap.wants(normalized_point))?;
        tap.rows(scale_point, scale)?;
        match normalized {
            Some(normalized) => self.gain_and_bias(&tap.rows(normalized_point, normalized)?),
            None => Ok(y),
        }
    }

    /// The final norm, of the tap's rows only.
    ///
    /// # Errors
    /// `INTERNAL` where shapes do not fit.
    pub fn forward_final(&self, x: &Tensor, kernels: Kernels, tap: &mut Tap) -> Result<Tensor> {
        let Normed { y, normalized, scale } = self.normed(x, kernels, tap.wants(HookPoint::FinalNormalized))?;
        tap.selected(HookPoint::FinalScale, scale)?;
        match normalized {
            Some(normalized) => self.gain_and_bias(&tap.selected(HookPoint::FinalNormalized, normalized)?),
            None => Ok(y),
        }
    }

    /// A norm that has no hook points: of the embedding, of queries and keys.
    ///
    /// # Errors
    /// `INTERNAL` where shapes do not fit.
    pub fn forward_unseen(&self, x: &Tensor, kernels: Kernels) -> Result<Tensor> {
        Ok(self.normed(x, kernels, false)?.y)
    }

    /// The scale `s` of every row, [rows, 1].
    ///
    /// # Errors
    /// `INTERNAL` where shapes do not fit.
    pub fn scale(&self, x: &Tensor, kernels: Kernels) -> Result<Tensor> {
        Ok(self.normed(x, kernels, false)?.scale)
    }

    /// The norm as it acts on a part of its input, with the scale held: `γ ⊙ (p − mean(p)) / s`, no β.
    ///
    /// # Errors
    /// `INTERNAL` where shapes do not fit.
    pub fn linear_part(&self, part: &Tensor, scale: &Tensor) -> Result<Tensor> {
        let centred = match self.norm.kind {
            NormKind::LayerNorm => part.broadcast_sub(&part.mean_keepdim(D::Minus1)?)?,
            NormKind::RmsNorm => part.clone(),
        };
        let scaled = centred.broadcast_div(scale)?;
        Ok(match &self.gamma {
            Some(gamma) => scaled.broadcast_mul(gamma)?,
            None => scaled,
        })
    }

    /// Directions behind the norm as they are before it, the scale held: `γ ⊙ u`, for a layer norm less its mean.
    /// u [directions, d_model] → the same.
    ///
    /// # Errors
    /// `INTERNAL` where shapes do not fit.
    pub fn before(&self, u: &Tensor) -> Result<Tensor> {
        let scaled = match &self.gamma {
            Some(gamma) => u.broadcast_mul(gamma)?,
            None => u.clone(),
        };
        Ok(match self.norm.kind {
            NormKind::LayerNorm => scaled.broadcast_sub(&scaled.mean_keepdim(D::Minus1)?)?,
            NormKind::RmsNorm => scaled,
        })
    }

    fn normed(&self, x: &Tensor, kernels: Kernels, keep: bool) -> Result<Normed> {
        ops::norm(kernels, x, self.norm, [self.gamma.as_ref(), self.beta.as_ref()], keep)
    }

    /// What the norm makes of rows that are normalised already: `γ ⊙ x + β`.
    ///
    /// # Errors
    /// `INTERNAL` where shapes do not fit.
    pub fn gain_and_bias(&self, normalized: &Tensor) -> Result<Tensor> {
        ops::gain_and_bias(normalized, [self.gamma.as_ref(), self.beta.as_ref()])
    }
}
