//! Attention: queries, keys and values of all rows at once, the pattern segment by segment, one output matrix.

use super::{Linear, NormLayer};
use crate::batch::{Batch, Past};
use crate::config::{ModelConfig, Positions, QkSpan, Rotary};
use crate::error::Result;
use crate::hook::BlockPoint::*;
use crate::hook::HookPoint;
use crate::ops::{self, Angles, ScoreRule};
use crate::tap::Tap;
use candle_core::{Device, Tensor};

/// The attention of one block.
pub struct Attention {
    /// Queries, keys and values side by side: [d_model, (H + 2 G) e], bias
    pub qkv: Linear,
    /// They are cut to ± this.
    pub clip: Option<f64>,
    /// Norms of queries and of keys.
    pub qk_norm: Option<QkNorms>,
    /// Rotary positions.
    pub rotary: Option<Rotary>,
    /// Whether queries and keys are another thing for the scores than as they were projected, in this model.
    pub has_turned: bool,
    /// How scores are made.
    pub rule: ScoreRule,
    /// Scores of the sinks, [H]
    pub sinks: Option<Tensor>,
    /// W_O [H e, d_model], b_O
    pub output: Linear,
    /// H
    pub n_heads: usize,
    /// G
    pub n_key_value_heads: usize,
    /// e
    pub d_head: usize,
}

/// The norms of queries and keys, and what they are taken over.
pub struct QkNorms {
    /// Of queries.
    pub q: NormLayer,
    /// Of keys.
    pub k: NormLayer,
    /// Each head, or all together.
    pub span: QkSpan,
    /// Whether they come after the rotation.
    pub after_rotary: bool,
}

/// The matrices of one head: W_Q, W_K, W_V [d_model, e], and W_O [e, d_model]. Keys and values are those of its group.
pub struct HeadWeights {
    /// W_Q
    pub q: Tensor,
    /// W_K
    pub k: Tensor,
    /// W_V
    pub v: Tensor,
    /// W_O
    pub o: Tensor,
}

impl Attention {
    /// x [rows, d_model] → z [rows, H, e] and what attention computes of it, [rows, d_model].
    ///
    /// # Errors
    /// `INTERNAL` where shapes do not fit.
    pub fn forward(&self, x: &Tensor, l: usize, pass: &mut Pass, tap: &mut Tap) -> Result<(Tensor, Tensor)> {
        let at = |point| HookPoint::Block(l, point);
        let (n_rows, n_heads, n_kv, e) = (x.dim(0)?, self.n_heads, self.n_key_value_heads, self.d_head);
        let qkv = self.qkv.forward(x)?.reshape((n_rows, n_heads + 2 * n_kv, e))?;
        let qkv = self.clip.map_or(Ok(qkv.clone()), |c| qkv.clamp(-c, c))?;
        let q = tap.rows(at(Q), qkv.narrow(1, 0, n_heads)?)?;
        let k = tap.rows(at(K), qkv.narrow(1, n_heads, n_kv)?)?;
        let v = tap.rows(at(V), qkv.narrow(1, n_heads + n_kv, n_kv)?)?;
        let (mut q, mut k) = self.turned(q, k, pass)?;
        if self.has_turned {
            q = tap.rows(at(RotQ), q)?;
            k = tap.rows(at(RotK), k)?;
        }

        let mut z = Vec::new();
        for i in 0..pass.batch.active(l) {
            let rows = pass.batch.rows(i);
            let (keys, values) = pass.extend(i, &k, &v)?;
            let scores = ops::scores(&q.narrow(0, rows.start, rows.len())?, &keys, &self.rule)?;
            let scores = tap.square(at(AttnScores), rows.start, scores)?;
            let pattern = ops::pattern(&scores, self.sinks.as_ref())?;
            let pattern = tap.square(at(Pattern), rows.start, pattern)?;
            z.push(ops::mix(&pattern, &values)?);
        }
        let z = tap.rows(at(Z), Tensor::cat(&z, 0)?)?;
        let out = self.output.forward(&z.reshape((n_rows, n_heads * e))?)?;
        Ok((z, out))
    }

