//! A stream of rows reduced to one line per component: mean, deviation, sign, a bootstrap interval that treats the rows
//! of one prompt as one draw, and how stable a component's rank is. Memory does not grow with the stream.
//!
//! The bootstrap is Poisson's: every prompt counts in every resample as often as a Poisson(1) variable says, drawn from
//! the seed, the prompt's number and the resample's alone. So the result depends neither on how the stream was cut nor
//! on what is still to come, which drawing n out of n would need to know.

use crate::error::{PrismError, Result};
use crate::memory;
use crate::ops;
use crate::random::mix;
use candle_core::{Device, Tensor};

/// Running sums of some columns.
pub struct Summary {
    columns: usize,
    seed: u64,
    rows: u64,
    prompts: u64,
    mean: Vec<f64>,
    /// Σ (value − mean)²
    squares: Vec<f64>,
    positive: Vec<u64>,
    negative: Vec<u64>,
    /// Σ over drawn prompts, [resamples, columns]
    drawn: Vec<f64>,
    /// Rows of the drawn prompts, [resamples]
    drawn_rows: Vec<f64>,
}

/// One column of a finished summary.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ColumnSummary {
    /// Mean over the rows.
    pub mean: f64,
    /// Standard deviation over the rows (n − 1; 0 for a single row).
    pub std: f64,
    /// 95 % bootstrap interval of the mean.
    pub interval: [f64; 2],
    /// Share of rows whose sign is that of the mean.
    pub same_sign: f64,
    /// Share of resamples in which the column is among the k of largest |mean|.
    pub stability: f64,
}

/// Prompts and columns that are multiplied together, so that the product stays small.
const BLOCK: usize = 1024;

impl Summary {
    /// An empty summary of this many columns.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for no resamples, `MEMORY`.
    pub fn new(columns: usize, seed: u32, resamples: usize) -> Result<Self> {
        if resamples == 0 {
            return Err(PrismError::argument("resamples", 0, "a whole number from 1 on"));
        }
        memory::check("the sums of the resamples", Summary::bytes(columns, resamples), None)?;
        let zeros = || vec![0.0; columns];
        Ok(Summary {
            columns,
            seed: u64::from(seed),
            rows: 0,
            prompts: 0,
            mean: zeros(),
            squares: zeros(),
            positive: vec![0; columns],
            negative: vec![0; columns],
            drawn: vec![0.0; resamples * columns],
            drawn_rows: vec![0.0; resamples],
        })
    }

    /// Bytes that a summary takes: the sums of the resamples, and their means when it is finished.
    pub fn bytes(columns: usize, resamples: usize) -> u64 {
        8 * (columns as u64 * (4 + 2 * resamples as u64) + resamples as u64)
    }

    /// How many rows and prompts it has seen.
    pub fn seen(&self) -> (u64, u64) {
        (self.rows, self.prompts)
    }

    /// Adds rows [rows, columns], row-major, and the prompt of each; the rows of a prompt stand together.
    ///
    /// # Errors
    /// `INTERNAL` where rows and prompts do not match.
    pub fn add(&mut self, values: &[f32], prompts: &[u32]) -> Result<()> {
        if values.len() != prompts.len() * self.columns {
            let problem = format!("{} values in {} rows of {}", values.len(), prompts.len(), self.columns);
            return Err(PrismError::Internal { place: "summary".into(), problem });
        }
        if self.columns == 0 || prompts.is_empty() {
            return Ok(());
        }
        values.chunks_exact(self.columns).for_each(|row| self.add_row(row));
        let mut sums = Vec::new();
        let mut counts = Vec::new();
        for (i, row) in values.chunks_exact(self.columns).enumerate() {
            if i == 0 || prompts[i] != prompts[i - 1] {
                sums.resize(sums.len() + self.columns, 0.0);
                counts.push(0.0);
            }
            let of_prompt = sums.len() - self.columns;
            sums[of_prompt..].iter_mut().zip(row).for_each(|(sum, value)| *sum += f64::from(*value));
            *counts.last_mut().unwrap_or(&mut 0.0) += 1.0;
        }
        for (sums, counts) in sums.chunks(BLOCK * self.columns).zip(counts.chunks(BLOCK)) {
            self.draw(sums, counts)?;
        }
        Ok(())
    }

    /// Welford's running mean and squares.
    fn add_row(&mut self, row: &[f32]) {
        self.rows += 1;
        let n = self.rows as f64;
        for (c, value) in row.iter().enumerate() {
            let value = f64::from(*value);
            let away = value - self.mean[c];
            self.mean[c] += away / n;
            self.squares[c] += away * (value - self.mean[c]);
            self.positive[c] += u64::from(value > 0.0);
            self.negative[c] += u64::from(value < 0.0);
        }
    }

