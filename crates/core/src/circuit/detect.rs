//! Heads detected on random tokens, as a statement with a level. A repeated sequence of random tokens has no structure
//! but its repetition, so attention on the stripe of induction there can have no other reason; the same stripe on
//! sequences that do not repeat is what chance gives.
//!
//! The score on repeated sequences is the prefix-matching score of Olsson et al. 2022 ("In-context Learning and Induction
//! Heads"): attention from the second occurrence of a token to the token behind its first.

use super::pattern::Patterns;
use crate::error::{PrismError, Result};

/// What a head is tested for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Test {
    /// Attention to the token behind the first occurrence.
    Induction,
    /// Attention to the first occurrence.
    DuplicateToken,
    /// Attention to the previous token, on sequences that do not repeat.
    PreviousToken,
}

/// The outcome of a test for one head.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Detection {
    /// Mean attention on the stripe.
    pub score: f64,
    /// Mean attention where there is nothing to detect: the same stripe without a repetition; for the previous token,
    /// another distance.
    pub null: f64,
    /// Chance of such a difference by a one-sided Welch test over sequences, times the number of heads (Bonferroni).
    pub p: f64,
}

/// Sequences of random tokens: `n` of `half` tokens twice, and `n` of twice as many that do not repeat. All begin with
/// `bos`, where there is one.
#[derive(Debug, Clone, PartialEq)]
pub struct Sequences {
    /// That repeat.
    pub repeated: Vec<Vec<u32>>,
    /// That do not.
    pub unrepeated: Vec<Vec<u32>>,
    half: usize,
    first: usize,
}

impl Sequences {
    /// Draws tokens without replacement from `tokens`, so that nothing repeats by chance.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` where there are fewer tokens than a sequence takes, or fewer than two sequences or tokens.
    pub fn draw(tokens: &[u32], bos: Option<u32>, n: usize, half: usize, seed: u64) -> Result<Self> {
        if half < 2 || 2 * half > tokens.len() {
            let expected = format!("2 to {}, so that no token repeats by chance", tokens.len() / 2);
            return Err(PrismError::argument("length", half, expected));
        }
        if n < 2 {
            return Err(PrismError::argument("sequences", n, "at least 2"));
        }
        let mut random = SplitMix(seed);
        let mut drawn = |count: usize| {
            let mut pool = tokens.to_vec();
            // the first steps of a Fisher-Yates shuffle
            for i in 0..count {
                let j = i + random.below(pool.len() - i);
                pool.swap(i, j);
            }
            pool.truncate(count);
            pool
        };
        let start: Vec<u32> = bos.into_iter().collect();
        let repeated = (0..n).map(|_| {
            let tokens = drawn(half);
            [&start[..], &tokens, &tokens].concat()
        });
        let repeated = repeated.collect();
        let unrepeated = (0..n).map(|_| [&start[..], &drawn(2 * half)].concat()).collect();
        Ok(Sequences { repeated, unrepeated, half, first: start.len() })
    }

    /// Tests head number `head` of patterns on the repeated and the unrepeated sequences; `n_tests` are made in all.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` where there is no such head.
    pub fn test(&self, test: Test, head: usize, patterns: [&Patterns; 2], n_tests: usize) -> Result<Detection> {
        let [repeated, unrepeated] = patterns;
        let (half, first) = (self.half, self.first);
        let second = || first + half..first + 2 * half;
        let stripe = |patterns: &Patterns, prompt: usize, queries: &[usize], distance: usize| -> Result<f64> {
            let length = patterns.prompts[prompt].len();
            let pattern = patterns.pattern(head, prompt)?;
            let sum: f64 = queries.iter().map(|q| f64::from(pattern[q * length + q - distance])).sum();
            Ok(sum / queries.len() as f64)
        };
        let all = |patterns: &Patterns, queries: &[usize], distance: &dyn Fn(usize) -> usize| -> Result<Vec<f64>> {
            (0..patterns.prompts.len()).map(|p| stripe(patterns, p, queries, distance(p))).collect()
        };
        let queries: Vec<usize> = second().collect();
        let (scores, nulls) = match test {
            Test::Induction => (all(repeated, &queries, &|_| half - 1)?, all(unrepeated, &queries, &|_| half - 1)?),
            Test::DuplicateToken => (all(repeated, &queries, &|_| half)?, all(unrepeated, &queries, &|_| half)?),
            Test::PreviousToken => {
                let other = |p: usize| 2 + p % (half - 1); // every other distance in turn
                (all(unrepeated, &queries, &|_| 1)?, all(unrepeated, &queries, &other)?)
            }
        };
        Ok(welch(&scores, &nulls, n_tests))
    }
}

