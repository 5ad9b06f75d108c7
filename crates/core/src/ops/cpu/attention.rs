//! Attention of one segment, head by head and in blocks of queries, whose scores stay in cache. What the mask hides is
//! not computed, but for the corners of a block.

use super::math::{exp, tanh};
use super::matmul::Matmul;
use super::parallel::split;
use super::simd::{Isa, Kernel, Simd};
use super::tensor::{Fresh, Rows, Shared};
use crate::error::Result;
use crate::ops::attention::{ScoreRule, alibi_of_head};
use candle_core::Tensor;
use std::ops::Range;

/// Queries of a block.
const BLOCK: usize = 64;

/// The heads of one segment.
pub(crate) struct Heads<'a> {
    isa: Isa,
    n_query: usize,
    /// Position of the first query.
    first: usize,
    n_key: usize,
    n_heads: usize,
    n_kv: usize,
    e: usize,
    rule: &'a ScoreRule,
    /// [H]
    sinks: Option<Vec<f32>>,
}

impl<'a> Heads<'a> {
    /// Of queries [query_pos, H, e] and keys [key_pos, G, e]; the last query stands at the last key.
    pub fn of(
        isa: Isa,
        (n_query, n_heads, e): (usize, usize, usize),
        (n_key, n_kv, _): (usize, usize, usize),
        rule: &'a ScoreRule,
        sinks: Option<&Tensor>,
    ) -> Result<Self> {
        let sinks = sinks.map(|sinks| sinks.to_vec1()).transpose()?;
        Ok(Heads { isa, n_query, first: n_key - n_query, n_key, n_heads, n_kv, e, rule, sinks })
    }

    /// With the first query at another position.
    pub fn from(self, first: usize) -> Self {
        Heads { first, ..self }
    }

    /// All three steps, block by block: z [query_pos, H, e].
    pub fn attend(&self, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
        let [q, k, v] = [q, k, v].map(Rows::of);
        let (q, k, v) = (q?, k?, v?);
        let (q_numbers, k_numbers, v_numbers) = (q.numbers()?, k.numbers()?, v.numbers()?);
        let mut z = Fresh::new((self.n_query, self.n_heads, self.e));
        let place = z.place();
        self.each_key_head(&|g, heads| {
            let keys = self.transposed(&k_numbers, k.stride, g);
            let mut buffer = vec![0.0; BLOCK.min(self.n_query) * self.n_key];
            for h in heads {
                let alibi = self.alibi(h);
                for queries in self.blocks() {
                    let seen = self.seen_by(&queries);
                    let scores = Grid { at: buffer.as_mut_ptr(), stride: seen.len(), seen: seen.clone() };
                    self.scores_of((&q_numbers, q.stride), h, &keys, &alibi, &queries, &scores);
                    self.softmax(h, &queries, &scores, &scores);
                    self.mix_into(place, h, &queries, &scores, (&v_numbers, v.stride, g));
                }
            }
        });
        // SAFETY: head by head, block by block
        unsafe { z.written() }
    }

    /// [H, query_pos, key_pos], −∞ where the mask hides.
    pub fn scores(&self, q: &Tensor, k: &Tensor) -> Result<Tensor> {
        let (q, k) = (Rows::of(q)?, Rows::of(k)?);
        let (q_numbers, k_numbers) = (q.numbers()?, k.numbers()?);
        let mut scores = Fresh::new((self.n_heads, self.n_query, self.n_key));
        let place = scores.place();
        self.each_key_head(&|g, heads| {
            let keys = self.transposed(&k_numbers, k.stride, g);
            for h in heads {
                let alibi = self.alibi(h);
                for queries in self.blocks() {
                    let whole = self.grid(place.at(0), h, &queries);
                    for (row, _) in queries.clone().enumerate() {
                        // SAFETY: a row of this head
                        unsafe { std::slice::from_raw_parts_mut(whole.at.add(row * whole.stride), self.n_key) }
                            .fill(f32::NEG_INFINITY);
                    }
                    let part = whole.narrowed(self.seen_by(&queries));
                    self.scores_of((&q_numbers, q.stride), h, &keys, &alibi, &queries, &part);
                }
            }
        });
        // SAFETY: head by head, block by block
        unsafe { scores.written() }
    }

    /// Softmax of scores [H, query_pos, key_pos].
    pub fn pattern(&self, scores: &Tensor) -> Result<Tensor> {
        let scores = Rows::of(&scores.contiguous()?.flatten_all()?.unsqueeze(0)?)?;
        let scores = scores.numbers()?;
        let mut pattern = Fresh::new((self.n_heads, self.n_query, self.n_key));
        let place = pattern.place();
        split(self.n_heads, 1, 1, &|heads| {
            for h in heads {
                for queries in self.blocks() {
                    // only read, so the cast is harmless
                    let from = self.grid(scores.as_ptr().cast_mut(), h, &queries);
                    self.softmax(h, &queries, &from, &self.grid(place.at(0), h, &queries));
                }
            }
        });
        // SAFETY: head by head, block by block
        unsafe { pattern.written() }
    }

