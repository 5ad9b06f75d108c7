//! Heads detected on random tokens, as a statement with a level. A repeated sequence of random tokens has no structure
//! but its repetition, so attention on the stripe of induction there can have no other reason; the same stripe on
//! sequences that do not repeat is what chance gives.
//!
//! The score on repeated sequences is the prefix-matching score of Olsson et al. 2022 ("In-context Learning and Induction
//! Heads"): attention from the second occurrence of a token to the token behind its first.

use super::pattern::Patterns;
use crate::error::{PrismError, Result};
use crate::random::SplitMix;

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
    /// `INVALID_ARGUMENT` where there are fewer tokens than a sequence takes, or fewer than two tokens.
    pub fn draw(tokens: &[u32], bos: Option<u32>, n: usize, half: usize, seed: u64) -> Result<Self> {
        if half < 2 || 2 * half > tokens.len() {
            let expected = format!("2 to {}, so that no token repeats by chance", tokens.len() / 2);
            return Err(PrismError::argument("length", half, expected));
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

    /// What a test measures of head number `head` on the repeated and the unrepeated sequences, of which `before` others came
    /// before: the attention in question, sequence by sequence, and the same where there is nothing to detect. `None` where
    /// the layer's window hides the keys in question.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` where there is no such head.
    pub fn samples(
        &self,
        test: Test,
        head: usize,
        [repeated, unrepeated]: [&Patterns; 2],
        window: Option<usize>,
        before: usize,
    ) -> Result<Option<[Vec<f64>; 2]>> {
        let (half, first) = (self.half, self.first);
        let queries = first + half..first + 2 * half;
        let of = |patterns: &Patterns, distance: &dyn Fn(usize) -> usize| -> Result<Vec<f64>> {
            let stripe = |prompt: usize| {
                let length = patterns.prompts[prompt].len();
                let pattern = patterns.pattern(head, prompt)?;
                let distance = distance(prompt);
                let sum: f64 = queries.clone().map(|q| f64::from(pattern[q * length + q - distance])).sum();
                Ok(sum / half as f64)
            };
            (0..patterns.prompts.len()).map(stripe).collect()
        };
        let seen = window.unwrap_or(usize::MAX);
        let stripe = |distance: usize| match distance < seen {
            true => Ok(Some([of(repeated, &|_| distance)?, of(unrepeated, &|_| distance)?])),
            false => Ok(None),
        };
        match test {
            Test::Induction => stripe(half - 1),
            Test::DuplicateToken => stripe(half),
            Test::PreviousToken if seen <= 2 => Ok(None), // there is no other distance to compare with
            Test::PreviousToken => {
                let others = half.min(seen - 1) - 1; // 2, 3, …: every other distance that can be seen, in turn
                let other = |p: usize| 2 + (before + p) % others.max(1);
                Ok(Some([of(unrepeated, &|_| 1)?, of(unrepeated, &other)?]))
            }
        }
    }
}

impl Detection {
    /// From what [`Sequences::samples`] measured over all sequences; `n_tests` are made in all.
    pub fn of(samples: Option<&[Vec<f64>; 2]>, n_tests: usize) -> Self {
        match samples {
            Some([scores, nulls]) => welch(scores, nulls, n_tests),
            None => Detection { score: f64::NAN, null: f64::NAN, p: f64::NAN },
        }
    }
}

/// One-sided Welch test that the first sample has the larger mean: Student's t with the degrees of freedom of Welch and
/// Satterthwaite.
fn welch(scores: &[f64], nulls: &[f64], n_tests: usize) -> Detection {
    let moments = |sample: &[f64]| {
        let n = sample.len() as f64;
        let mean = sample.iter().sum::<f64>() / n;
        (mean, sample.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0) / n, n)
    };
    let ((score, a, n), (null, b, m)) = (moments(scores), moments(nulls));
    let difference = score - null;
    let tail = if a + b > 0.0 {
        let freedom = (a + b).powi(2) / (a * a / (n - 1.0) + b * b / (m - 1.0));
        student_tail(difference / (a + b).sqrt(), freedom)
    } else if difference > 0.0 {
        0.0
    } else {
        1.0
    };
    Detection { score, null, p: (tail * n_tests as f64).min(1.0) }
}

