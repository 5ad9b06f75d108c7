//! A norm with its weights: `γ ⊙ (x − mean(x)) / s + β`.

use crate::config::Norm;
use crate::error::Result;
use crate::hook::{BlockPoint, HookPoint};
use crate::ops;
use crate::tap::Tap;
use candle_core::Tensor;

/// A norm of the residual stream.
pub struct NormLayer {
    /// Kind and ε.
    pub norm: Norm,
    /// γ, [d_model]
    pub gamma: Tensor,
    /// β, [d_model]
    pub beta: Tensor,
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
        self.gain_and_bias(&normalized)
    }

    /// The final norm, of the tap's rows only.
    ///
    /// # Errors
    /// `INTERNAL` where shapes do not fit.
    pub fn forward_final(&self, x: &Tensor, tap: &mut Tap) -> Result<Tensor> {
        let (normalized, scale) = self.normalize(x)?;
        tap.selected(HookPoint::FinalScale, scale);
        let normalized = tap.selected(HookPoint::FinalNormalized, normalized);
        self.gain_and_bias(&normalized)
    }

    fn normalize(&self, x: &Tensor) -> Result<(Tensor, Tensor)> {
        match self.norm {
            Norm::LayerNorm { eps } => ops::layer_norm(x, eps),
        }
    }

    fn gain_and_bias(&self, normalized: &Tensor) -> Result<Tensor> {
        Ok(normalized.broadcast_mul(&self.gamma)?.broadcast_add(&self.beta)?)
    }
}
