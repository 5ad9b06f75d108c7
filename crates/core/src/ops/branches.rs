//! Attention of single rows that share what lies before them: branches of one prompt at one position, each with a query,
//! a key and a value of its own there.
//!
//! ```text
//! scores[r, h, j] = cap(scale · q[r, h] · k[j, g(h)]) + alibi[h, j]     j before the position: the shared keys
//!                                                                      j at the position: the row's own key
//! z[r, h] = Σ_j softmax(scores[r, h])[j] v[j, g(h)]                     the row's own value likewise
//! ```
//!
//! Nothing is copied per row: the shared keys and values are read once for all of them.

use super::Kernels;
use super::attention::{ScoreRule, biases, mask, pattern_plain};
use super::cpu::branches::Heads;
use super::matmul::matmul;
use super::ragged::{MOST_COPIED, MOST_SCORES, in_order, rows_of};
use crate::error::{PrismError, Result};
use candle_core::Tensor;
use std::collections::BTreeMap;

/// Rows at one position that share the keys and values before it.
pub struct Branches<'a> {
    /// Keys and values, [pos, G, e] each, of which the first `position` count.
    pub past: [&'a Tensor; 2],
    /// Where the rows stand.
    pub position: usize,
    /// Which rows.
    pub rows: Vec<u32>,
}

/// z of every row; each belongs to one group.
///
/// # Shapes
/// q [rows, H, e], own k and v [rows, G, e], sinks [H] → [rows, H, e].
///
/// # Errors
/// `INTERNAL` where shapes do not fit.
pub fn attend_branches(
    kernels: Kernels,
    q: &Tensor,
    [k, v]: [&Tensor; 2],
    groups: &[Branches],
    rule: &ScoreRule,
    sinks: Option<&Tensor>,
) -> Result<Tensor> {
    if !fits(q, [k, v], groups, sinks) {
        let problem = "rows of no group or of two, or heads that do not fit".into();
        return Err(PrismError::Internal { place: "attention of branches".into(), problem });
    }
    match kernels {
        Kernels::Fused(isa) => Heads::of(isa, q, k, rule, sinks)?.attend(q, [k, v], groups),
        Kernels::Plain => plain(q, [k, v], groups, rule, sinks),
    }
}

/// Whether these are queries, keys and values of heads that fit, and every row belongs to one group.
fn fits(q: &Tensor, [k, v]: [&Tensor; 2], groups: &[Branches], sinks: Option<&Tensor>) -> bool {
    let (Ok((rows, n_heads, e)), Ok((n_key, n_kv, width))) = (q.dims3(), k.dims3()) else { return false };
    let mut seen = vec![false; rows];
    let once = |row: &u32| seen.get_mut(*row as usize).is_some_and(|seen| !std::mem::replace(seen, true));
    let is_past = |t: &Tensor, position: usize| t.dims3().is_ok_and(|(n, g, w)| n >= position && (g, w) == (n_kv, e));
    let pasts = groups.iter().all(|group| group.past.iter().all(|t| is_past(t, group.position)));
    (rows, e) == (n_key, width)
        && k.dims() == v.dims()
        && n_kv > 0
        && n_heads % n_kv == 0
        && sinks.is_none_or(|sinks| sinks.dims() == [n_heads])
        && pasts
        && groups.iter().map(|group| group.rows.len()).sum::<usize>() == rows
        && groups.iter().flat_map(|group| &group.rows).all(once)
}

/// Groups at one position with as many rows are one batch of matrix products, for which their pasts are copied side by
/// side.
fn plain(
    q: &Tensor,
    [k, v]: [&Tensor; 2],
    groups: &[Branches],
    rule: &ScoreRule,
    sinks: Option<&Tensor>,
) -> Result<Tensor> {
    let mut alike = BTreeMap::<_, Vec<&Branches>>::new();
    for group in groups.iter().filter(|group| !group.rows.is_empty()) {
        alike.entry((group.position, group.rows.len())).or_default().push(group);
    }
    let (n_heads, width) = (q.dim(1)?, k.dim(1)? * k.dim(2)?);
    let (mut parts, mut order) = (Vec::new(), Vec::new());
    for ((position, n_rows), groups) in alike {
        let of_scores = MOST_SCORES / (n_heads * n_rows * (position + 1));
        let at_once = of_scores.min(MOST_COPIED / (position * width).max(1)).max(1);
        for groups in groups.chunks(at_once) {
            let rows: Vec<usize> = groups.iter().flat_map(|group| &group.rows).map(|row| *row as usize).collect();
            let [q, k, v] = [q, k, v].map(|t| rows_of(t, &rows));
            parts.push(attend_alike(&q?, [&k?, &v?], groups, rule, sinks)?);
            order.extend(rows);
        }
    }
    in_order(&Tensor::cat(&parts, 0)?, &order)
}

