//! Attention of many segments. The CPU takes one after the other; a GPU takes all that are of one shape together, for a
//! segment alone keeps only a few of its processors busy: prompts of one length are one batch of matrix products. Where
//! some borrow keys, those of all are copied side by side.

use super::Kernels;
use super::attention::{ScoreRule, attend, biases, mask, pattern_plain};
use super::matmul::matmul;
use crate::error::Result;
use candle_core::Tensor;
use std::collections::BTreeMap;
use std::ops::Range;

/// Scores that are formed at once, as numbers: a gibibyte of them, and far fewer than a kernel can count.
pub const MOST_SCORES: usize = 1 << 28;
/// Keys that are copied at once to lie side by side, as numbers, and as many values.
pub const MOST_COPIED: usize = 1 << 26;

/// Consecutive queries of a segment and what they may look at.
pub struct View {
    /// Which rows of all queries.
    pub queries: Range<usize>,
    /// The position of the first.
    pub first: usize,
    /// Keys of the segment from its position 0 on, [key_pos, G, e].
    pub keys: Tensor,
    /// Values, [key_pos, G, e].
    pub values: Tensor,
    /// Which rows of all keys and values these are, unless some are borrowed.
    pub own: Option<Range<usize>>,
}

impl View {
    /// Views of one shape are computed together: (query_pos, the first's position, key_pos).
    fn shape(&self) -> Result<(usize, usize, usize)> {
        Ok((self.queries.len(), self.first, self.keys.dim(0)?))
    }
}

/// z of all queries, in order; the views divide them.
///
/// # Shapes
/// q [rows of queries, H, e], k and v [rows of keys, G, e], sinks [H] → [rows of queries, H, e].
///
/// # Errors
/// `INTERNAL` where shapes do not fit.
pub fn attend_all(
    kernels: Kernels,
    q: &Tensor,
    [k, v]: [&Tensor; 2],
    views: &[View],
    rule: &ScoreRule,
    sinks: Option<&Tensor>,
) -> Result<Tensor> {
    let alone = |view: &View| {
        let q = q.narrow(0, view.queries.start, view.queries.len())?;
        attend(kernels, &q, view.first, [&view.keys, &view.values], rule, sinks)
    };
    if kernels != Kernels::Plain {
        return Ok(Tensor::cat(&views.iter().map(alone).collect::<Result<Vec<_>>>()?, 0)?);
    }
    let mut alike = BTreeMap::<_, Vec<&View>>::new();
    for view in views {
        alike.entry(view.shape()?).or_default().push(view);
    }
    let (n_heads, width) = (q.dim(1)?, k.dim(1)? * k.dim(2)?);
    let (mut parts, mut order) = (Vec::new(), Vec::new());
    for ((n_query, first, n_key), views) in alike {
        let of_scores = MOST_SCORES / (n_heads * n_query * n_key).max(1);
        let at_once = of_scores.min(MOST_COPIED / (n_key * width).max(1)).max(1);
        for views in views.chunks(at_once) {
            let queries: Vec<usize> = views.iter().flat_map(|view| view.queries.clone()).collect();
            let own: Option<Vec<usize>> = views
                .iter()
                .map(|view| view.own.clone())
                .collect::<Option<Vec<_>>>()
                .map(|ranges| ranges.into_iter().flatten().collect());
            let of = |all: &Tensor, each: fn(&View) -> &Tensor| match &own {
                Some(rows) => rows_of(all, rows),
                None => Ok(Tensor::cat(&views.iter().map(|view| each(view)).collect::<Vec<_>>(), 0)?),
            };
            let (k, v) = (of(k, |view| &view.keys)?, of(v, |view| &view.values)?);
            parts.push(attend_alike(&rows_of(q, &queries)?, first, [&k, &v], views.len(), rule, sinks)?);
            order.extend(queries);
        }
    }
    in_order(&Tensor::cat(&parts, 0)?, &order)
}

/// [`attend`] of `n` segments of one shape, one behind the other.
///
/// # Shapes
/// q [n · query_pos, H, e], k and v [n · key_pos, G, e] → [n · query_pos, H, e].
fn attend_alike(
    q: &Tensor,
    first: usize,
    [k, v]: [&Tensor; 2],
    n: usize,
    rule: &ScoreRule,
    sinks: Option<&Tensor>,
) -> Result<Tensor> {
    let (n_heads, e) = (q.dim(1)?, q.dim(2)?);
    let (n_query, n_key, n_kv) = (q.dim(0)? / n, k.dim(0)? / n, k.dim(1)?);
    let group = n_heads / n_kv * n_query; // the queries that share a key head stack into one matrix
    let by_head = |t: &Tensor, rows: usize, heads: usize| {
        let t = t.reshape((n, rows, heads, e))?.transpose(1, 2)?.contiguous()?;
        t.reshape((n * n_kv, heads / n_kv * rows, e))
    };
    let q = by_head(q, n_query, n_heads)?;
    let [k, v] = [k, v].map(|t| by_head(t, n_key, n_kv));
    let mut scores = (matmul(&q, &k?.t()?)? * rule.scale)?.reshape((n, n_heads, n_query, n_key))?;
    if let Some(cap) = rule.cap {
        scores = ((scores / cap)?.tanh()? * cap)?;
    }
    if let Some(alibi) = &rule.alibi {
        scores = scores.broadcast_add(&biases(alibi, n_key, scores.device())?)?;
    }
    scores = scores.broadcast_add(&mask(n_query, first, n_key, rule.window, scores.device())?)?;
    let pattern = pattern_plain(&scores, sinks)?.reshape((n * n_kv, group, n_key))?;
    let z = matmul(&pattern, &v?)?.reshape((n, n_heads, n_query, e))?;
    Ok(z.transpose(1, 2)?.contiguous()?.reshape((n * n_query, n_heads, e))?)
}

