//! Attention of one segment, in the three steps that have hook points:
//!
//! ```text
//! scores[h, q, k] = cap(scale · q[q, h] · k[k, g(h)]) + alibi[h, k]      −∞ where query q does not see key k
//! pattern[h, q, :] = softmax(scores[h, q, :])                           beside a sink's score, if there is one
//! z[q, h] = Σ_k pattern[h, q, k] v[k, g(h)]
//! ```
//!
//! `g(h) = h / (H / G)`: `H / G` query heads share a key and value head. Keys may begin before the queries do: the first
//! query stands at position `key_pos − query_pos`.
//!
//! [`attend`] takes all three steps at once and forms neither scores nor pattern; its numbers are those of the steps.

use super::Kernels;
use super::cpu::attention::Heads;
use super::matmul::matmul;
use crate::config::{Alibi, AlibiZero};
use crate::error::Result;
use candle_core::{D, Device, Tensor};

/// How scores are made from products of queries and keys.
#[derive(Debug, Clone, Default)]
pub struct ScoreRule {
    /// Multiplies the products.
    pub scale: f64,
    /// Then `cap · tanh(score / cap)`.
    pub cap: Option<f64>,
    /// A query sees its own position and the `window − 1` before it.
    pub window: Option<usize>,
    /// A bias that is linear in the key's position.
    pub alibi: Option<Alibi>,
}

/// z of queries, keys and values; the first query stands at position `first`.
///
/// # Shapes
/// q [query_pos, H, e], k and v [key_pos, G, e], sinks [H] → [query_pos, H, e].
///
/// # Errors
/// `INTERNAL` where shapes do not fit.
pub fn attend(
    kernels: Kernels,
    q: &Tensor,
    first: usize,
    [k, v]: [&Tensor; 2],
    rule: &ScoreRule,
    sinks: Option<&Tensor>,
) -> Result<Tensor> {
    match kernels {
        Kernels::Fused(isa) if fits(q, k, v, sinks) && first + q.dim(0)? <= k.dim(0)? => {
            Heads::of(isa, q.dims3()?, k.dims3()?, rule, sinks)?.from(first).attend(q, k, v)
        }
        _ => mix_plain(&pattern_plain(&scores_plain(q, first, k, rule)?, sinks)?, v),
    }
}

/// Whether these are queries, keys and values of heads that fit, the first query at one of the keys.
fn fits(q: &Tensor, k: &Tensor, v: &Tensor, sinks: Option<&Tensor>) -> bool {
    let (Ok((n_query, n_heads, e)), Ok((n_key, n_kv, width))) = (q.dims3(), k.dims3()) else { return false };
    let sinks = sinks.is_none_or(|sinks| sinks.dims() == [n_heads]);
    k.dims() == v.dims() && width == e && n_query <= n_key && n_kv > 0 && n_heads % n_kv == 0 && sinks
}

/// Scaled, capped, biased and masked scores.
///
/// # Shapes
/// q [query_pos, H, e], k [key_pos, G, e] → [H, query_pos, key_pos].
///
/// # Errors
/// `INTERNAL` where shapes do not fit.
pub fn scores(kernels: Kernels, q: &Tensor, k: &Tensor, rule: &ScoreRule) -> Result<Tensor> {
    if let (Kernels::Fused(isa), true) = (kernels, fits(q, k, k, None)) {
        return Heads::of(isa, q.dims3()?, k.dims3()?, rule, None)?.scores(q, k);
    }
    scores_plain(q, k.dim(0)?.saturating_sub(q.dim(0)?), k, rule)
}

fn scores_plain(q: &Tensor, first: usize, k: &Tensor, rule: &ScoreRule) -> Result<Tensor> {
    let (n_query, n_heads, d_head) = q.dims3()?;
    let (n_key, n_key_heads, _) = k.dims3()?;
    // the heads of a group stand side by side, so their queries stack into one matrix: [G, H/G · query_pos, e]
    let q = q.transpose(0, 1)?.contiguous()?.reshape((n_key_heads, n_heads / n_key_heads * n_query, d_head))?;
    let k = k.transpose(0, 1)?.contiguous()?;
    let mut scores = (matmul(&q, &k.t()?)? * rule.scale)?.reshape((n_heads, n_query, n_key))?;
    if let Some(cap) = rule.cap {
        scores = ((scores / cap)?.tanh()? * cap)?;
    }
    if let Some(alibi) = &rule.alibi {
        scores = scores.broadcast_add(&biases(alibi, n_key, scores.device())?)?;
    }
    Ok(scores.broadcast_add(&mask(n_query, first, n_key, rule.window, scores.device())?)?)
}