/// z of groups at one position, as many rows of each, one behind the other.
///
/// # Shapes
/// q [groups · rows, H, e], own k and v [groups · rows, G, e] → [groups · rows, H, e].
fn attend_alike(
    q: &Tensor,
    [k, v]: [&Tensor; 2],
    groups: &[&Branches],
    rule: &ScoreRule,
    sinks: Option<&Tensor>,
) -> Result<Tensor> {
    let (all, n_heads, e) = q.dims3()?;
    let (n, n_kv, position) = (groups.len(), k.dim(1)?, groups[0].position);
    let (rows, shared) = (all / n, n_heads / n_kv); // rows of a group, query heads of a key head
    let by_head = |t: &Tensor, width: usize| -> Result<Tensor> {
        Ok(t.reshape((n, rows, n_heads, width))?.transpose(1, 2)?.contiguous()?)
    };
    let own = matmul(&q.reshape((all * n_kv, shared, e))?, &k.reshape((all * n_kv, e, 1))?)?;
    let mut scores = by_head(&own, 1)?; // [groups, H, rows, 1]
    if position > 0 {
        let q = by_head(q, e)?.reshape((n * n_kv, shared * rows, e))?;
        let of_past = matmul(&q, &pasts(groups, 0)?.t()?)?.reshape((n, n_heads, rows, position))?;
        scores = Tensor::cat(&[of_past, scores], 3)?;
    }
    let pattern = pattern_plain(&ruled((scores * rule.scale)?, position, rule)?, sinks)?;
    let to_own = pattern.narrow(3, position, 1)?.transpose(1, 2)?.contiguous()?;
    let own = matmul(&to_own.reshape((all * n_kv, shared, 1))?, &v.reshape((all * n_kv, 1, e))?)?;
    let own = own.reshape((all, n_heads, e))?;
    if position == 0 {
        return Ok(own);
    }
    let to_past = pattern.narrow(3, 0, position)?.contiguous()?.reshape((n * n_kv, shared * rows, position))?;
    let z = matmul(&to_past, &pasts(groups, 1)?)?.reshape((n, n_heads, rows, e))?;
    Ok((z.transpose(1, 2)?.contiguous()?.reshape((all, n_heads, e))? + own)?)
}

/// What lies before groups at one position, keys (0) or values (1): [groups · G, position, e].
fn pasts(groups: &[&Branches], i: usize) -> Result<Tensor> {
    let position = groups[0].position;
    let each = groups.iter().map(|group| Ok(group.past[i].narrow(0, 0, position)?)).collect::<Result<Vec<_>>>()?;
    let (_, n_kv, e) = each[0].dims3()?;
    let by_head = Tensor::cat(&each, 0)?.reshape((groups.len(), position, n_kv, e))?.transpose(1, 2)?.contiguous()?;
    Ok(by_head.reshape((groups.len() * n_kv, position, e))?)
}