    /// z [query_pos, H, e] of a pattern [H, query_pos, key_pos].
    pub fn mix(&self, pattern: &Tensor, v: &Tensor) -> Result<Tensor> {
        let pattern = Rows::of(&pattern.contiguous()?.flatten_all()?.unsqueeze(0)?)?;
        let (pattern, v) = (pattern.numbers()?, Rows::of(v)?);
        let v_numbers = v.numbers()?;
        let mut z = Fresh::new((self.n_query, self.n_heads, self.e));
        let place = z.place();
        self.each_key_head(&|g, heads| {
            for h in heads {
                for queries in self.blocks() {
                    let whole = self.grid(pattern.as_ptr().cast_mut(), h, &queries);
                    let part = whole.narrowed(self.seen_by(&queries));
                    self.mix_into(place, h, &queries, &part, (&v_numbers, v.stride, g));
                }
            }
        });
        // SAFETY: head by head, block by block
        unsafe { z.written() }
    }

    /// Runs `each` on every key head and its query heads, on the threads that there are.
    fn each_key_head(&self, each: &(impl Fn(usize, Range<usize>) + Sync)) {
        let group = self.n_heads / self.n_kv;
        split(self.n_kv, 1, 1, &|some| some.for_each(|g| each(g, g * group..(g + 1) * group)));
    }

    fn blocks(&self) -> impl Iterator<Item = Range<usize>> {
        (0..self.n_query).step_by(BLOCK).map(|first| first..self.n_query.min(first + BLOCK))
    }

    /// Keys that a query sees.
    fn seen(&self, query: usize) -> Range<usize> {
        let position = self.first + query;
        self.rule.window.map_or(0, |window| (position + 1).saturating_sub(window))..position + 1
    }

    /// Keys that any query of a block sees.
    fn seen_by(&self, queries: &Range<usize>) -> Range<usize> {
        self.seen(queries.start).start..self.seen(queries.end - 1).end
    }

    /// The rows of a block of one head of [H, query_pos, key_pos].
    fn grid(&self, all: *mut f32, h: usize, queries: &Range<usize>) -> Grid {
        let at = all.wrapping_add((h * self.n_query + queries.start) * self.n_key);
        Grid { at, stride: self.n_key, seen: 0..self.n_key }
    }

    fn alibi(&self, h: usize) -> Option<Vec<f32>> {
        self.rule.alibi.as_ref().map(|alibi| alibi_of_head(alibi, h, self.n_key))
    }

    /// Keys of one head as [e, key_pos], each row a line further apart than it need be: rows that lie a power of two
    /// apart would share few places of the first cache.
    fn transposed(&self, k: &[f32], stride: usize, g: usize) -> Vec<f32> {
        const LINE: usize = 16;
        let row = self.key_row();
        let mut keys = vec![0.0; self.e * row];
        for first in (0..self.n_key).step_by(LINE) {
            let last = self.n_key.min(first + LINE);
            for i in 0..self.e {
                for (key, to) in (first..last).zip(&mut keys[i * row + first..]) {
                    *to = k[key * stride + g * self.e + i];
                }
            }
        }
        keys
    }

    /// From one row of the transposed keys to the next.
    fn key_row(&self) -> usize {
        self.n_key + 16
    }

    /// Scores of a block, finished but for the softmax where a query sees a key; −∞ or as before elsewhere.
    fn scores_of(
        &self,
        (q, q_row): (&[f32], usize),
        h: usize,
        keys: &[f32],
        alibi: &Option<Vec<f32>>,
        queries: &Range<usize>,
        scores: &Grid,
    ) {
        self.isa.run(Matmul {
            rows: queries.len(),
            depth: self.e,
            columns: scores.seen.len(),
            x: q[queries.start * q_row + h * self.e..].as_ptr(),
            x_row: q_row,
            w: keys[scores.seen.start..].as_ptr(),
            w_row: self.key_row(),
            y: scores.at,
            y_row: scores.stride,
        });
        for (row, query) in queries.clone().enumerate() {
            let seen = self.seen(query);
            // SAFETY: rows of the block lie apart, and nobody else writes them
            let all = unsafe { scores.row(row) };
            let (from, to) = (seen.start - scores.seen.start, seen.end - scores.seen.start);
            all[..from].fill(f32::NEG_INFINITY);
            all[to..].fill(f32::NEG_INFINITY);
            self.isa.run(Finish {
                scores: &mut all[from..to],
                scale: self.rule.scale as f32,
                cap: self.rule.cap.map(|cap| cap as f32),
                alibi: alibi.as_ref().map(|alibi| &alibi[seen]),
            });
        }
    }

