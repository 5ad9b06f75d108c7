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

/// Scaled, capped, biased and masked scores.
///
/// # Shapes
/// q [query_pos, H, e], k [key_pos, G, e] → [H, query_pos, key_pos].
///
/// # Errors
/// `INTERNAL` where shapes do not fit.
pub fn scores(q: &Tensor, k: &Tensor, rule: &ScoreRule) -> Result<Tensor> {
    let (n_query, n_heads, d_head) = q.dims3()?;
    let (n_key, n_key_heads, _) = k.dims3()?;
    // the heads of a group stand side by side, so their queries stack into one matrix: [G, H/G · query_pos, e]
    let q = q.transpose(0, 1)?.contiguous()?.reshape((n_key_heads, n_heads / n_key_heads * n_query, d_head))?;
    let k = k.transpose(0, 1)?.contiguous()?;
    let mut scores = (q.matmul(&k.t()?)? * rule.scale)?.reshape((n_heads, n_query, n_key))?;
    if let Some(cap) = rule.cap {
        scores = ((scores / cap)?.tanh()? * cap)?;
    }
    if let Some(alibi) = &rule.alibi {
        scores = scores.broadcast_add(&biases(alibi, n_key, scores.device())?)?;
    }
    Ok(scores.broadcast_add(&mask(n_query, n_key, rule.window, scores.device())?)?)
}

/// Softmax over the keys. Every query sees at least its own position, so no row is empty. A sink takes its part of the
/// softmax and is left out: with sinks rows sum to less than 1.
///
/// # Shapes
/// scores [H, query_pos, key_pos], sinks [H] → [H, query_pos, key_pos].
///
/// # Errors
/// `INTERNAL` where shapes do not fit.
pub fn pattern(scores: &Tensor, sinks: Option<&Tensor>) -> Result<Tensor> {
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
pub fn mix(pattern: &Tensor, v: &Tensor) -> Result<Tensor> {
    let (n_heads, n_query, n_key) = pattern.dims3()?;
    let (_, n_key_heads, d_head) = v.dims3()?;
    let pattern = pattern.reshape((n_key_heads, n_heads / n_key_heads * n_query, n_key))?;
    let z = pattern.matmul(&v.transpose(0, 1)?.contiguous()?)?;
    Ok(z.reshape((n_heads, n_query, d_head))?.transpose(0, 1)?.contiguous()?)
}

/// 0 where a query may look, −∞ at the positions after its own and before its window. [query_pos, key_pos]
fn mask(n_query: usize, n_key: usize, window: Option<usize>, device: &Device) -> Result<Tensor> {
    let first = n_key - n_query;
    let sees = |q: usize, k: usize| k <= first + q && window.is_none_or(|w| k + w > first + q);
    let row = |q| (0..n_key).map(move |k| if sees(q, k) { 0.0 } else { f32::NEG_INFINITY });
    Ok(Tensor::from_vec((0..n_query).flat_map(row).collect(), (n_query, n_key), device)?)
}

/// `scale · slope · (key_pos − zero)`, [H, 1, key_pos]
fn biases(alibi: &Alibi, n_key: usize, device: &Device) -> Result<Tensor> {
    let zero = if alibi.zero_at == AlibiZero::Last { n_key - 1 } else { 0 };
    let rounded = |x: f64| if alibi.bf16 { half::bf16::from_f64(x).to_f64() } else { x };
    let bias = |slope: f64, k: usize| alibi.scale * rounded(rounded(slope) * rounded(k as f64 - zero as f64));
    let row = |slope: &f64| (0..n_key).map(|k| bias(*slope, k) as f32).collect::<Vec<_>>();
    let all: Vec<f32> = alibi.slopes.iter().flat_map(row).collect();
    Ok(Tensor::from_vec(all, (alibi.slopes.len(), 1, n_key), device)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{close, matrix, values};

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
        let our_scores = scores(&q, &k, rule).unwrap();
        let our_pattern = pattern(&our_scores, sinks.as_ref()).unwrap();
        assert_eq!(our_scores.dims(), [nh, nq, nk]);
        close(&our_scores, &s, 1e-5);
        close(&our_pattern, &p, 1e-5);
        close(&mix(&our_pattern, &v).unwrap(), &z, 1e-5);
    }

    /// Queries, keys, heads, key heads, width: alone, odd sizes, grouped heads, keys that begin earlier.
    const SIZES: [[usize; 5]; 5] =
        [[1, 1, 1, 1, 1], [5, 5, 3, 3, 7], [9, 9, 4, 2, 8], [2, 11, 6, 1, 5], [1, 6, 4, 4, 3]];

    #[test]
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
        let biases = values(&biases(&alibi, 260, &Device::Cpu).unwrap());
        assert_eq!(biases[..4], [0.0, 1.4140625, 2.828125, 4.25]);
        // from 256 on positions are rounded too, to even numbers: 257 → 256, 259 → 260 (ties to even: 129 → 130)
        assert_eq!(biases[257], 2.0 * 181.0);
        assert_eq!(biases[259], 2.0 * 184.0);
    }

    #[test]
    fn large_scores_do_not_overflow() {
        let scores = Tensor::new(&[[[1e4f32, 1e4, f32::NEG_INFINITY]]], &Device::Cpu).unwrap();
        assert_eq!(values(&pattern(&scores, None).unwrap()), [0.5, 0.5, 0.0]);
        let sink = Tensor::new(&[1e4f32], &Device::Cpu).unwrap();
        close(&pattern(&scores, Some(&sink)).unwrap(), &[1.0 / 3.0, 1.0 / 3.0, 0.0], 1e-6);
        let sink = Tensor::new(&[2e4f32], &Device::Cpu).unwrap(); // a sink that takes everything
        assert_eq!(values(&pattern(&scores, Some(&sink)).unwrap()), [0.0, 0.0, 0.0]);
    }

    #[test]
    fn the_mask_by_hand() {
        let inf = f64::NEG_INFINITY;
        assert_eq!(values(&mask(2, 2, None, &Device::Cpu).unwrap()), [0.0, inf, 0.0, 0.0]);
        assert_eq!(values(&mask(2, 3, None, &Device::Cpu).unwrap()), [0.0, 0.0, inf, 0.0, 0.0, 0.0]);
        // a window of 2 is the query's own position and the one before it
        assert_eq!(values(&mask(3, 3, Some(2), &Device::Cpu).unwrap()), [0.0, inf, inf, 0.0, 0.0, inf, inf, 0.0, 0.0]);
        assert_eq!(values(&mask(1, 3, Some(1), &Device::Cpu).unwrap()), [inf, inf, 0.0]);
    }
}