/// Some rows, one behind the other: a view where they lie so already.
pub(super) fn rows_of(t: &Tensor, rows: &[usize]) -> Result<Tensor> {
    if rows.windows(2).all(|pair| pair[0] + 1 == pair[1]) {
        return Ok(t.narrow(0, rows.first().map_or(0, |row| *row), rows.len())?.contiguous()?);
    }
    let rows: Vec<u32> = rows.iter().map(|row| *row as u32).collect();
    Ok(t.contiguous()?.index_select(&Tensor::new(rows, t.device())?, 0)?)
}

/// Rows that were computed in this order, in their own.
pub(super) fn in_order(t: &Tensor, order: &[usize]) -> Result<Tensor> {
    if order.iter().enumerate().all(|(i, row)| i == *row) {
        return Ok(t.clone());
    }
    let mut places = vec![0u32; order.len()];
    order.iter().enumerate().for_each(|(i, row)| places[*row] = i as u32);
    Ok(t.index_select(&Tensor::new(places, t.device())?, 0)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Alibi, AlibiZero};
    use crate::ops::testing::{close, matrix, test_device, values};

    /// Segments of these lengths, each with its last queries only, and their views.
    fn segments(lengths: &[(usize, usize)], k: &Tensor, v: &Tensor) -> Vec<View> {
        let (mut row, mut query) = (0, 0);
        let view = |&(length, queries): &(usize, usize)| {
            let rows = row..row + length;
            (row, query) = (row + length, query + queries);
            let of = |t: &Tensor| t.narrow(0, rows.start, length).unwrap();
            let queries = query - queries..query;
            View {
                queries: queries.clone(),
                first: length - queries.len(),
                keys: of(k),
                values: of(v),
                own: Some(rows),
            }
        };
        lengths.iter().map(view).collect()
    }

    test_device!(segments_together_are_segments_one_by_one);
    fn segments_together_are_segments_one_by_one() {
        // alike side by side, alike apart, and alone
        for lengths in [&[(5, 5), (5, 5)][..], &[(5, 5), (3, 2), (5, 5), (7, 1), (3, 2)], &[(4, 1)]] {
            let (rows, queries) = lengths.iter().fold((0, 0), |(r, q), (length, n)| (r + length, q + n));
            let wide = matrix(&[queries, 6, 8], 1);
            let q = wide.narrow(1, 1, 4).unwrap(); // heads of a wider tensor, as they come from one product
            let (k, v) = (matrix(&[rows, 2, 8], 2), matrix(&[rows, 2, 8], 3));
            let alibi =
                Alibi { slopes: vec![0.5, 0.25, 0.125, 0.0625], zero_at: AlibiZero::First, scale: 1.0, bf16: false };
            let rules = [
                ScoreRule { scale: 0.35, ..ScoreRule::default() },
                ScoreRule { scale: 0.35, cap: Some(2.0), window: Some(3), alibi: Some(alibi) },
            ];
            let sinks = matrix(&[4], 4);
            for (rule, sinks) in rules.iter().flat_map(|rule| [(rule, None), (rule, Some(&sinks))]) {
                let views = segments(lengths, &k, &v);
                let one_by_one = |view: &View| {
                    let q = q.narrow(0, view.queries.start, view.queries.len()).unwrap();
                    attend(Kernels::Plain, &q, view.first, [&view.keys, &view.values], rule, sinks).unwrap()
                };
                let expected = Tensor::cat(&views.iter().map(one_by_one).collect::<Vec<_>>(), 0).unwrap();
                for kernels in Kernels::all() {
                    let z = attend_all(kernels, &q, [&k, &v], &views, rule, sinks).unwrap();
                    close(&z, &values(&expected), 2e-6);
                }
            }
        }
    }

    test_device!(what_borrows_keys_is_taken_with_the_others);
    fn what_borrows_keys_is_taken_with_the_others() {
        let (q, k, v) = (matrix(&[6, 2, 4], 1), matrix(&[6, 2, 4], 2), matrix(&[6, 2, 4], 3));
        let rule = ScoreRule { scale: 0.5, ..ScoreRule::default() };
        let mut views = segments(&[(2, 2), (2, 2), (2, 2)], &k, &v);
        let expected = attend_all(Kernels::Plain, &q, [&k, &v], &views, &rule, None).unwrap();
        // what it borrows lies elsewhere, and is another's
        let (elsewhere, others) = (matrix(&[2, 2, 4], 4), matrix(&[2, 2, 4], 5));
        (views[1].keys, views[1].values, views[1].own) = (elsewhere.clone(), others.clone(), None);
        let z = attend_all(Kernels::Plain, &q, [&k, &v], &views, &rule, None).unwrap();
        let alone = attend(Kernels::Plain, &q.narrow(0, 2, 2).unwrap(), 0, [&elsewhere, &others], &rule, None).unwrap();
        let part = |t: &Tensor, first| t.narrow(0, first, 2).unwrap();
        close(&part(&z, 2), &values(&alone), 1e-6);
        for first in [0, 4] {
            close(&part(&z, first), &values(&part(&expected, first)), 1e-6);
        }
    }
}