    /// Adds some prompts, their sums [prompts, columns] and numbers of rows, to every resample.
    fn draw(&mut self, sums: &[f64], counts: &[f64]) -> Result<()> {
        let (n, resamples) = (counts.len(), self.drawn_rows.len());
        let (seed, first) = (self.seed, self.prompts);
        let of_resample = |r| (first..first + n as u64).map(move |prompt| f64::from(poisson(seed, prompt, r)));
        let weights: Vec<f64> = (0..resamples as u64).flat_map(of_resample).collect();
        for (drawn, weights) in self.drawn_rows.iter_mut().zip(weights.chunks_exact(n)) {
            *drawn += weights.iter().zip(counts).map(|(w, count)| w * count).sum::<f64>();
        }
        let weights = Tensor::from_vec(weights, (resamples, n), &Device::Cpu)?;
        let sums = Tensor::from_slice(sums, (n, self.columns), &Device::Cpu)?;
        for start in (0..self.columns).step_by(BLOCK) {
            let width = BLOCK.min(self.columns - start);
            let product: Vec<f64> =
                ops::matmul(&weights, &sums.narrow(1, start, width)?.contiguous()?)?.flatten_all()?.to_vec1()?;
            for (drawn, product) in self.drawn.chunks_exact_mut(self.columns).zip(product.chunks_exact(width)) {
                drawn[start..start + width].iter_mut().zip(product).for_each(|(sum, add)| *sum += add);
            }
        }
        self.prompts += n as u64;
        Ok(())
    }

    /// Every column; `k` is for the stability.
    pub fn finish(&self, k: usize) -> Vec<ColumnSummary> {
        let resamples: Vec<Vec<f64>> = self
            .drawn
            .chunks_exact(self.columns.max(1))
            .zip(&self.drawn_rows)
            .filter(|(_, rows)| **rows > 0.0)
            .map(|(sums, rows)| sums.iter().map(|sum| sum / rows).collect())
            .collect();
        let mut among = vec![0usize; self.columns];
        for means in &resamples {
            let mut order: Vec<usize> = (0..self.columns).collect();
            if k < order.len() {
                order.select_nth_unstable_by(k, |a, b| means[*b].abs().total_cmp(&means[*a].abs()).then(a.cmp(b)));
                order.truncate(k);
            }
            order.into_iter().for_each(|c| among[c] += 1);
        }
        (0..self.columns).map(|c| self.column(c, &resamples, among[c])).collect()
    }

    fn column(&self, c: usize, resamples: &[Vec<f64>], among: usize) -> ColumnSummary {
        let (mean, rows) = (self.mean[c], self.rows as f64);
        let zero = self.rows - self.positive[c] - self.negative[c];
        let same = if mean > 0.0 {
            self.positive[c]
        } else if mean < 0.0 {
            self.negative[c]
        } else {
            zero
        };
        let mut means: Vec<f64> = resamples.iter().map(|means| means[c]).collect();
        means.sort_unstable_by(f64::total_cmp);
        let interval = if means.is_empty() { [mean; 2] } else { [0.025, 0.975].map(|q| quantile(&means, q)) };
        ColumnSummary {
            mean,
            std: if self.rows > 1 { (self.squares[c] / (rows - 1.0)).sqrt() } else { 0.0 },
            interval,
            same_sign: same as f64 / rows,
            stability: among as f64 / resamples.len().max(1) as f64,
        }
    }
}

/// Linear interpolation between the order statistics (type 7 of Hyndman and Fan 1996).
fn quantile(sorted: &[f64], q: f64) -> f64 {
    let at = (sorted.len() - 1) as f64 * q;
    let (low, high) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    low + (high - low) * at.fract()
}

