//! What is attributed: a weighted set of tokens, or a direction in the stream; as it is asked for, and as it is at a row.

use crate::chunk::{Chunk, Prompted, Row};
use crate::error::{PrismError, Result};
use crate::model::{Output, Transformer, Unembed, check_finite};
use candle_core::{D, DType, Tensor};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A target as it is asked for, its tokens of any kind: ids, or what is still to become one.
#[derive(Debug, Clone)]
pub enum Target<T = u32> {
    /// The answer's logit, less that of what it is compared with.
    Tokens {
        /// Counts with +1.
        answer: Answer<T>,
        /// Counts with −1.
        against: Option<Against<T>>,
    },
    /// Any weights.
    Weights(Vec<(T, f64)>),
    /// A vector of d_model, read raw at the final residual stream.
    Direction(Arc<[f32]>),
}

/// An answer.
#[derive(Debug, Clone)]
pub enum Answer<T = u32> {
    /// These tokens, averaged.
    Tokens(Vec<T>),
    /// The prompt's own next token.
    Next,
    /// The token that the model predicts.
    Predicted,
}

/// What an answer is compared with.
#[derive(Debug, Clone)]
pub enum Against<T = u32> {
    /// These tokens, averaged.
    Tokens(Vec<T>),
    /// The mean over the vocabulary.
    Mean,
}

/// A target at one row.
#[derive(Debug, Clone, PartialEq)]
pub enum Resolved {
    /// `Σ_t w_t logit_t`
    Tokens(TokenWeights),
    /// The dot product with the stream.
    Direction(Arc<[f32]>),
}

/// Weights of tokens, each token once, and the weight of the vocabulary's mean.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TokenWeights {
    /// Token ids and their weights, ids rising.
    pub tokens: BTreeMap<u32, f64>,
    /// Weight of the mean of all logits.
    pub mean: f64,
}

impl<T> Target<T> {
    /// The same target, every token turned into another kind.
    ///
    /// # Errors
    /// What `f` returns.
    pub fn try_map<U>(&self, f: impl Fn(&T) -> Result<U>) -> Result<Target<U>> {
        let list = |tokens: &[T]| tokens.iter().map(&f).collect::<Result<Vec<U>>>();
        Ok(match self {
            Target::Direction(v) => Target::Direction(v.clone()),
            Target::Weights(weights) => {
                Target::Weights(weights.iter().map(|(token, w)| Ok((f(token)?, *w))).collect::<Result<_>>()?)
            }
            Target::Tokens { answer, against } => Target::Tokens {
                answer: match answer {
                    Answer::Tokens(tokens) => Answer::Tokens(list(tokens)?),
                    Answer::Next => Answer::Next,
                    Answer::Predicted => Answer::Predicted,
                },
                against: match against {
                    Some(Against::Tokens(tokens)) => Some(Against::Tokens(list(tokens)?)),
                    Some(Against::Mean) => Some(Against::Mean),
                    None => None,
                },
            },
        })
    }
}

impl TokenWeights {
    fn add(&mut self, tokens: &[u32], weight: f64) {
        for token in tokens {
            *self.tokens.entry(*token).or_default() += weight / tokens.len() as f64;
        }
    }
}

