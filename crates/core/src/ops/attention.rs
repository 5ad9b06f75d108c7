//! Attention of one segment, in the three steps that have hook points:
//!
//! ```text
//! scores[h, q, k] = scale · q[q, h] · k[k, g(h)]      −∞ where key k lies after query q
//! pattern[h, q, :] = softmax(scores[h, q, :])
//! z[q, h] = Σ_k pattern[h, q, k] v[k, g(h)]
//! ```
//!
//! `g(h) = h / (H / G)`: `H / G` query heads share a key and value head. Keys may begin before the queries do: the first
//! query stands at position `key_pos − query_pos`.

use crate::error::Result;
use candle_core::{D, Device, Tensor};

/// Scaled and masked scores.
///
/// # Shapes
/// q [query_pos, H, e], k [key_pos, G, e] → [H, query_pos, key_pos].
///
/// # Errors
/// `INTERNAL` where shapes do not fit.
pub fn scores(q: &Tensor, k: &Tensor, scale: f64) -> Result<Tensor> {
    let (n_query, n_heads, d_head) = q.dims3()?;
    let (n_key, n_key_heads, _) = k.dims3()?;
    // the heads of a group stand side by side, so their queries stack into one matrix: [G, H/G · query_pos, e]
    let q = q.transpose(0, 1)?.contiguous()?.reshape((n_key_heads, n_heads / n_key_heads * n_query, d_head))?;
    let k = k.transpose(0, 1)?.contiguous()?;
    let scores = (q.matmul(&k.t()?)? * scale)?.reshape((n_heads, n_query, n_key))?;
    Ok(scores.broadcast_add(&causal_mask(n_query, n_key, scores.device())?)?)
}

/// Softmax over the keys. Every query sees at least its own position, so no row is empty.
///
/// # Shapes
/// [H, query_pos, key_pos] → the same.
///
/// # Errors
/// `INTERNAL` where it has no axis.
pub fn pattern(scores: &Tensor) -> Result<Tensor> {
    let exp = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?)?.exp()?;
    Ok(exp.broadcast_div(&exp.sum_keepdim(D::Minus1)?)?)
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

/// 0 where a query may look, −∞ at the positions after its own. [query_pos, key_pos]
fn causal_mask(n_query: usize, n_key: usize, device: &Device) -> Result<Tensor> {
    let first = n_key - n_query;
    let mask = (0..n_query).flat_map(|q| (0..n_key).map(move |k| if k <= first + q { 0.0 } else { f32::NEG_INFINITY }));
    Ok(Tensor::from_vec(mask.collect(), (n_query, n_key), device)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{close, matrix, values};

    /// The definition, loop by loop, in f64: scores, pattern, z.
    fn naive(q: &Tensor, k: &Tensor, v: &Tensor, scale: f64) -> [Vec<f64>; 3] {
        let (nq, nh, e) = q.dims3().unwrap();
        let (nk, ng, _) = k.dims3().unwrap();
        let (q, k, v) = (values(q), values(k), values(v));
        let (mut scores, mut pattern, mut z) = (Vec::new(), Vec::new(), vec![0.0; nq * nh * e]);
        for h in 0..nh {
            let g = h * ng / nh;
            for i in 0..nq {
                let dot = |j: usize| (0..e).map(|x| q[(i * nh + h) * e + x] * k[(j * ng + g) * e + x]).sum::<f64>();
                let row: Vec<f64> =
                    (0..nk).map(|j| if j + nq <= i + nk { scale * dot(j) } else { f64::NEG_INFINITY }).collect();
                let total: f64 = row.iter().map(|s| s.exp()).sum();
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

    #[test]
    fn attention_is_its_definition() {
        // queries, keys, heads, key heads, width: alone, odd sizes, grouped heads, keys that begin earlier
        for (nq, nk, nh, ng, e) in
            [(1, 1, 1, 1, 1), (5, 5, 3, 3, 7), (9, 9, 4, 2, 8), (2, 11, 6, 1, 5), (1, 6, 4, 4, 3)]
        {
            let (q, k, v) = (matrix(&[nq, nh, e], 1), matrix(&[nk, ng, e], 2), matrix(&[nk, ng, e], 3));
            let [s, p, z] = naive(&q, &k, &v, 0.3);
            let our_scores = scores(&q, &k, 0.3).unwrap();
            let our_pattern = pattern(&our_scores).unwrap();
            assert_eq!(our_scores.dims(), [nh, nq, nk]);
            close(&our_scores, &s, 1e-5);
            close(&our_pattern, &p, 1e-5);
            close(&mix(&our_pattern, &v).unwrap(), &z, 1e-5);
        }
    }

    #[test]
    fn large_scores_do_not_overflow() {
        let scores = Tensor::new(&[[[1e4f32, 1e4, f32::NEG_INFINITY]]], &Device::Cpu).unwrap();
        assert_eq!(values(&pattern(&scores).unwrap()), [0.5, 0.5, 0.0]);
    }

    #[test]
    fn the_mask_by_hand() {
        let inf = f64::NEG_INFINITY;
        assert_eq!(values(&causal_mask(2, 2, &Device::Cpu).unwrap()), [0.0, inf, 0.0, 0.0]);
        assert_eq!(values(&causal_mask(2, 3, &Device::Cpu).unwrap()), [0.0, 0.0, inf, 0.0, 0.0, 0.0]);
    }
}