/// Scaled scores [groups, H, rows, position + 1], capped, biased and masked.
fn ruled(mut scores: Tensor, position: usize, rule: &ScoreRule) -> Result<Tensor> {
    if let Some(cap) = rule.cap {
        scores = ((scores / cap)?.tanh()? * cap)?;
    }
    if let Some(alibi) = &rule.alibi {
        scores = scores.broadcast_add(&biases(alibi, position + 1, scores.device())?)?;
    }
    // every row stands behind all keys: nothing else is masked
    if rule.window.is_some() {
        scores = scores.broadcast_add(&mask(1, position, position + 1, rule.window, scores.device())?)?;
    }
    Ok(scores)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Alibi, AlibiZero};
    use crate::ops::attention::attend;
    use crate::ops::testing::{close, matrix, test_device, values};

    /// The naive twin: row by row, each behind a copy of what it shares.
    fn naive(q: &Tensor, own: [&Tensor; 2], groups: &[Branches], rule: &ScoreRule, sinks: Option<&Tensor>) -> Tensor {
        let row = |at: usize| {
            let group = groups.iter().find(|group| group.rows.contains(&(at as u32))).unwrap();
            let [k, v] = [0, 1].map(|i: usize| {
                let past = group.past[i].narrow(0, 0, group.position).unwrap();
                Tensor::cat(&[past, own[i].narrow(0, at, 1).unwrap()], 0).unwrap()
            });
            let q = q.narrow(0, at, 1).unwrap();
            attend(Kernels::Plain, &q, group.position, [&k, &v], rule, sinks).unwrap()
        };
        Tensor::cat(&(0..q.dim(0).unwrap()).map(row).collect::<Vec<_>>(), 0).unwrap()
    }

    /// Groups of rows that alternate, two of them alike, behind pasts that are views: as if every row stood alone behind all
    /// of its keys, by candle's operations.
    fn check([n_heads, n_kv, e]: [usize; 3], [first, second]: [usize; 2], rule: &ScoreRule, with_sinks: bool) {
        let rows = 10;
        let qkv = matrix(&[rows, n_heads + 2 * n_kv, e], 1);
        let part = |from: usize, n: usize| qkv.narrow(1, from, n).unwrap();
        let (q, k, v) = (part(0, n_heads), part(n_heads, n_kv), part(n_heads + n_kv, n_kv));
        let past = |length: usize, seed: u64| matrix(&[length + 3, n_kv, e], seed).narrow(0, 2, length + 1).unwrap();
        let pasts = [past(first, 2), past(first, 3), past(second, 4), past(second, 5)];
        let sinks = with_sinks.then(|| matrix(&[n_heads], 6));
        let groups = [
            Branches { past: [&pasts[0], &pasts[1]], position: first, rows: vec![5, 0, 2] },
            Branches { past: [&pasts[2], &pasts[3]], position: second, rows: vec![1, 3, 4, 6] },
            Branches { past: [&pasts[1], &pasts[0]], position: first, rows: vec![9, 8, 7] },
        ];
        let expected = naive(&q, [&k, &v], &groups, rule, sinks.as_ref());
        for kernels in Kernels::all() {
            let found = attend_branches(kernels, &q, [&k, &v], &groups, rule, sinks.as_ref()).unwrap();
            assert_eq!(found.dims(), [rows, n_heads, e]);
            close(&found, &values(&expected), 1e-5);
        }
    }

    test_device!(branches_are_rows_that_stand_alone);
    fn branches_are_rows_that_stand_alone() {
        for sizes in [[1, 1, 1], [3, 3, 7], [4, 2, 8], [6, 1, 5], [2, 1, 40]] {
            for lengths in [[0, 1], [5, 9], [70, 3]] {
                let plain = ScoreRule { scale: 0.3, ..ScoreRule::default() };
                check(sizes, lengths, &plain, false);
                check(sizes, lengths, &plain, true);
                check(sizes, lengths, &ScoreRule { cap: Some(0.2), ..plain.clone() }, false);
                for window in [1, 2, 4, 100] {
                    check(sizes, lengths, &ScoreRule { window: Some(window), ..plain.clone() }, window == 2);
                }
                let slopes: Vec<f64> = (0..sizes[0]).map(|h| 0.5 / (h + 1) as f64).collect();
                for zero_at in [AlibiZero::First, AlibiZero::Last] {
                    let alibi = Alibi { slopes: slopes.clone(), zero_at, scale: 0.7, bf16: false };
                    check(sizes, lengths, &ScoreRule { alibi: Some(alibi), ..plain.clone() }, false);
                }
            }
        }
    }

    test_device!(a_row_of_no_group_or_of_two_is_an_error);
    fn a_row_of_no_group_or_of_two_is_an_error() {
        let (q, k) = (matrix(&[3, 4, 3], 1), matrix(&[3, 2, 3], 2));
        let past = matrix(&[5, 2, 3], 3);
        let rule = ScoreRule { scale: 1.0, ..ScoreRule::default() };
        let attend = |kernels, rows: Vec<u32>, position| {
            let groups = [Branches { past: [&past, &past], position, rows }];
            attend_branches(kernels, &q, [&k, &k], &groups, &rule, None)
        };
        for kernels in Kernels::all() {
            attend(kernels, vec![0, 1, 2], 5).unwrap();
            for (rows, position) in [(vec![0, 1], 5), (vec![0, 1, 1], 5), (vec![0, 1, 3], 5), (vec![0, 1, 2], 6)] {
                assert!(attend(kernels, rows.clone(), position).is_err(), "{rows:?} {position}");
            }
        }
    }
}
