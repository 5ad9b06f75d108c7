//! Attention of single rows behind keys and values that they share: one product per group and key head, of the queries
//! of all its rows.

use super::attention::{Finish, Softmax};
use super::matmul::Matmul;
use super::parallel::split;
use super::simd::Isa;
use super::tensor::{Fresh, Rows, Shared};
use crate::error::Result;
use crate::ops::attention::{ScoreRule, alibi_of_head};
use crate::ops::branches::Branches;
use candle_core::Tensor;
use std::ops::Range;

/// The heads of some rows.
pub(crate) struct Heads<'a> {
    isa: Isa,
    rows: usize,
    n_heads: usize,
    n_kv: usize,
    e: usize,
    rule: &'a ScoreRule,
    /// [H]
    sinks: Option<Vec<f32>>,
}

/// Numbers of rows, and how far apart the rows lie.
#[derive(Clone, Copy)]
struct Table<'a> {
    numbers: &'a [f32],
    stride: usize,
}

impl<'a> Heads<'a> {
    /// Of queries [rows, H, e] and keys [rows, G, e].
    pub fn of(isa: Isa, q: &Tensor, k: &Tensor, rule: &'a ScoreRule, sinks: Option<&Tensor>) -> Result<Self> {
        let ((rows, n_heads, e), n_kv) = (q.dims3()?, k.dim(1)?);
        let sinks = sinks.map(|sinks| sinks.to_vec1()).transpose()?;
        Ok(Heads { isa, rows, n_heads, n_kv, e, rule, sinks })
    }

    /// z [rows, H, e].
    pub fn attend(&self, q: &Tensor, [k, v]: [&Tensor; 2], groups: &[Branches]) -> Result<Tensor> {
        let [q, k, v] = [q, k, v].map(Rows::of);
        let (q, k, v) = (q?, k?, v?);
        let (q_numbers, k_numbers, v_numbers) = (q.numbers()?, k.numbers()?, v.numbers()?);
        let table = |numbers, stride| Table { numbers, stride };
        let own = [table(&*q_numbers, q.stride), table(&*k_numbers, k.stride), table(&*v_numbers, v.stride)];
        let pasts = groups.iter().map(|group| Ok([Rows::of(group.past[0])?, Rows::of(group.past[1])?]));
        let pasts = pasts.collect::<Result<Vec<_>>>()?;
        let numbers = pasts.iter().map(|[k, v]| Ok([k.numbers()?, v.numbers()?])).collect::<Result<Vec<_>>>()?;
        // sharing a tensor among threads is fine, sharing the guard of its storage is not
        let pasts: Vec<[Table; 2]> = pasts
            .iter()
            .zip(&numbers)
            .map(|([k, v], [k_numbers, v_numbers])| [table(&**k_numbers, k.stride), table(&**v_numbers, v.stride)])
            .collect();
        let mut z = Fresh::new((self.rows, self.n_heads, self.e));
        let place = z.place();
        split(groups.len() * self.n_kv, 1, 1, &|jobs| {
            for job in jobs {
                let (group, g) = (job / self.n_kv, job % self.n_kv);
                self.key_head(g, &groups[group], own, pasts[group], place);
            }
        });
        // SAFETY: every row belongs to one group, head by head
        unsafe { z.written() }
    }

    /// The query heads of key head `g`, at the rows of one group.
    fn key_head(&self, g: usize, group: &Branches, [q, k, v]: [Table; 3], [past_k, past_v]: [Table; 2], z: Shared) {
        let (e, per_group) = (self.e, self.n_heads / self.n_kv);
        let seen = self.seen(group.position);
        let (n_past, width) = (seen.len() - 1, seen.len());
        let n = group.rows.len() * per_group;
        let heads = g * per_group..(g + 1) * per_group;
        // row after row, and head after head in it
        let mut queries = Vec::with_capacity(n * e);
        for row in &group.rows {
            let at = *row as usize * q.stride + heads.start * e;
            queries.extend_from_slice(&q.numbers[at..at + per_group * e]);
        }
        let mut scores = vec![0.0; n * width];
        let keys = transposed(past_k, seen.start..group.position, g, e);
        self.isa.run(Matmul {
            rows: n,
            depth: e,
            columns: n_past,
            x: queries.as_ptr(),
            x_row: e,
            w: keys.as_ptr(),
            w_row: key_row(n_past),
            y: scores.as_mut_ptr(),
            y_row: width,
        });
        let alibi = self.rule.alibi.as_ref();
        let alibi: Option<Vec<Vec<f32>>> =
            alibi.map(|alibi| heads.clone().map(|h| alibi_of_head(alibi, h, group.position + 1)).collect());
        for (i, (scores, query)) in scores.chunks_exact_mut(width).zip(queries.chunks_exact(e)).enumerate() {
            let (row, h) = (group.rows[i / per_group] as usize, i % per_group);
            let key = &k.numbers[row * k.stride + g * e..][..e];
            scores[n_past] = query.iter().zip(key).map(|(q, k)| q * k).sum();
            self.isa.run(Finish {
                scores: &mut *scores,
                scale: self.rule.scale as f32,
                cap: self.rule.cap.map(|cap| cap as f32),
                alibi: alibi.as_ref().map(|alibi| &alibi[h][seen.clone()]),
            });
            self.isa.run(Softmax { row: scores, sink: self.sinks.as_ref().map(|sinks| sinks[heads.start + h]) });
        }
        let mut mixed = queries; // as large
        self.isa.run(Matmul {
            rows: n,
            depth: n_past,
            columns: e,
            x: scores.as_ptr(),
            x_row: width,
            w: past_v.numbers.as_ptr().wrapping_add(seen.start * past_v.stride + g * e),
            w_row: past_v.stride,
            y: mixed.as_mut_ptr(),
            y_row: e,
        });
        for (i, (pattern, mixed)) in scores.chunks_exact(width).zip(mixed.chunks_exact(e)).enumerate() {
            let (row, h) = (group.rows[i / per_group] as usize, heads.start + i % per_group);
            let value = &v.numbers[row * v.stride + g * e..][..e];
            let z = z.at((row * self.n_heads + h) * e);
            for (j, (mixed, value)) in mixed.iter().zip(value).enumerate() {
                // SAFETY: this row's head, which nobody else writes
                unsafe { z.add(j).write(mixed + pattern[n_past] * value) };
            }
        }
    }

    /// Positions that a query sees, its own the last.
    fn seen(&self, position: usize) -> Range<usize> {
        self.rule.window.map_or(0, |window| (position + 1).saturating_sub(window))..position + 1
    }
}

/// Keys of one head as [e, pos].
fn transposed(k: Table, positions: Range<usize>, g: usize, e: usize) -> Vec<f32> {
    let row = key_row(positions.len());
    let mut keys = vec![0.0; e * row];
    for (column, position) in positions.enumerate() {
        let key = &k.numbers[position * k.stride + g * e..][..e];
        for (i, number) in key.iter().enumerate() {
            keys[i * row + column] = *number;
        }
    }
    keys
}

/// From one row of the transposed keys to the next: rows that lie a power of two apart would share few places of the
/// first cache.
fn key_row(n: usize) -> usize {
    n + 16
}
