//! From the normed residual stream to logits: `logit_t = κ (n(x) · W_U[:, t] + b_U[t])`.

use crate::error::Result;
use crate::ops::{self, Kernels};
use candle_core::{DType, Tensor};
use std::ops::Range;
use std::sync::OnceLock;

/// The unembedding. W_U is kept a row per token, so that wanted columns of it are wanted rows here.
pub struct Unembed {
    /// W_Uᵀ, [d_vocab, d_model]
    pub weight: Tensor,
    /// b_U, [d_vocab]
    pub bias: Option<Tensor>,
    /// κ
    pub logit_scale: f64,
    /// Logits go through `cap · tanh(logit / cap)`.
    pub cap: Option<f64>,
    /// Which bodies of the operations it runs.
    pub(super) kernels: Kernels,
    mean: OnceLock<Column>,
}

/// One column of W_U and its bias, in f64: of a token, or the mean over the vocabulary.
#[derive(Debug, Clone, PartialEq)]
pub struct Column {
    /// W_U[:, t], [d_model]
    pub weight: Vec<f64>,
    /// b_U[t]
    pub bias: f64,
}

impl Unembed {
    /// An unembedding of these weights.
    pub fn new(weight: Tensor, bias: Option<Tensor>, logit_scale: f64, cap: Option<f64>) -> Self {
        Unembed { weight, bias, logit_scale, cap, kernels: Kernels::default(), mean: OnceLock::new() }
    }

    /// A logit after the cap.
    pub fn capped(&self, logit: f64) -> f64 {
        self.cap.map_or(logit, |cap| cap * (logit / cap).tanh())
    }

    /// Every logit, before the cap: normed [rows, d_model] → [rows, d_vocab].
    ///
    /// # Errors
    /// `INTERNAL` where shapes do not fit.
    pub fn logits(&self, normed: &Tensor) -> Result<Tensor> {
        self.scaled(ops::project(self.kernels, normed, &self.weight)?, self.bias.clone())
    }

    /// `κ x·W_U[:, t]` for a range of tokens, with `κ b_U[t]` if `bias`: x [rows, d_model] → [rows, tokens].
    ///
    /// # Errors
    /// `INTERNAL` where shapes do not fit.
    pub fn products(&self, x: &Tensor, tokens: Range<usize>, bias: bool) -> Result<Tensor> {
        let of = |all: &Tensor| all.narrow(0, tokens.start, tokens.len());
        let bias = self.bias.as_ref().filter(|_| bias).map(of).transpose()?;
        self.scaled(ops::project(self.kernels, x, &of(&self.weight)?)?, bias)
    }

    /// The logits of these tokens only: normed [rows, d_model] → [rows, tokens].
    ///
    /// # Errors
    /// `INTERNAL` where a token is not in the vocabulary.
    pub fn logits_of(&self, normed: &Tensor, tokens: &[u32]) -> Result<Tensor> {
        let tokens = Tensor::new(tokens, self.weight.device())?;
        let bias = self.bias.as_ref().map(|b| b.index_select(&tokens, 0)).transpose()?;
        self.scaled(ops::project(self.kernels, normed, &self.weight.index_select(&tokens, 0)?)?, bias)
    }

    /// The mean over the vocabulary of every row's logits: normed [rows, d_model] → [rows].
    ///
    /// # Errors
    /// `INTERNAL` where shapes do not fit.
    pub fn mean_logit(&self, normed: &Tensor) -> Result<Vec<f32>> {
        let Column { weight, bias } = self.mean_column()?;
        let d_model = weight.len();
        let weight =
            Tensor::from_iter(weight.iter().map(|w| *w as f32), self.weight.device())?.reshape((1, d_model))?;
        let bias = Tensor::new(&[*bias as f32], self.weight.device())?;
        Ok(self.scaled(ops::project(self.kernels, normed, &weight)?, Some(bias))?.flatten_all()?.to_vec1()?)
    }

