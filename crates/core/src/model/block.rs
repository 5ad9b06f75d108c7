//! One block: `x + attention(ln1(x))`, then `x + mlp(ln2(x))`.

use super::attention::KeysValues;
use super::{Attention, Mlp, NormLayer};
use crate::error::Result;
use crate::hook::BlockPoint::*;
use crate::hook::HookPoint;
use crate::tap::Tap;
use candle_core::Tensor;

/// A block with the norm before each sublayer.
pub struct Block {
    /// Which layer it is.
    pub layer: usize,
    /// Norm before attention.
    pub ln1: NormLayer,
    /// Attention.
    pub attention: Attention,
    /// Norm before the MLP.
    pub ln2: NormLayer,
    /// MLP.
    pub mlp: Mlp,
}

impl Block {
    /// x [rows, d_model] → the same.
    ///
    /// # Errors
    /// `INTERNAL` where shapes do not fit.
    pub fn forward(&self, x: Tensor, segments: &mut KeysValues, tap: &mut Tap) -> Result<Tensor> {
        let at = |point| HookPoint::Block(self.layer, point);
        let resid_pre = tap.rows(at(ResidPre), x)?;

        let normed = self.ln1.forward(&resid_pre, self.layer, [Ln1Scale, Ln1Normalized], tap)?;
        let attn_out = self.attention.forward(&normed, self.layer, segments, tap)?;
        let attn_out = tap.rows(at(AttnOut), attn_out)?;
        let resid_mid = tap.rows(at(ResidMid), (resid_pre + attn_out)?)?;

        let normed = self.ln2.forward(&resid_mid, self.layer, [Ln2Scale, Ln2Normalized], tap)?;
        let mlp_out = self.mlp.forward(&normed, self.layer, tap)?;
        let mlp_out = tap.rows(at(MlpOut), mlp_out)?;
        tap.rows(at(ResidPost), (resid_mid + mlp_out)?)
    }
}