    /// The matrices of head `h`, as they are stored.
    ///
    /// # Errors
    /// `INTERNAL` where there is no such head.
    pub fn head_weights(&self, h: usize) -> Result<HeadWeights> {
        let (n_heads, n_kv, e) = (self.n_heads, self.n_key_value_heads, self.d_head);
        let group = h / (n_heads / n_kv);
        let columns = |head: usize| self.qkv.weight.narrow(1, head * e, e);
        Ok(HeadWeights {
            q: columns(h)?,
            k: columns(n_heads + group)?,
            v: columns(n_heads + n_kv + group)?,
            o: self.output.weight.narrow(0, h * e, e)?,
        })
    }

    /// W_O head by head: [H, e, d_model].
    ///
    /// # Errors
    /// `INTERNAL` where shapes do not fit.
    pub fn w_o(&self) -> Result<Tensor> {
        Ok(self.output.weight.reshape((self.n_heads, self.d_head, ()))?)
    }

    /// What each head computes, `z(l,h) W_O(l)[h]`: [rows, H, d_model].
    ///
    /// # Errors
    /// `INTERNAL` where shapes do not fit.
    pub fn head_results(&self, z: &Tensor) -> Result<Tensor> {
        let by_head = z.transpose(0, 1)?.contiguous()?.matmul(&self.w_o()?)?;
        Ok(by_head.transpose(0, 1)?.contiguous()?)
    }

    /// Queries and keys as the scores use them: normed, then turned, or the other way round.
    fn turned(&self, mut q: Tensor, mut k: Tensor, pass: &Pass) -> Result<(Tensor, Tensor)> {
        let norms = |after: bool| self.qk_norm.as_ref().filter(|norms| norms.after_rotary == after);
        if let Some(norms) = norms(false) {
            (q, k) = (norms.apply(&norms.q, &q)?, norms.apply(&norms.k, &k)?);
        }
        if let (Some(rotary), Some(angles)) = (&self.rotary, &pass.angles) {
            (q, k) = (ops::rotate(&q, angles, rotary.style)?, ops::rotate(&k, angles, rotary.style)?);
        }
        if let Some(norms) = norms(true) {
            (q, k) = (norms.apply(&norms.q, &q)?, norms.apply(&norms.k, &k)?);
        }
        Ok((q, k))
    }
}

impl QkNorms {
    fn apply(&self, norm: &NormLayer, x: &Tensor) -> Result<Tensor> {
        match self.span {
            QkSpan::AllHeads => Ok(norm.forward_unseen(&x.flatten_from(1)?)?.reshape(x.shape())?),
            _ => norm.forward_unseen(x),
        }
    }
}

/// What a layer's pass over a batch carries: the angles of the rows under way, and the keys and values of its
/// segments, with those that a segment borrows in front.
pub struct Pass<'a> {
    batch: &'a Batch,
    layer: usize,
    angles: Option<Angles>,
    whole: Vec<(Tensor, Tensor)>,
}

impl<'a> Pass<'a> {
    pub(super) fn new(batch: &'a Batch, layer: usize, rotary: Option<&Rotary>, device: &Device) -> Result<Self> {
        let angles = rotary.map(|rotary| {
            let of_segment = |i| Angles::new(rotary, batch.start(i), batch.start(i) + batch.rows(i).len(), device);
            Angles::cat(&(0..batch.active(layer)).map(of_segment).collect::<Result<Vec<_>>>()?)
        });
        Ok(Pass { batch, layer, angles: angles.transpose()?, whole: Vec::new() })
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

/// How a layer's scores are made.
pub(super) fn score_rule(config: &ModelConfig, l: usize) -> ScoreRule {
    let alibi = if let Positions::Alibi(alibi) = &config.positions { Some(alibi.clone()) } else { None };
    ScoreRule { scale: config.attention_scale[l], cap: config.score_cap, window: config.windows[l], alibi }
}
