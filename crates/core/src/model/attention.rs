//! Attention: queries, keys and values of all rows at once, the pattern segment by segment, one output matrix.

use super::{Linear, NormLayer, Reads, Transformer};
use crate::batch::{Batch, Entry, Past};
use crate::config::{ModelConfig, Positions, QkSpan, Rotary};
use crate::error::Result;
use crate::hook::BlockPoint::*;
use crate::hook::{BlockPoint, HookPoint};
use crate::ops::{self, Angles, Branches, Kernels, ScoreRule, View};
use crate::tap::Tap;
use candle_core::{Device, Tensor};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

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
    /// x [rows, d_model] → z [rows, H, e] and what attention computes of it, [rows, d_model]. Behind the last block's
    /// keys and values nobody reads other rows than the tap's: it is narrowed, and rows are those. `reads` is what single
    /// heads read in place of x.
    ///
    /// # Errors
    /// `INTERNAL` where shapes do not fit.
    pub fn forward(&self, x: &Tensor, reads: &Reads, pass: &mut Pass, tap: &mut Tap) -> Result<(Tensor, Tensor)> {
        let l = pass.layer;
        let at = |point| HookPoint::Block(l, point);
        // scores and patterns are kept query by query: where they are wanted, they are formed for all of them
        let steps = tap.wants(at(AttnScores)) || tap.wants(at(Pattern));
        // what comes behind the attention of the last block is computed at the kept rows only, if nobody wants it elsewhere
        let behind = BlockPoint::from(Q).filter(|point| ![K, V, RotK].contains(point));
        let narrow = pass.is_last && !tap.kept_rows().is_empty() && !tap.keeps_everywhere(behind.map(at));
        let (q, kv) = self.projected(x, narrow && !steps, pass, tap)?;

        let (n_heads, n_kv) = (self.n_heads, self.n_key_value_heads);
        let k = self.read_again(kv.narrow(1, 0, n_kv)?, n_heads, &reads.k, pass, tap)?;
        let k = tap.rows(at(K), k)?;
        let v = self.read_again(kv.narrow(1, n_kv, n_kv)?, n_heads + n_kv, &reads.v, pass, tap)?;
        let v = tap.rows(at(V), v)?;
        let mut k = self.turned(k, |norms| &norms.k, pass.angles.as_ref(), pass)?;
        if self.has_turned {
            k = tap.rows(at(RotK), k)?;
        }
        let mut angles = pass.angles.clone();
        if narrow && !steps {
            tap.narrow();
            let under_way = pass.batch.rows_under_way(l) as u32;
            let rows: Vec<u32> = tap.kept_rows().iter().copied().filter(|row| *row < under_way).collect();
            let rows = Tensor::new(rows, x.device())?;
            angles = angles.map(|angles| angles.of_rows(&rows)).transpose()?;
        }
        let q = tap.rows(at(Q), self.read_again(q, 0, &reads.q, pass, tap)?)?;
        let mut q = self.turned(q, |norms| &norms.q, angles.as_ref(), pass)?;
        if self.has_turned {
            q = tap.rows(at(RotQ), q)?;
        }

        let z = match pass.branches(tap).filter(|_| !steps) {
            Some(branches) => {
                ops::attend_branches(pass.kernels, &q, [&k, &v], &branches, &self.rule, self.sinks.as_ref())?
            }
            None => self.by_segment(&q, [&k, &v], steps, pass, tap)?,
        };
        let z = match narrow && steps {
            true => {
                let z = tap.of_all(&z)?;
                tap.narrow();
                z
            }
            false => z,
        };
        let z = tap.rows(at(Z), z)?;
        let out = self.raw(&z, pass.kernels)?;
        Ok((z, out))
    }

    /// z of all rows, segment by segment; in `steps`, by way of scores and pattern.
    fn by_segment(
        &self,
        q: &Tensor,
        [k, v]: [&Tensor; 2],
        steps: bool,
        pass: &mut Pass,
        tap: &mut Tap,
    ) -> Result<Tensor> {
        let (mut z, mut views, mut taken) = (Vec::new(), Vec::new(), 0);
        for i in 0..pass.batch.active(pass.layer) {
            let (keys, values) = pass.extend(i, k, v)?;
            for rows in runs(pass.batch.rows(i), tap) {
                let queries = taken..taken + rows.len();
                taken += rows.len();
                if steps {
                    let q = q.narrow(0, queries.start, rows.len())?;
                    z.push(self.step_by_step(&q, rows.start, [&keys, &values], pass, tap)?);
                } else {
                    let first = pass.batch.start(i) + rows.start - pass.batch.rows(i).start;
                    let (keys, values, own) = (keys.clone(), values.clone(), pass.own_rows(i));
                    views.push(View { queries, first, keys, values, own });
                }
            }
        }
        match steps {
            true => Ok(Tensor::cat(&z, 0)?),
            false => ops::attend_all(pass.kernels, q, [k, v], &views, &self.rule, self.sinks.as_ref()),
        }
    }

    /// Queries [rows, H, e] and keys and values side by side [rows, 2 G, e]; if `narrow`, queries of the kept rows only.
    fn projected(&self, x: &Tensor, narrow: bool, pass: &Pass, tap: &Tap) -> Result<(Tensor, Tensor)> {
        let (n_heads, n_kv, e) = (self.n_heads, self.n_key_value_heads, self.d_head);
        let heads = |x: Tensor| {
            let x = x.reshape((x.dim(0)?, x.dim(1)? / e, e))?;
            self.clipped(x)
        };
        if narrow {
            let (width, all) = (n_heads * e, (n_heads + 2 * n_kv) * e);
            let q = self.qkv.columns(&tap.of_all(x)?, 0..width, pass.kernels)?;
            return Ok((heads(q)?, heads(self.qkv.columns(x, width..all, pass.kernels)?)?));
        }
        let qkv = heads(self.qkv.forward(x, pass.kernels)?)?;
        Ok((qkv.narrow(1, 0, n_heads)?, qkv.narrow(1, n_heads, 2 * n_kv)?))
    }

    pub(super) fn clipped(&self, x: Tensor) -> Result<Tensor> {
        Ok(self.clip.map_or(Ok(x.clone()), |c| x.clamp(-c, c))?)
    }

    /// z of a segment whose first row is `row`, by way of its scores and pattern.
    fn step_by_step(&self, q: &Tensor, row: usize, [k, v]: [&Tensor; 2], pass: &Pass, tap: &mut Tap) -> Result<Tensor> {
        let at = |point| HookPoint::Block(pass.layer, point);
        let scores = tap.square(at(AttnScores), row, ops::scores(pass.kernels, q, k, &self.rule)?)?;
        let pattern = ops::pattern(pass.kernels, &scores, &self.rule, self.sinks.as_ref())?;
        // the kernel skips what the mask hides, and a pattern that was set may look there
        let kernels = if tap.changes(at(Pattern)) { Kernels::Plain } else { pass.kernels };
        let pattern = tap.square(at(Pattern), row, pattern)?;
        ops::mix(kernels, &pattern, v, &self.rule)
    }

    /// The matrices of head `h`, as they are stored.
    ///
    /// # Errors
    /// `INTERNAL` where there is no such head.
    pub fn head_weights(&self, h: usize) -> Result<HeadWeights> {
        let (n_heads, n_kv, e) = (self.n_heads, self.n_key_value_heads, self.d_head);
        let group = h / (n_heads / n_kv);
        let columns = |head: usize| self.qkv.weight.columns(head * e..(head + 1) * e)?.dense();
        Ok(HeadWeights {
            q: columns(h)?,
            k: columns(n_heads + group)?,
            v: columns(n_heads + n_kv + group)?,
            o: self.output.weight.rows(h * e..(h + 1) * e)?.dense()?,
        })
    }

    /// What attention computes of z [rows, H, e]: [rows, d_model].
    ///
    /// # Errors
    /// `INTERNAL` where shapes do not fit.
    pub fn raw(&self, z: &Tensor, kernels: Kernels) -> Result<Tensor> {
        self.output.forward(&z.flatten_from(1)?, kernels)
    }

    /// The same without b_O.
    ///
    /// # Errors
    /// `INTERNAL` where shapes do not fit.
    pub fn raw_without_bias(&self, z: &Tensor, kernels: Kernels) -> Result<Tensor> {
        ops::linear(kernels, &z.flatten_from(1)?, &self.output.weight, None)
    }

    /// What head `h` computes of its z [rows, e]: [rows, d_model].
    ///
    /// # Errors
    /// `INTERNAL` where there is no such head.
    pub fn head_result(&self, z: &Tensor, h: usize, kernels: Kernels) -> Result<Tensor> {
        ops::linear(kernels, z, &self.output.weight.rows(h * self.d_head..(h + 1) * self.d_head)?, None)
    }

    /// What each head computes, `z(l,h) W_O(l)[h]`: [rows, H, d_model].
    ///
    /// # Errors
    /// `INTERNAL` where shapes do not fit.
    pub fn head_results(&self, z: &Tensor, kernels: Kernels) -> Result<Tensor> {
        ops::by_part(kernels, z, &self.output.weight)
    }

    /// Queries or keys as the scores use them: normed, then turned, or the other way round.
    fn turned(
        &self,
        mut x: Tensor,
        norm: impl Fn(&QkNorms) -> &NormLayer,
        angles: Option<&Angles>,
        pass: &Pass,
    ) -> Result<Tensor> {
        let norms = |after: bool| self.qk_norm.as_ref().filter(|norms| norms.after_rotary == after);
        if let Some(norms) = norms(false) {
            x = norms.apply(norm(norms), &x, pass)?;
        }
        if let (Some(rotary), Some(angles)) = (&self.rotary, angles) {
            x = ops::rotate(pass.kernels, &x, angles, rotary.style)?;
        }
        if let Some(norms) = norms(true) {
            x = norms.apply(norm(norms), &x, pass)?;
        }
        Ok(x)
    }
}