/// Softmax over the keys. Every query sees at least its own position, so no row is empty. A sink takes its part of the
/// softmax and is left out: with sinks rows sum to less than 1.
///
/// # Shapes
/// scores [H, query_pos, key_pos], sinks [H] → [H, query_pos, key_pos].
///
/// # Errors
/// `INTERNAL` where shapes do not fit.
pub fn pattern(kernels: Kernels, scores: &Tensor, rule: &ScoreRule, sinks: Option<&Tensor>) -> Result<Tensor> {
    if let Kernels::Fused(isa) = kernels {
        let (n_heads, n_query, n_key) = scores.dims3()?;
        if n_query <= n_key && sinks.is_none_or(|sinks| sinks.dims() == [n_heads]) {
            return Heads::of(isa, (n_query, n_heads, 1), (n_key, n_heads, 1), rule, sinks)?.pattern(scores);
        }
    }
    pattern_plain(scores, sinks)
}

pub(super) fn pattern_plain(scores: &Tensor, sinks: Option<&Tensor>) -> Result<Tensor> {
    let max = scores.max_keepdim(D::Minus1)?;
    let Some(sinks) = sinks else {
        let exp = scores.broadcast_sub(&max)?.exp()?;
        return Ok(exp.broadcast_div(&exp.sum_keepdim(D::Minus1)?)?);
    };
    let sinks = sinks.reshape(((), 1, 1))?.broadcast_as(max.shape())?;
    let max = max.maximum(&sinks)?;
    let exp = scores.broadcast_sub(&max)?.exp()?;
    let total = (exp.sum_keepdim(D::Minus1)? + (sinks - max)?.exp()?)?;
    Ok(exp.broadcast_div(&total)?)
}

/// The values, mixed as the pattern says.
///
/// # Shapes
/// pattern [H, query_pos, key_pos], v [key_pos, G, e] → [query_pos, H, e].
///
/// # Errors
/// `INTERNAL` where shapes do not fit.
pub fn mix(kernels: Kernels, pattern: &Tensor, v: &Tensor, rule: &ScoreRule) -> Result<Tensor> {
    if let Kernels::Fused(isa) = kernels {
        let (n_heads, n_query, n_key) = pattern.dims3()?;
        let (n_value, n_kv, e) = v.dims3()?;
        if n_query <= n_key && n_value == n_key && n_kv > 0 && n_heads % n_kv == 0 {
            return Heads::of(isa, (n_query, n_heads, e), v.dims3()?, rule, None)?.mix(pattern, v);
        }
    }
    mix_plain(pattern, v)
}

fn mix_plain(pattern: &Tensor, v: &Tensor) -> Result<Tensor> {
    let (n_heads, n_query, n_key) = pattern.dims3()?;
    let (_, n_key_heads, d_head) = v.dims3()?;
    let pattern = pattern.reshape((n_key_heads, n_heads / n_key_heads * n_query, n_key))?;
    let z = matmul(&pattern, &v.transpose(0, 1)?.contiguous()?)?;
    Ok(z.reshape((n_heads, n_query, d_head))?.transpose(0, 1)?.contiguous()?)
}

/// 0 where a query may look, −∞ at the positions after its own and before its window. [query_pos, key_pos]
pub(super) fn mask(
    n_query: usize,
    first: usize,
    n_key: usize,
    window: Option<usize>,
    device: &Device,
) -> Result<Tensor> {
    let sees = |q: usize, k: usize| k <= first + q && window.is_none_or(|w| k + w > first + q);
    let row = |q| (0..n_key).map(move |k| if sees(q, k) { 0.0 } else { f32::NEG_INFINITY });
    Ok(Tensor::from_vec((0..n_query).flat_map(row).collect(), (n_query, n_key), device)?)
}

/// `scale · slope · (key_pos − zero)`, [H, 1, key_pos]
pub(super) fn biases(alibi: &Alibi, n_key: usize, device: &Device) -> Result<Tensor> {
    let all: Vec<f32> = (0..alibi.slopes.len()).flat_map(|h| alibi_of_head(alibi, h, n_key)).collect();
    Ok(Tensor::from_vec(all, (alibi.slopes.len(), 1, n_key), device)?)
}

