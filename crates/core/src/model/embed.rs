//! From token ids to the residual stream: `x = W_E[id] + W_pos[position]`.

use crate::batch::Batch;
use crate::error::Result;
use crate::hook::HookPoint;
use crate::tap::Tap;
use candle_core::Tensor;

/// Token embedding and learned positions.
pub struct Embed {
    /// W_E, [d_vocab, d_model]
    pub tokens: Tensor,
    /// W_pos, [n_context, d_model]
    pub positions: Tensor,
}

impl Embed {
    /// The stream that enters block 0, for the segments that start there: [rows, d_model].
    ///
    /// # Errors
    /// `INTERNAL` where ids were not checked.
    pub fn forward(&self, batch: &Batch, tap: &mut Tap) -> Result<Tensor> {
        let (ids, positions) = batch.embedded();
        let device = self.tokens.device();
        let embed = self.tokens.index_select(&Tensor::new(ids, device)?, 0)?;
        let embed = tap.rows(HookPoint::Embed, embed)?;
        let pos_embed = self.positions.index_select(&Tensor::new(positions, device)?, 0)?;
        let pos_embed = tap.rows(HookPoint::PosEmbed, pos_embed)?;
        Ok((embed + pos_embed)?)
    }
}