impl Target {
    /// That it can be attributed at all, whatever the row.
    ///
    /// # Errors
    /// `TOKEN_RANGE`; `INVALID_ARGUMENT` for empty or non-finite sets, sets that cancel, and directions of another length.
    pub fn check(&self, d_vocab: usize, d_model: usize) -> Result<()> {
        let tokens: Vec<u32> = match self {
            Target::Direction(v) => return check_direction(v, d_model),
            Target::Weights(weights) => weights.iter().map(|(token, _)| *token).collect(),
            Target::Tokens { answer, against } => {
                let answer = if let Answer::Tokens(tokens) = answer { Some(("answer", tokens)) } else { None };
                let against =
                    if let Some(Against::Tokens(tokens)) = against { Some(("against", tokens)) } else { None };
                for (name, tokens) in answer.iter().chain(&against) {
                    if tokens.is_empty() {
                        return Err(PrismError::argument(
                            format!("target.{name}"),
                            "an empty list",
                            "at least one token",
                        ));
                    }
                }
                answer.iter().chain(&against).flat_map(|(_, tokens)| tokens.iter().copied()).collect()
            }
        };
        if let Some(id) = tokens.iter().find(|id| **id as usize >= d_vocab) {
            return Err(PrismError::TokenRange { id: u64::from(*id), d_vocab });
        }
        match self.fixed_weights() {
            Some(w) if w.tokens.values().any(|w| !w.is_finite()) => {
                Err(PrismError::argument("target.weights", "a weight that is not finite", "finite weights"))
            }
            Some(w) if w.mean == 0.0 && w.tokens.values().all(|w| *w == 0.0) => Err(PrismError::argument(
                "target",
                "weights that cancel",
                "an answer that differs from what it is compared with",
            )),
            _ => Ok(()),
        }
    }

    /// The weights, where they do not depend on the row.
    fn fixed_weights(&self) -> Option<TokenWeights> {
        let mut weights = TokenWeights::default();
        match self {
            Target::Tokens { answer: Answer::Tokens(tokens), against } => {
                weights.add(tokens, 1.0);
                weights.subtract(against);
            }
            Target::Weights(list) => list.iter().for_each(|(token, w)| weights.add(&[*token], *w)),
            _ => return None,
        }
        Some(weights)
    }
}

impl TokenWeights {
    fn subtract(&mut self, against: &Option<Against>) {
        match against {
            None => {}
            Some(Against::Tokens(tokens)) => self.add(tokens, -1.0),
            Some(Against::Mean) => self.mean -= 1.0,
        }
    }
}

fn check_direction(v: &[f32], d_model: usize) -> Result<()> {
    let expected = format!("{d_model} finite numbers, not all 0");
    if v.len() != d_model {
        return Err(PrismError::argument("target.direction", format!("{} numbers", v.len()), expected));
    }
    if v.iter().any(|x| !x.is_finite()) || v.iter().all(|x| *x == 0.0) {
        return Err(PrismError::argument("target.direction", "a vector that is not finite, or 0", expected));
    }
    Ok(())
}

/// The target of some rows of a chunk; `output` holds them.
///
/// # Errors
/// As [`resolve`].
pub(crate) fn resolve_rows(
    rows: &[Row],
    chunk: Chunk,
    targets: &[Target],
    output: &Output,
    model: &Transformer,
) -> Result<Vec<Resolved>> {
    resolve(rows, chunk, targets, output, &model.unembed)
}

/// The target of every row; `output` holds the same rows, `targets` one for each prompt of the chunk.
///
/// # Errors
/// `POSITION_RANGE` for the next token of a last position, `INVALID_ARGUMENT` where the prediction is what it is to be
/// compared with, `NOT_FINITE` where there is no prediction.
pub(super) fn resolve(
    rows: &[Row],
    chunk: Chunk,
    targets: &[Target],
    output: &Output,
    unembed: &Unembed,
) -> Result<Vec<Resolved>> {
    let of_row = |(i, row): (usize, &Row)| {
        let normed = || output.normed.narrow(0, i, 1);
        resolve_at(*row, chunk.prompt(*row), &targets[row.prompt - chunk.first], || {
            predicted(*row, &normed()?, unembed)
        })
    };
    rows.iter().enumerate().map(of_row).collect()
}