/// The probability that a Student t variable exceeds `t`: half the regularised incomplete beta function
/// `I_x(ν/2, 1/2)` at `x = ν/(ν + t²)`, for positive t (Abramowitz and Stegun 26.5.27, 26.7.1).
fn student_tail(t: f64, freedom: f64) -> f64 {
    let tail = 0.5 * incomplete_beta(freedom / 2.0, 0.5, freedom / (freedom + t * t));
    if t > 0.0 { tail } else { 1.0 - tail }
}

/// `I_x(a, b)` by its continued fraction (Abramowitz and Stegun 26.5.8), evaluated as Lentz does.
fn incomplete_beta(a: f64, b: f64, x: f64) -> f64 {
    if x <= 0.0 || x >= 1.0 {
        return x.clamp(0.0, 1.0);
    }
    if x > (a + 1.0) / (a + b + 2.0) {
        return 1.0 - incomplete_beta(b, a, 1.0 - x); // the fraction converges fast on the other side
    }
    let front = a * x.ln() + b * (1.0 - x).ln() + libm::lgamma(a + b) - libm::lgamma(a) - libm::lgamma(b);
    let small = |v: f64| if v.abs() < 1e-300 { 1e-300 } else { v };
    let (mut c, mut d) = (1.0, 1.0 / small(1.0 - (a + b) * x / (a + 1.0)));
    let mut fraction = d;
    for m in 1..500 {
        let n = f64::from(m);
        let even = n * (b - n) * x / ((a + 2.0 * n - 1.0) * (a + 2.0 * n));
        let odd = -(a + n) * (a + b + n) * x / ((a + 2.0 * n) * (a + 2.0 * n + 1.0));
        let mut step = 1.0;
        for term in [even, odd] {
            d = 1.0 / small(1.0 + term * d);
            c = small(1.0 + term / c);
            step = c * d;
            fraction *= step;
        }
        if (step - 1.0).abs() < 1e-15 {
            break;
        }
    }
    front.exp() * fraction / a
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
        let samples = sequences.samples(test, 0, [&a, &b], None, 0).unwrap();
        Detection::of(samples.as_ref(), 4)
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
        // means 3 and 1, variances 1 and 1 of three each: t = 2 / √(2/3) = 2.449 with 4 degrees of freedom, tail 0.0352
        let found = welch(&[2.0, 3.0, 4.0], &[0.0, 1.0, 2.0], 2);
        assert!((found.p - 2.0 * 0.035_242).abs() < 1e-5, "{found:?}");
        assert_eq!(welch(&[1.0, 1.0], &[1.0, 1.0], 5).p, 1.0);
    }

    #[test]
    fn students_tail_against_tables() {
        // one-sided critical values: t(1) at 0.05 is 6.3138, t(10) at 0.01 2.7638, t(38) at 0.0005 3.5657; t(1) is Cauchy's
        for (t, freedom, tail) in [(6.3138, 1.0, 0.05), (2.7638, 10.0, 0.01), (3.5657, 38.0, 0.0005), (1.0, 1.0, 0.25)]
        {
            let found = student_tail(t, freedom);
            assert!((found / tail - 1.0).abs() < 1e-3, "t = {t}, ν = {freedom}: {found}");
        }
        assert!((student_tail(0.0, 7.0) - 0.5).abs() < 1e-12);
        assert!((student_tail(-2.7638, 10.0) - 0.99).abs() < 1e-5);
        assert!(student_tail(1e8, 38.0) < 1e-100);
    }

    #[test]
    fn what_a_window_hides_is_not_denied() {
        let sequences = sequences();
        let look = |ids: &[u32], q: usize| induction(ids, q);
        let [a, b] = [&sequences.repeated, &sequences.unrepeated].map(|prompts| patterns(prompts, look));
        let of =
            |test, window| Detection::of(sequences.samples(test, 0, [&a, &b], Some(window), 0).unwrap().as_ref(), 1);
        assert!(of(Test::Induction, 9).p.is_nan()); // the key lies 9 back, the window ends 8 back
        assert!(!of(Test::Induction, 10).p.is_nan());
        assert!(of(Test::DuplicateToken, 10).p.is_nan());
        assert!(of(Test::PreviousToken, 2).p.is_nan());
        assert!(!of(Test::PreviousToken, 3).p.is_nan());
    }
}
