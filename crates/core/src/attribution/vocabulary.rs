//! The whole vocabulary at once, block by block: every block of W_U is read once for all rows that are wanted of it.

use crate::error::Result;
use crate::model::Unembed;
use candle_core::Tensor;
use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::ops::Range;

/// Tokens of a block: their columns and the rows' products with them stay in cache, whatever the vocabulary.
pub(super) const BLOCK: usize = 2048;

/// Hands the products of every row of `x` [n, d_model] with a block of tokens to `each`: the first token, and the
/// products [n, tokens of the block], row-major. With `bias` they are logits before the cap, without `κ x·W_U` alone.
///
/// # Errors
/// `INTERNAL` where shapes do not fit, and those of `each`.
pub(super) fn blocks(
    unembed: &Unembed,
    x: &Tensor,
    bias: bool,
    mut each: impl FnMut(usize, &[f32]) -> Result<()>,
) -> Result<()> {
    let d_vocab = unembed.weight.dim(0)?;
    for start in (0..d_vocab).step_by(BLOCK) {
        let tokens: Range<usize> = start..d_vocab.min(start + BLOCK);
        let products: Vec<f32> = unembed.products(x, tokens, bias)?.flatten_all()?.to_vec1()?;
        each(start, &products)?;
    }
    Ok(())
}

/// A token and its value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scored {
    /// Token id.
    pub token: u32,
    /// Its value.
    pub value: f32,
}

/// Worst first: the smallest value, of equal ones the largest id.
#[derive(PartialEq)]
struct Worst(Scored);

impl Eq for Worst {}

impl Ord for Worst {
    fn cmp(&self, other: &Self) -> Ordering {
        other.0.value.total_cmp(&self.0.value).then(self.0.token.cmp(&other.0.token))
    }
}

impl PartialOrd for Worst {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The k largest of a stream of values.
pub(crate) struct Largest {
    k: usize,
    heap: BinaryHeap<Worst>,
}

impl Largest {
    pub fn new(k: usize) -> Self {
        Largest { k, heap: BinaryHeap::with_capacity(k + 1) }
    }

    pub fn offer(&mut self, token: u32, value: f32) {
        if self.heap.len() < self.k {
            self.heap.push(Worst(Scored { token, value }));
        } else if self.heap.peek().is_some_and(|worst| value > worst.0.value) {
            self.heap.pop();
            self.heap.push(Worst(Scored { token, value }));
        }
    }

    /// Largest first; of equal ones the smallest id.
    pub fn finish(self) -> Vec<Scored> {
        self.heap.into_sorted_vec().into_iter().map(|Worst(scored)| scored).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{matrix, values};

    #[test]
    fn the_largest_come_first_and_of_equals_the_smallest_id() {
        let mut largest = Largest::new(3);
        for (token, value) in [(0, 1.0), (1, -2.0), (2, 3.0), (3, 1.0), (4, 3.0), (5, 0.5)] {
            largest.offer(token, value);
        }
        let found: Vec<(u32, f32)> = largest.finish().iter().map(|s| (s.token, s.value)).collect();
        assert_eq!(found, [(2, 3.0), (4, 3.0), (0, 1.0)]);
        assert_eq!(Largest::new(2).finish(), []);
    }

    #[test]
    fn blocks_cover_the_vocabulary_once() {
        let (n, d, v) = (3, 5, BLOCK + 7);
        let (x, w, b) = (matrix(&[n, d], 1), matrix(&[v, d], 2), matrix(&[v], 3));
        let unembed = Unembed::new(w.clone(), Some(b.clone()), 0.5, None);
        for bias in [true, false] {
            let mut seen = vec![f64::NAN; n * v];
            let fill = |start: usize, products: &[f32]| {
                let width = products.len() / n;
                for (i, value) in products.iter().enumerate() {
                    let at = &mut seen[i / width * v + start + i % width];
                    assert!(at.is_nan());
                    *at = f64::from(*value);
                }
                Ok(())
            };
            blocks(&unembed, &x, bias, fill).unwrap();
            let (x, w, b) = (values(&x), values(&w), values(&b));
            for (i, found) in seen.iter().enumerate() {
                let (r, t) = (i / v, i % v);
                let dot: f64 = (0..d).map(|c| x[r * d + c] * w[t * d + c]).sum();
                let expected = 0.5 * (dot + if bias { b[t] } else { 0.0 });
                assert!((found - expected).abs() < 1e-5, "{found} and {expected}");
            }
        }
    }
}
