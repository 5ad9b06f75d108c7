//! The MLP: `act(x W_in + b_in) W_out + b_out`.

use super::Linear;
use crate::error::Result;
use crate::hook::BlockPoint::*;
use crate::hook::HookPoint;
use crate::ops::Activation;
use crate::tap::Tap;
use candle_core::Tensor;

/// A plain MLP.
pub struct Mlp {
    /// W_in [d_model, d_mlp], b_in
    pub input: Linear,
    /// W_out [d_mlp, d_model], b_out
    pub output: Linear,
    /// Between the two.
    pub activation: Activation,
}

impl Mlp {
    /// x [rows, d_model] → what the MLP adds to the stream, [rows, d_model].
    ///
    /// # Errors
    /// `INTERNAL` where shapes do not fit.
    pub fn forward(&self, x: &Tensor, l: usize, tap: &mut Tap) -> Result<Tensor> {
        let pre = tap.rows(HookPoint::Block(l, MlpPre), self.input.forward(x)?)?;
        let post = tap.rows(HookPoint::Block(l, MlpPost), self.activation.apply(&pre)?)?;
        self.output.forward(&post)
    }
}
