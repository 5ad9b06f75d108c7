//! From token ids to the residual stream: `x = norm(W_E[id] · scale) + W_pos[position + offset]`, of which most models
//! have only the first or the second part.

use super::NormLayer;
use crate::batch::Batch;
use crate::error::Result;
use crate::hook::HookPoint;
use crate::ops::{self, Kernels};
use crate::tap::Tap;
use candle_core::{DType, Device, Tensor};

/// Token embedding and positions that are added to it.
pub struct Embed {
    /// W_E, [d_vocab, d_model]
    pub tokens: Tensor,
    /// What it is multiplied with.
    pub scale: f64,
    /// The norm behind it.
    pub norm: Option<NormLayer>,
    /// W_pos, from the row of position 0 on: [n_context, d_model]
    pub positions: Option<Tensor>,
}

impl Embed {
    /// The stream that enters block 0, for the segments that start there: [rows, d_model].
    ///
    /// # Errors
    /// `INTERNAL` where ids were not checked.
    pub fn forward(&self, batch: &Batch, kernels: Kernels, tap: &mut Tap) -> Result<Tensor> {
        let (ids, positions) = batch.embedded();
        let device = self.tokens.device();
        let embed = self.scaled(self.tokens.index_select(&Tensor::new(ids, device)?, 0)?, kernels)?;
        let embed = tap.rows(HookPoint::Embed, embed)?;
        let Some(table) = &self.positions else { return Ok(embed) };
        let pos_embed = table.index_select(&Tensor::new(positions, device)?, 0)?;
        let pos_embed = tap.rows(HookPoint::PosEmbed, pos_embed)?;
        ops::add(kernels, &embed, &pos_embed)
    }

    /// Rows of W_E as the stream gets them, positions aside: in f32, times the scale, behind the norm. [rows, d_model] → the
    /// same.
    ///
    /// # Errors
    /// `INTERNAL` where shapes do not fit.
    pub fn scaled(&self, rows: Tensor, kernels: Kernels) -> Result<Tensor> {
        let rows = rows.to_dtype(DType::F32)?;
        let rows = if self.scale == 1.0 { rows } else { (rows * self.scale)? };
        self.norm.as_ref().map_or(Ok(rows.clone()), |norm| norm.forward_unseen(&rows, kernels))
    }
}

/// Positions that are no weights, [n_context, d]: `sin(p ω_i)` in the first half of a row, `cos(p ω_i)` in the second, with
/// `ω_i = 10000^(−i / (d/2 − 1))` and `p` from `offset` on; the row of `p = zero` is zeros. In f64, as
/// `XGLMSinusoidalPositionalEmbedding`.
pub(super) fn sinusoidal(
    n_context: usize,
    offset: usize,
    zero: Option<usize>,
    d_model: usize,
    device: &Device,
) -> Result<Tensor> {
    let half = d_model / 2;
    let rate = |i: usize| (-(10000f64.ln()) * i as f64 / (half as f64 - 1.0)).exp();
    let rates: Vec<f64> = (0..half).map(rate).collect();
    let mut table = vec![0f32; n_context * d_model]; // an odd width ends in a zero
    for (p, row) in table.chunks_mut(d_model).enumerate().map(|(position, row)| (position + offset, row)) {
        if zero != Some(p) {
            for (i, rate) in rates.iter().enumerate() {
                let angle = p as f64 * rate;
                (row[i], row[half + i]) = (angle.sin() as f32, angle.cos() as f32);
            }
        }
    }
    Ok(Tensor::from_vec(table, (n_context, d_model), device)?)
}