    /// The columns of these tokens.
    ///
    /// # Errors
    /// `INTERNAL` where a token is not in the vocabulary.
    pub fn columns(&self, tokens: &[u32]) -> Result<Vec<Column>> {
        let index = Tensor::new(tokens, self.weight.device())?;
        let weights: Vec<Vec<f64>> = self.weight.index_select(&index, 0)?.to_dtype(DType::F64)?.to_vec2()?;
        let biases = match &self.bias {
            Some(bias) => bias.index_select(&index, 0)?.to_dtype(DType::F64)?.to_vec1()?,
            None => vec![0.0; tokens.len()],
        };
        Ok(weights.into_iter().zip(biases).map(|(weight, bias)| Column { weight, bias }).collect())
    }

    /// The mean of all columns, summed in f64 the first time it is asked for.
    ///
    /// # Errors
    /// `INTERNAL`.
    pub fn mean_column(&self) -> Result<&Column> {
        if let Some(mean) = self.mean.get() {
            return Ok(mean);
        }
        let (d_vocab, d_model) = self.weight.dims2()?;
        let mut weight = vec![0.0; d_model];
        const BLOCK: usize = 1024;
        for start in (0..d_vocab).step_by(BLOCK) {
            let rows = self.weight.narrow(0, start, BLOCK.min(d_vocab - start))?;
            let sums: Vec<f64> = rows.to_dtype(DType::F64)?.sum(0)?.to_vec1()?;
            weight.iter_mut().zip(sums).for_each(|(total, sum)| *total += sum / d_vocab as f64);
        }
        let bias = match &self.bias {
            Some(bias) => bias.to_dtype(DType::F64)?.mean_all()?.to_scalar()?,
            None => 0.0,
        };
        Ok(self.mean.get_or_init(|| Column { weight, bias }))
    }

    fn scaled(&self, logits: Tensor, bias: Option<Tensor>) -> Result<Tensor> {
        let logits = match bias {
            Some(bias) => logits.broadcast_add(&bias)?,
            None => logits,
        };
        Ok(if self.logit_scale == 1.0 { logits } else { (logits * self.logit_scale)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{close, matrix, values};

    /// κ (x·W_U[:,t] + b_U[t]) in f64
    fn naive(x: &Tensor, w: &Tensor, b: &Tensor, kappa: f64) -> Vec<f64> {
        let (rows, d) = x.dims2().unwrap();
        let (x, w, b) = (values(x), values(w), values(b));
        let logit = |r: usize, t: usize| kappa * ((0..d).map(|i| x[r * d + i] * w[t * d + i]).sum::<f64>() + b[t]);
        (0..rows).flat_map(|r| (0..b.len()).map(move |t| (r, t))).map(|(r, t)| logit(r, t)).collect()
    }

    #[test]
    fn logits_columns_and_means_agree_with_the_definition() {
        let (rows, d, v) = (3, 5, 2500); // more than two blocks of the mean
        let (x, w, b) = (matrix(&[rows, d], 1), matrix(&[v, d], 2), matrix(&[v], 3));
        let unembed = Unembed::new(w.clone(), Some(b.clone()), 0.25, None);
        let expected = naive(&x, &w, &b, 0.25);
        close(&unembed.logits(&x).unwrap(), &expected, 1e-5);
        let wanted = [7u32, 2499, 7];
        let some: Vec<f64> = (0..rows).flat_map(|r| wanted.map(|t| expected[r * v + t as usize])).collect();
        close(&unembed.logits_of(&x, &wanted).unwrap(), &some, 1e-5);
        for (row, mean) in unembed.mean_logit(&x).unwrap().into_iter().enumerate() {
            let naive = expected[row * v..(row + 1) * v].iter().sum::<f64>() / v as f64;
            assert!((f64::from(mean) - naive).abs() < 1e-6);
        }
        let columns = unembed.columns(&wanted).unwrap();
        assert_eq!(columns[1].weight, values(&w)[2499 * d..]);
        assert_eq!((columns[1].bias, &columns[0]), (values(&b)[2499], &columns[2]));
        assert!(Unembed::new(w, None, 1.0, None).columns(&[3]).unwrap()[0].bias == 0.0);
    }
}