/// Consecutive rows of a segment that queries are computed for.
fn runs(rows: Range<usize>, tap: &Tap) -> Vec<Range<usize>> {
    if !tap.is_narrowed() {
        return vec![rows];
    }
    let mut runs = Vec::<Range<usize>>::new();
    for row in tap.kept_rows().iter().map(|row| *row as usize).filter(|row| rows.contains(row)) {
        match runs.last_mut() {
            Some(run) if run.end == row => run.end += 1,
            _ => runs.push(row..row + 1),
        }
    }
    runs
}

impl QkNorms {
    fn apply(&self, norm: &NormLayer, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        match self.span {
            QkSpan::AllHeads => Ok(norm.forward_unseen(&x.flatten_from(1)?, pass.kernels)?.reshape(x.shape())?),
            _ => norm.forward_unseen(x, pass.kernels),
        }
    }
}

/// What a layer's pass over a batch carries: the kernels, the angles of the rows under way, and the keys and values of
/// its segments, with those that a segment borrows in front.
pub struct Pass<'a> {
    batch: &'a Batch,
    /// Which layer.
    pub layer: usize,
    /// Which bodies of the operations run.
    pub kernels: Kernels,
    is_last: bool,
    angles: Option<Angles>,
    whole: Vec<(Tensor, Tensor)>,
}