/// A Poisson(1) variable that depends on its arguments alone: the inverse of its distribution function at a uniform
/// number hashed from them.
fn poisson(seed: u64, prompt: u64, resample: u64) -> u32 {
    let hashed = mix(mix(mix(seed) ^ prompt) ^ resample);
    let uniform = (hashed >> 11) as f64 / (1u64 << 53) as f64;
    let (mut n, mut p) = (0, (-1f64).exp());
    let mut below = p;
    while uniform >= below && n < 20 {
        n += 1;
        p /= f64::from(n);
        below += p;
    }
    n
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Normal-ish numbers from a sum of uniforms.
    fn number(i: u64) -> f32 {
        (0..12).map(|k| (mix(i * 12 + k) >> 11) as f64 / (1u64 << 53) as f64).sum::<f64>() as f32 - 6.0
    }

    fn of(values: &[f32], prompts: &[u32], columns: usize) -> Summary {
        let mut summary = Summary::new(columns, 7, 1000).unwrap();
        summary.add(values, prompts).unwrap();
        summary
    }

    #[test]
    fn mean_deviation_and_sign_by_hand() {
        let summary = of(&[1.0, 0.0, 2.0, 0.0, 3.0, 0.0, -2.0, 0.0], &[0, 0, 1, 2], 2);
        let columns = summary.finish(1);
        assert_eq!(columns[0].mean, 1.0);
        assert!((columns[0].std - (14f64 / 3.0).sqrt()).abs() < 1e-12); // 0, 1, 4 and 9 over 3
        assert_eq!((columns[0].same_sign, columns[1].same_sign), (0.75, 1.0));
        assert_eq!(
            columns[1],
            ColumnSummary { mean: 0.0, std: 0.0, interval: [0.0; 2], same_sign: 1.0, stability: columns[1].stability }
        );
        assert!(columns[0].stability > 0.9);
        assert_eq!(summary.seen(), (4, 3));
    }

    #[test]
    fn one_prompt_has_no_spread() {
        let columns = of(&[1.0, 2.0, 6.0], &[4, 4, 4], 1).finish(1);
        assert_eq!((columns[0].mean, columns[0].interval), (3.0, [3.0, 3.0]));
    }

    #[test]
    fn the_interval_is_that_of_the_normal_distribution() {
        let values: Vec<f32> = (0..2000).map(|i| number(i) + 0.5).collect();
        let prompts: Vec<u32> = (0..2000).collect();
        let column = of(&values, &prompts, 1).finish(1)[0];
        let half = 1.96 * column.std / 2000f64.sqrt();
        assert!((column.interval[0] - (column.mean - half)).abs() < 0.15 * half, "{column:?}");
        assert!((column.interval[1] - (column.mean + half)).abs() < 0.15 * half, "{column:?}");
    }

    #[test]
    fn rows_of_a_prompt_are_one_draw() {
        // every prompt ten times the same row: the interval is that of 200 draws, not of 2000
        let values: Vec<f32> = (0..2000).map(|i| number(i / 10)).collect();
        let prompts: Vec<u32> = (0..2000).map(|i| i / 10).collect();
        let column = of(&values, &prompts, 1).finish(1)[0];
        let half = 1.96 * column.std / 200f64.sqrt();
        let found = (column.interval[1] - column.interval[0]) / 2.0;
        assert!((found - half).abs() < 0.15 * half, "{found} and {half}");
    }

    #[test]
    fn how_a_stream_is_cut_changes_nothing() {
        let values: Vec<f32> = (0..3 * 3000).map(number).collect();
        let prompts: Vec<u32> = (0..3000).map(|i| i / 2).collect();
        let whole = of(&values, &prompts, 3).finish(2);
        let mut parts = Summary::new(3, 7, 1000).unwrap();
        for (values, prompts) in values.chunks(3 * 700).zip(prompts.chunks(700)) {
            let first = prompts[0];
            let local: Vec<u32> = prompts.iter().map(|p| p - first).collect();
            parts.add(values, &local).unwrap();
        }
        for (a, b) in whole.iter().zip(parts.finish(2)) {
            assert!((a.mean - b.mean).abs() < 1e-12 && (a.std - b.std).abs() < 1e-12);
            assert!((a.interval[0] - b.interval[0]).abs() < 1e-9 && (a.interval[1] - b.interval[1]).abs() < 1e-9);
            assert_eq!((a.same_sign, a.stability), (b.same_sign, b.stability));
        }
    }

    #[test]
    fn draws_have_mean_and_variance_one() {
        let draws: Vec<f64> = (0..100_000).map(|i| f64::from(poisson(3, i / 100, i % 100))).collect();
        let mean = draws.iter().sum::<f64>() / 1e5;
        let variance = draws.iter().map(|d| (d - mean).powi(2)).sum::<f64>() / 1e5;
        assert!((mean - 1.0).abs() < 0.02 && (variance - 1.0).abs() < 0.03, "{mean} {variance}");
    }

    #[test]
    fn what_does_not_match_is_refused() {
        assert_eq!(Summary::new(2, 0, 0).err().unwrap().code(), "INVALID_ARGUMENT");
        assert_eq!(of(&[], &[], 2).add(&[1.0], &[0]).unwrap_err().code(), "INTERNAL");
        assert_eq!(of(&[], &[], 2).finish(1).len(), 2);
    }
}