fn resolve_at(
    row: Row,
    prompt: &Prompted,
    target: &Target,
    predicted: impl FnOnce() -> Result<u32>,
) -> Result<Resolved> {
    if let Target::Direction(v) = target {
        return Ok(Resolved::Direction(v.clone()));
    }
    if let Some(weights) = target.fixed_weights() {
        return Ok(Resolved::Tokens(weights));
    }
    let Target::Tokens { answer, against } = target else { return Ok(Resolved::Tokens(TokenWeights::default())) };
    let token = match (answer, prompt.ids.get(row.position + 1)) {
        (Answer::Next, Some(next)) => *next,
        (Answer::Next, None) => {
            return Err(PrismError::PositionRange {
                prompt: row.prompt,
                position: row.position as i64,
                length: prompt.ids.len(),
                problem: "the last, which has no next token for answer: 'next'",
            });
        }
        _ => predicted()?,
    };
    let mut weights = TokenWeights::default();
    weights.add(&[token], 1.0);
    weights.subtract(against);
    weights.tokens.retain(|_, w| *w != 0.0);
    if weights.tokens.is_empty() && weights.mean == 0.0 {
        let Row { prompt, position } = row;
        let found = format!("token {token}, at position {position} of prompt {prompt} the answer itself");
        return Err(PrismError::argument("target.against", found, "another token than the answer"));
    }
    Ok(Resolved::Tokens(weights))
}

/// The token with the largest logit at a row, normed [1, d_model]; among logits that are not finite there is none.
fn predicted(row: Row, normed: &Tensor, unembed: &Unembed) -> Result<u32> {
    let logits = unembed.logits(normed)?;
    check_finite(&logits, || "logits".into(), |_| row.prompt)?;
    Ok(logits.argmax(D::Minus1)?.to_vec1::<u32>()?[0])
}

/// What is measured at a row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Measured {
    /// `Σ_t w_t logit_t`, before a cap; or a direction's dot product.
    pub value: f64,
    /// The same of the logits after the cap; NaN where it would take all logits (the mean of capped ones).
    pub after_cap: f64,
}

/// The target's value at every row as the forward pass itself computes it: by its final norm and unembedding, or the
/// dot product of a direction with the stream. The logits of all tokens that occur are taken in one product.
///
/// # Errors
/// `INTERNAL` where rows do not match.
pub(crate) fn measure(targets: &[Resolved], output: &Output, unembed: &Unembed) -> Result<Vec<Measured>> {
    let weights = || targets.iter().filter_map(|t| if let Resolved::Tokens(w) = t { Some(w) } else { None });
    let tokens: BTreeSet<u32> = weights().flat_map(|w| w.tokens.keys().copied()).collect();
    let tokens: Vec<u32> = tokens.into_iter().collect();
    let logits: Vec<Vec<f32>> =
        if tokens.is_empty() { Vec::new() } else { unembed.logits_of(&output.normed, &tokens)?.to_vec2()? };
    let means = if weights().any(|w| w.mean != 0.0) { unembed.mean_logit(&output.normed)? } else { Vec::new() };

    let mut measured = Vec::with_capacity(targets.len());
    for (row, target) in targets.iter().enumerate() {
        measured.push(match target {
            Resolved::Direction(v) => {
                let stream: Vec<f64> = output.stream.get(row)?.to_dtype(DType::F64)?.to_vec1()?;
                let value = stream.iter().zip(v.iter()).map(|(x, v)| x * f64::from(*v)).sum();
                Measured { value, after_cap: value }
            }
            Resolved::Tokens(w) => {
                let logit = |token: &u32| f64::from(logits[row][tokens.partition_point(|t| t < token)]);
                let sum = |of: &dyn Fn(f64) -> f64| w.tokens.iter().map(|(t, w)| w * of(logit(t))).sum::<f64>();
                let mean = if w.mean == 0.0 { 0.0 } else { w.mean * f64::from(means[row]) };
                let after_cap = match (w.mean == 0.0, unembed.cap) {
                    (true, _) => sum(&|l| unembed.capped(l)),
                    (false, None) => sum(&|l| l) + mean,
                    (false, Some(_)) => f64::NAN,
                };
                Measured { value: sum(&|l| l) + mean, after_cap }
            }
        });
    }
    Ok(measured)
}