impl<'a> Pass<'a> {
    /// `tables` holds the angles of the layers before: most layers turn alike.
    pub(super) fn new(model: &'a Transformer, batch: &'a Batch, layer: usize, tables: &mut Tables<'a>) -> Result<Self> {
        let rotary = model.blocks[layer].attention.rotary.as_ref();
        let angles = rotary.map(|rotary| tables.of(rotary, batch, layer, &model.device)).transpose()?;
        let is_last = layer + 1 == model.blocks.len();
        Ok(Pass { batch, layer, kernels: model.kernels, is_last, angles, whole: Vec::new() })
    }

    /// The rows of segment `i`'s keys and values, unless it borrows some.
    fn own_rows(&self, i: usize) -> Option<Range<usize>> {
        self.batch.segments()[i].past.is_none().then(|| self.batch.rows(i))
    }

    /// The rows of the segments under way, of those that share the keys and values before them put together, where every
    /// segment is one row behind stored keys; `None` for other batches.
    fn branches(&self, tap: &Tap) -> Option<Vec<Branches<'a>>> {
        let active = self.batch.active(self.layer);
        let is_whole =
            !tap.is_narrowed() || tap.kept_rows().iter().take(active).enumerate().all(|(i, r)| *r == i as u32);
        let (mut branches, mut known) = (Vec::<Branches>::new(), HashMap::new());
        for (i, segment) in self.batch.segments()[..active].iter().enumerate() {
            let (Some(Past::Stored(stored)), 1, true) = (&segment.past, segment.ids.len(), is_whole) else {
                return None;
            };
            let next = branches.len();
            let group = *known.entry(Arc::as_ptr(stored)).or_insert(next);
            if group == next {
                let (k, v) = &stored.layers[self.layer];
                branches.push(Branches { past: [k, v], position: stored.length, rows: Vec::new() });
            }
            branches[group].rows.push(i as u32); // one row each, so its number is the segment's
        }
        Some(branches)
    }

    /// Adds the rows of the segments that enter between this layer's attention and its MLP.
    pub(super) fn join(&self, resid_mid: Option<Tensor>, tap: &Tap) -> Result<Option<Tensor>> {
        super::join(resid_mid, self.batch, Entry::behind_attention(self.layer), tap)
    }

    /// All keys and values that segment `i` attends to, from position 0 on: [key_pos, G, e] each. Segments come in
    /// order.
    fn extend(&mut self, i: usize, k: &Tensor, v: &Tensor) -> Result<(Tensor, Tensor)> {
        let rows = self.batch.rows(i);
        let own = [k, v].map(|t| t.narrow(0, rows.start, rows.len()));
        let [k, v] = match &self.batch.segments()[i].past {
            None => own,
            Some(_) if self.batch.start(i) == 0 => own,
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

/// Angles of all rows of a batch, by rotary positions.
#[derive(Default)]
pub(super) struct Tables<'a>(Vec<(&'a Rotary, Angles)>);

