//! A norm with its weights: `γ ⊙ (x − mean(x)) / s + β`, or RMS norm, without the mean.

use crate::config::{Norm, NormKind};
use crate::error::Result;
use crate::hook::{BlockPoint, HookPoint};
use crate::ops;
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
    /// x [rows, d_model] → the same; passes scale and normalised rows through their points of layer `l`.
    ///
    /// # Errors
    /// `INTERNAL` where shapes do not fit.
    pub fn forward(&self, x: &Tensor, l: usize, points: [BlockPoint; 2], tap: &mut Tap) -> Result<Tensor> {
        let (normalized, scale) = self.normalize(x)?;
        let [scale_point, normalized_point] = points.map(|point| HookPoint::Block(l, point));
        tap.rows(scale_point, scale)?;
        let normalized = tap.rows(normalized_point, normalized)?;
        self.gain_and_bias(normalized)
    }

    /// The final norm, of the tap's rows only.
    ///
    /// # Errors
    /// `INTERNAL` where shapes do not fit.
    pub fn forward_final(&self, x: &Tensor, tap: &mut Tap) -> Result<Tensor> {
        let (normalized, scale) = self.normalize(x)?;
        tap.selected(HookPoint::FinalScale, scale);
        let normalized = tap.selected(HookPoint::FinalNormalized, normalized);
        self.gain_and_bias(normalized)
    }

    /// A norm that has no hook points: of the embedding, of queries and keys.
    ///
    /// # Errors
    /// `INTERNAL` where shapes do not fit.
    pub fn forward_unseen(&self, x: &Tensor) -> Result<Tensor> {
        self.gain_and_bias(self.normalize(x)?.0)
    }

    /// The scale `s` of every row, [rows, 1].
    ///
    /// # Errors
    /// `INTERNAL` where shapes do not fit.
    pub fn scale(&self, x: &Tensor) -> Result<Tensor> {
        Ok(self.normalize(x)?.1)
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

    fn normalize(&self, x: &Tensor) -> Result<(Tensor, Tensor)> {
        match self.norm.kind {
            NormKind::LayerNorm => ops::layer_norm(x, self.norm.eps),
            NormKind::RmsNorm => ops::rms_norm(x, self.norm.eps),
        }
    }

    /// What the norm makes of rows that are normalised already: `γ ⊙ x + β`.
    ///
    /// # Errors
    /// `INTERNAL` where shapes do not fit.
    pub fn gain_and_bias(&self, normalized: Tensor) -> Result<Tensor> {
        let mut x = normalized;
        if let Some(gamma) = &self.gamma {
            x = x.broadcast_mul(gamma)?;
        }
        if let Some(beta) = &self.beta {
            x = x.broadcast_add(beta)?;
        }
        Ok(x)
    }
}
