//! Attention: queries, keys and values of all rows at once, the pattern segment by segment, one output matrix.

use super::Linear;
use crate::batch::{Batch, Past};
use crate::error::Result;
use crate::hook::BlockPoint::*;
use crate::hook::HookPoint;
use crate::ops;
use crate::tap::Tap;
use candle_core::Tensor;

/// The attention of one block.
pub struct Attention {
    /// Queries, keys and values side by side: [d_model, (H + 2 G) e], bias
    pub qkv: Linear,
    /// W_O [H e, d_model], b_O
    pub output: Linear,
    /// What scores are multiplied with.
    pub scale: f64,
    /// H
    pub n_heads: usize,
    /// G
    pub n_key_value_heads: usize,
    /// e
    pub d_head: usize,
}

impl Attention {
    /// x [rows, d_model] → what attention adds to the stream, [rows, d_model].
    ///
    /// # Errors
    /// `INTERNAL` where shapes do not fit.
    pub fn forward(&self, x: &Tensor, l: usize, segments: &mut KeysValues, tap: &mut Tap) -> Result<Tensor> {
        let at = |point| HookPoint::Block(l, point);
        let (n_rows, n_heads, n_kv, e) = (x.dim(0)?, self.n_heads, self.n_key_value_heads, self.d_head);
        let qkv = self.qkv.forward(x)?.reshape((n_rows, n_heads + 2 * n_kv, e))?;
        let q = tap.rows(at(Q), qkv.narrow(1, 0, n_heads)?)?;
        let k = tap.rows(at(K), qkv.narrow(1, n_heads, n_kv)?)?;
        let v = tap.rows(at(V), qkv.narrow(1, n_heads + n_kv, n_kv)?)?;

        let mut z = Vec::new();
        for i in 0..segments.batch.active(l) {
            let rows = segments.batch.rows(i);
            let (keys, values) = segments.extend(i, &k, &v)?;
            let scores = ops::scores(&q.narrow(0, rows.start, rows.len())?, &keys, self.scale)?;
            let scores = tap.square(at(AttnScores), rows.start, scores)?;
            let pattern = tap.square(at(Pattern), rows.start, ops::pattern(&scores)?)?;
            z.push(ops::mix(&pattern, &values)?);
        }
        let z = tap.rows(at(Z), Tensor::cat(&z, 0)?)?;
        if tap.wants(at(HeadResult)) {
            tap.rows(at(HeadResult), self.head_results(&z)?)?;
        }
        self.output.forward(&z.reshape((n_rows, n_heads * e))?)
    }

    /// W_O head by head: [H, e, d_model].
    ///
    /// # Errors
    /// `INTERNAL` where shapes do not fit.
    pub fn w_o(&self) -> Result<Tensor> {
        Ok(self.output.weight.reshape((self.n_heads, self.d_head, ()))?)
    }

    /// What each head writes, `z(l,h) W_O(l)[h]`: [rows, H, d_model].
    fn head_results(&self, z: &Tensor) -> Result<Tensor> {
        let by_head = z.transpose(0, 1)?.contiguous()?.matmul(&self.w_o()?)?;
        Ok(by_head.transpose(0, 1)?.contiguous()?)
    }
}

/// Keys and values of one layer, segment by segment, with those that a segment borrows in front.
pub struct KeysValues<'a> {
    batch: &'a Batch,
    layer: usize,
    whole: Vec<(Tensor, Tensor)>,
}

impl<'a> KeysValues<'a> {
    pub(super) fn new(batch: &'a Batch, layer: usize) -> Self {
        KeysValues { batch, layer, whole: Vec::new() }
    }

    /// All keys and values that segment `i` attends to, from position 0 on: [key_pos, G, e] each. Segments come in
    /// order.
    fn extend(&mut self, i: usize, k: &Tensor, v: &Tensor) -> Result<(Tensor, Tensor)> {
        let rows = self.batch.rows(i);
        let own = [k, v].map(|t| t.narrow(0, rows.start, rows.len()));
        let [k, v] = match &self.batch.segments()[i].past {
            None => own,
            Some(past) => {
                let (past_k, past_v) = match past {
                    Past::Segment { index, .. } => &self.whole[*index],
                    Past::Stored(stored) => &stored.layers[self.layer],
                };
                let length = self.batch.start(i);
                let [k, v] = own;
                [(past_k, k), (past_v, v)].map(|(past, own)| Tensor::cat(&[&past.narrow(0, 0, length)?, &own?], 0))
            }
        };
        let whole = (k?, v?);
        self.whole.push(whole.clone());
        Ok(whole)
    }
}