impl<'a> Tables<'a> {
    /// Of the rows under way at a layer: the first ones.
    fn of(&mut self, rotary: &'a Rotary, batch: &Batch, layer: usize, device: &Device) -> Result<Angles> {
        let known = match self.0.iter().position(|(other, _)| *other == rotary) {
            Some(known) => known,
            None => {
                self.0.push((rotary, all_angles(rotary, batch, device)?));
                self.0.len() - 1
            }
        };
        self.0[known].1.first(batch.rows_under_way(layer))
    }
}

/// The angles of every row; those of many segments at the same positions of prompts of one length are made once.
fn all_angles(rotary: &Rotary, batch: &Batch, device: &Device) -> Result<Angles> {
    let (mut distinct, mut known, mut rows) = (Vec::new(), HashMap::new(), Vec::<u32>::new());
    let mut made = 0;
    for i in 0..batch.segments().len() {
        let positions = batch.start(i)..batch.start(i) + batch.rows(i).len();
        let of = (positions.clone(), batch.prompt_length(i));
        let first = match known.get(&of) {
            Some(first) => *first,
            None => {
                distinct.push(Angles::new(rotary, positions.clone(), batch.prompt_length(i), device)?);
                known.insert(of, made);
                made += positions.len() as u32;
                made - positions.len() as u32
            }
        };
        rows.extend(first..first + positions.len() as u32);
    }
    let angles = Angles::cat(&distinct)?;
    if rows.len() == made as usize { Ok(angles) } else { angles.of_rows(&Tensor::new(rows, device)?) }
}

/// How a layer's scores are made.
pub(super) fn score_rule(config: &ModelConfig, l: usize) -> ScoreRule {
    let alibi = if let Positions::Alibi(alibi) = &config.positions { Some(alibi.clone()) } else { None };
    ScoreRule { scale: config.attention_scale[l], cap: config.score_cap, window: config.windows[l], alibi }
}