/// One-sided Welch test that the first sample has the larger mean, by the normal distribution.
fn welch(scores: &[f64], nulls: &[f64], n_tests: usize) -> Detection {
    let moments = |sample: &[f64]| {
        let n = sample.len() as f64;
        let mean = sample.iter().sum::<f64>() / n;
        (mean, sample.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0) / n)
    };
    let ((score, a), (null, b)) = (moments(scores), moments(nulls));
    let spread = (a + b).sqrt();
    let difference = score - null;
    let tail = if spread > 0.0 {
        0.5 * libm::erfc(difference / spread / 2f64.sqrt())
    } else if difference > 0.0 {
        0.0
    } else {
        1.0
    };
    Detection { score, null, p: (tail * n_tests as f64).min(1.0) }
}

/// Steele, Lea and Flood's splitmix64.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform below `n`, by the high bits of a product (the bias is below n / 2^64).
    fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.next()) * n as u128) >> 64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    const TOKENS: [u32; 40] = {
        let mut tokens = [0; 40];
        let mut i = 0;
        while i < 40 {
            tokens[i] = 100 + i as u32;
            i += 1;
        }
        tokens
    };

    fn sequences() -> Sequences {
        Sequences::draw(&TOKENS, Some(7), 6, 10, 1).unwrap()
    }

    fn patterns(prompts: &[Vec<u32>], look: impl Fn(&[u32], usize) -> usize) -> Patterns {
        let values = prompts.iter().map(|ids| {
            let n = ids.len();
            let mut pattern = vec![0.0; n * n];
            (0..n).for_each(|q| pattern[q * n + look(ids, q)] = 1.0);
            pattern
        });
        Patterns::of(prompts.to_vec(), vec![(0, 0)], values.collect())
    }

    fn tested(test: Test, look: impl Fn(&[u32], usize) -> usize) -> Detection {
        let sequences = sequences();
        let [a, b] = [&sequences.repeated, &sequences.unrepeated].map(|prompts| patterns(prompts, &look));
        sequences.test(test, 0, [&a, &b], 4).unwrap()
    }

    fn induction(ids: &[u32], q: usize) -> usize {
        (1..=q).find(|k| ids[k - 1] == ids[q]).unwrap_or(0)
    }

    #[test]
    fn sequences_repeat_or_do_not_and_are_seeded() {
        let drawn = sequences();
        for ids in &drawn.repeated {
            assert_eq!((ids[0], &ids[1..11]), (7, &ids[11..21]));
            assert_eq!(ids[1..11].iter().collect::<BTreeSet<_>>().len(), 10);
        }
        for ids in &drawn.unrepeated {
            assert_eq!((ids.len(), ids[1..].iter().collect::<BTreeSet<_>>().len()), (21, 20));
        }
        assert_eq!(drawn, sequences());
        assert_ne!(drawn, Sequences::draw(&TOKENS, Some(7), 6, 10, 2).unwrap());
        assert_eq!(Sequences::draw(&TOKENS, None, 6, 21, 1).unwrap_err().code(), "INVALID_ARGUMENT");
        assert_eq!(Sequences::draw(&TOKENS, None, 1, 10, 1).unwrap_err().code(), "INVALID_ARGUMENT");
    }

    #[test]
    fn an_induction_head_is_one_and_others_are_not() {
        let found = tested(Test::Induction, induction);
        assert_eq!((found.score, found.null, found.p), (1.0, 0.0, 0.0));
        for look in [|_: &[u32], q: usize| q.saturating_sub(1), |_: &[u32], _: usize| 0, |_: &[u32], q: usize| q] {
            assert_eq!(tested(Test::Induction, look).p, 1.0);
        }
        // a head that looks nine back whatever stands there is on the stripe, repeated or not
        let found = tested(Test::Induction, |_, q| q.saturating_sub(9));
        assert_eq!((found.score, found.null, found.p), (1.0, 1.0, 1.0));
    }

    #[test]
    fn duplicate_and_previous_token_heads() {
        let duplicate = |ids: &[u32], q: usize| (0..q).find(|k| ids[*k] == ids[q]).unwrap_or(0);
        assert_eq!(tested(Test::DuplicateToken, duplicate).p, 0.0);
        assert_eq!(tested(Test::DuplicateToken, induction).p, 1.0);
        assert_eq!(tested(Test::PreviousToken, |_, q| q.saturating_sub(1)).p, 0.0);
        assert_eq!(tested(Test::PreviousToken, induction).p, 1.0);
    }

    #[test]
    fn the_welch_test_by_hand() {
        // means 3 and 1, variances 1 and 1 of three each: z = 2 / √(2/3) = 2.449, tail 0.00716, times two heads
        let found = welch(&[2.0, 3.0, 4.0], &[0.0, 1.0, 2.0], 2);
        assert!((found.p - 2.0 * 0.007_152_94).abs() < 1e-6, "{found:?}");
        assert_eq!(welch(&[1.0, 1.0], &[1.0, 1.0], 5).p, 1.0);
    }
}