/// Of one head, [key_pos]
pub(super) fn alibi_of_head(alibi: &Alibi, h: usize, n_key: usize) -> Vec<f32> {
    let zero = if alibi.zero_at == AlibiZero::Last { n_key - 1 } else { 0 };
    let rounded = |x: f64| if alibi.bf16 { half::bf16::from_f64(x).to_f64() } else { x };
    let bias = |k: usize| alibi.scale * rounded(rounded(alibi.slopes[h]) * rounded(k as f64 - zero as f64));
    (0..n_key).map(|k| bias(k) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{close, device, matrix, test_device, values};

    /// The definition, loop by loop, in f64: scores, pattern, z.
    fn naive(q: &Tensor, k: &Tensor, v: &Tensor, rule: &ScoreRule, sinks: Option<&Tensor>) -> [Vec<f64>; 3] {
        let (nq, nh, e) = q.dims3().unwrap();
        let (nk, ng, _) = k.dims3().unwrap();
        let (q, k, v, sinks) = (values(q), values(k), values(v), sinks.map(values));
        let (mut scores, mut pattern, mut z) = (Vec::new(), Vec::new(), vec![0.0; nq * nh * e]);
        for h in 0..nh {
            let g = h * ng / nh;
            for i in 0..nq {
                let score = |j: usize| {
                    let (position, dot) =
                        (i + nk - nq, (0..e).map(|x| q[(i * nh + h) * e + x] * k[(j * ng + g) * e + x]));
                    if j > position || rule.window.is_some_and(|w| position - j >= w) {
                        return f64::NEG_INFINITY;
                    }
                    let scaled = rule.scale * dot.sum::<f64>();
                    let capped = rule.cap.map_or(scaled, |cap| cap * (scaled / cap).tanh());
                    let alibi = rule.alibi.as_ref();
                    let zero = if alibi.is_some_and(|a| a.zero_at == AlibiZero::Last) { nk - 1 } else { 0 };
                    capped + alibi.map_or(0.0, |a| a.scale * a.slopes[h] * (j as f64 - zero as f64))
                };
                let row: Vec<f64> = (0..nk).map(score).collect();
                let total = row.iter().map(|s| s.exp()).sum::<f64>() + sinks.as_ref().map_or(0.0, |s| s[h].exp());
                for (j, s) in row.iter().enumerate() {
                    let p = s.exp() / total;
                    pattern.push(p);
                    for x in 0..e {
                        z[(i * nh + h) * e + x] += p * v[(j * ng + g) * e + x];
                    }
                }
                scores.extend(row);
            }
        }
        [scores, pattern, z]
    }

    fn check([nq, nk, nh, ng, e]: [usize; 5], rule: &ScoreRule, with_sinks: bool) {
        let (q, k, v) = (matrix(&[nq, nh, e], 1), matrix(&[nk, ng, e], 2), matrix(&[nk, ng, e], 3));
        let sinks = with_sinks.then(|| matrix(&[nh], 4));
        let [s, p, z] = naive(&q, &k, &v, rule, sinks.as_ref());
        for kernels in Kernels::all() {
            let our_scores = scores(kernels, &q, &k, rule).unwrap();
            let our_pattern = pattern(kernels, &our_scores, rule, sinks.as_ref()).unwrap();
            let our_z = mix(kernels, &our_pattern, &v, rule).unwrap();
            assert_eq!(our_scores.dims(), [nh, nq, nk]);
            close(&our_scores, &s, 1e-5);
            close(&our_pattern, &p, 1e-5);
            close(&our_z, &z, 1e-5);
            // without forming scores and pattern: the same numbers
            let at_once = attend(kernels, &q, nk - nq, [&k, &v], rule, sinks.as_ref()).unwrap();
            assert_eq!(at_once.dims(), [nq, nh, e]);
            assert_eq!(values(&at_once), values(&our_z), "{kernels:?}");
        }
    }

    /// Queries, keys, heads, key heads, width: alone, odd sizes, grouped heads, keys that begin earlier.
    /// The last is longer than a block of queries.
    const SIZES: [[usize; 5]; 6] =
        [[1, 1, 1, 1, 1], [5, 5, 3, 3, 7], [9, 9, 4, 2, 8], [2, 11, 6, 1, 5], [1, 6, 4, 4, 3], [71, 140, 2, 1, 4]];

    test_device!(attention_is_its_definition);
    fn attention_is_its_definition() {
        for sizes in SIZES {
            let plain = ScoreRule { scale: 0.3, ..ScoreRule::default() };
            check(sizes, &plain, false);
            check(sizes, &plain, true);
            check(sizes, &ScoreRule { cap: Some(0.2), ..plain.clone() }, false);
            for window in [1, 2, 4, 100] {
                check(sizes, &ScoreRule { window: Some(window), ..plain.clone() }, false);
            }
            let slopes: Vec<f64> = (0..sizes[2]).map(|h| 0.5 / (h + 1) as f64).collect();
            let alibi = Alibi { slopes, zero_at: AlibiZero::First, scale: 0.7, bf16: false };
            check(sizes, &ScoreRule { alibi: Some(alibi.clone()), ..plain.clone() }, false);
            let alibi = Alibi { zero_at: AlibiZero::Last, ..alibi };
            check(sizes, &ScoreRule { alibi: Some(alibi), ..plain }, true);
        }
    }

    #[test]
    fn alibi_in_bfloat16_by_hand() {
        // bfloat16 keeps 8 bits: 2^−0.5 = 0.70710678 → 0.70703125; times 3 = 2.12109375 → 2.125
        let alibi = Alibi { slopes: vec![0.5f64.sqrt()], zero_at: AlibiZero::First, scale: 2.0, bf16: true };
        let biases = values(&biases(&alibi, 260, &device()).unwrap());
        assert_eq!(biases[..4], [0.0, 1.4140625, 2.828125, 4.25]);
        // from 256 on positions are rounded too, to even numbers: 257 → 256, 259 → 260 (ties to even: 129 → 130)
        assert_eq!(biases[257], 2.0 * 181.0);
        assert_eq!(biases[259], 2.0 * 184.0);
    }

    test_device!(large_scores_do_not_overflow);
    fn large_scores_do_not_overflow() {
        let scores = Tensor::new(&[[[1e4f32, 1e4, f32::NEG_INFINITY]]], &device()).unwrap();
        let rule = ScoreRule::default();
        for kernels in Kernels::all() {
            let pattern = |sinks: Option<&Tensor>| pattern(kernels, &scores, &rule, sinks).unwrap();
            assert_eq!(values(&pattern(None)), [0.5, 0.5, 0.0]);
            let sink = Tensor::new(&[1e4f32], &device()).unwrap();
            close(&pattern(Some(&sink)), &[1.0 / 3.0, 1.0 / 3.0, 0.0], 1e-6);
            let sink = Tensor::new(&[2e4f32], &device()).unwrap(); // a sink that takes everything
            assert_eq!(values(&pattern(Some(&sink))), [0.0, 0.0, 0.0]);
        }
    }

    test_device!(queries_keys_and_values_may_be_views_of_one_tensor);
    fn queries_keys_and_values_may_be_views_of_one_tensor() {
        let qkv = matrix(&[70, 8, 16], 1);
        let part = |from: usize, n: usize| qkv.narrow(1, from, n).unwrap();
        let (q, k, v) = (part(0, 4), part(4, 2), part(6, 2));
        let apart = |t: &Tensor| t.contiguous().unwrap();
        for kernels in Kernels::all() {
            let rule = ScoreRule { scale: 0.25, window: Some(30), ..ScoreRule::default() };
            let of_views = attend(kernels, &q, 0, [&k, &v], &rule, None).unwrap();
            let of_copies = attend(kernels, &apart(&q), 0, [&apart(&k), &apart(&v)], &rule, None).unwrap();
            assert_eq!(values(&of_views), values(&of_copies));
            // some queries in the middle
            let some = attend(kernels, &q.narrow(0, 33, 5).unwrap(), 33, [&k, &v], &rule, None).unwrap();
            close(&some, &values(&of_views.narrow(0, 33, 5).unwrap()), 1e-6);
        }
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let rule = ScoreRule { scale: 1.0, ..ScoreRule::default() };
        let q = matrix(&[2, 4, 3], 1);
        for kernels in Kernels::all() {
            for shape in [[2, 3, 3], [2, 4, 2]] {
                let k = matrix(&shape, 2);
                assert!(attend(kernels, &q, 0, [&k, &k], &rule, None).is_err(), "{shape:?}");
            }
        }
    }

    #[test]
    fn the_mask_by_hand() {
        let inf = f64::NEG_INFINITY;
        assert_eq!(values(&mask(2, 0, 2, None, &device()).unwrap()), [0.0, inf, 0.0, 0.0]);
        assert_eq!(values(&mask(2, 1, 3, None, &device()).unwrap()), [0.0, 0.0, inf, 0.0, 0.0, 0.0]);
        // a window of 2 is the query's own position and the one before it
        assert_eq!(values(&mask(3, 0, 3, Some(2), &device()).unwrap()), [0.0, inf, inf, 0.0, 0.0, inf, inf, 0.0, 0.0]);
        assert_eq!(values(&mask(1, 2, 3, Some(1), &device()).unwrap()), [inf, inf, 0.0]);
    }
}