    /// The pattern of a block from its scores; both may be the same.
    fn softmax(&self, h: usize, queries: &Range<usize>, scores: &Grid, pattern: &Grid) {
        let sink = self.sinks.as_ref().map(|sinks| sinks[h]);
        for (row, query) in queries.clone().enumerate() {
            let seen = self.seen(query);
            let (from, to) = (seen.start - pattern.seen.start, seen.end - pattern.seen.start);
            if scores.at != pattern.at {
                // SAFETY: two rows that lie apart, of the same length
                unsafe {
                    let (source, target) = (scores.at.add(row * scores.stride), pattern.at.add(row * pattern.stride));
                    std::ptr::copy_nonoverlapping(source, target, pattern.seen.len());
                }
            }
            // SAFETY: as in `scores_of`
            let all = unsafe { pattern.row(row) };
            all[..from].fill(0.0);
            all[to..].fill(0.0);
            self.isa.run(Softmax { row: &mut all[from..to], sink });
        }
    }

    /// z of a block.
    fn mix_into(
        &self,
        z: Shared,
        h: usize,
        queries: &Range<usize>,
        pattern: &Grid,
        (v, v_row, g): (&[f32], usize, usize),
    ) {
        self.isa.run(Matmul {
            rows: queries.len(),
            depth: pattern.seen.len(),
            columns: self.e,
            x: pattern.at,
            x_row: pattern.stride,
            w: v[pattern.seen.start * v_row + g * self.e..].as_ptr(),
            w_row: v_row,
            y: z.at((queries.start * self.n_heads + h) * self.e),
            y_row: self.n_heads * self.e,
        });
    }
}

/// Scores or a pattern of a block of queries and the keys of `seen`.
#[derive(Clone)]
struct Grid {
    at: *mut f32,
    stride: usize,
    seen: Range<usize>,
}

impl Grid {
    /// Fewer keys.
    fn narrowed(&self, seen: Range<usize>) -> Grid {
        Grid { at: self.at.wrapping_add(seen.start - self.seen.start), stride: self.stride, seen }
    }

    /// # Safety
    /// The row has been written, and nobody else uses it.
    #[allow(clippy::mut_from_ref)]
    unsafe fn row(&self, row: usize) -> &mut [f32] {
        // SAFETY: the caller's
        unsafe { std::slice::from_raw_parts_mut(self.at.add(row * self.stride), self.seen.len()) }
    }
}

/// From products to scores: scale, cap, bias.
pub(super) struct Finish<'a> {
    pub scores: &'a mut [f32],
    pub scale: f32,
    pub cap: Option<f32>,
    pub alibi: Option<&'a [f32]>,
}

impl Kernel for Finish<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self) {
        match self.cap {
            None => self.scores.iter_mut().for_each(|s| *s *= self.scale),
            Some(cap) => self.scores.iter_mut().for_each(|s| *s = cap * tanh::<S>(*s * self.scale / cap)),
        }
        if let Some(alibi) = self.alibi {
            self.scores.iter_mut().zip(alibi).for_each(|(s, bias)| *s += bias);
        }
    }
}

/// Softmax in place, beside a sink's score; the row has at least one number.
pub(super) struct Softmax<'a> {
    pub row: &'a mut [f32],
    pub sink: Option<f32>,
}

impl Kernel for Softmax<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self) {
        const LANES: usize = 16;
        let blocks = self.row.chunks_exact(LANES);
        let larger = |a: f32, b: f32| if a > b { a } else { b };
        let mut max = blocks.remainder().iter().fold(self.sink.unwrap_or(f32::NEG_INFINITY), |a, b| larger(a, *b));
        let mut maxima = [f32::NEG_INFINITY; LANES];
        for block in blocks {
            for (max, x) in maxima.iter_mut().zip(block) {
                *max = larger(*x, *max);
            }
        }
        max = maxima.into_iter().fold(max, larger);

        let mut sums = [0f32; LANES];
        let mut blocks = self.row.chunks_exact_mut(LANES);
        for block in &mut blocks {
            for (sum, x) in sums.iter_mut().zip(block) {
                *x = exp::<S>(*x - max);
                *sum += *x;
            }
        }
        let mut total = self.sink.map_or(0.0, |sink| exp::<S>(sink - max));
        for x in blocks.into_remainder() {
            *x = exp::<S>(*x - max);
            total += *x;
        }
        let mut width = LANES / 2;
        while width > 0 {
            for i in 0..width {
                sums[i] += sums[i + width];
            }
            width /= 2;
        }
        let inverse = 1.0 / (total + sums[0]);
        self.row.iter_mut().for_each(|x| *x *= inverse);
    }
}
