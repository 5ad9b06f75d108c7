//! The logit lens: what the unembedding reads from the stream before and after every sublayer.
//!
//! `recomputed`: through the final norm as it would act on that stream. `frozen`: with the norm held at its scale of the
//! run, so that the differences between states are what the sublayers write. The last state is the model's own, with both.

use super::certificate::{self, Certificate, Sums};
use super::target::{self, Resolved, Target};
use super::vocabulary::{Largest, blocks};
use crate::cancel::Cancel;
use crate::chunk::{Chunk, Row};
use crate::config::ModelConfig;
use crate::error::Result;
use crate::hook::{BlockPoint, HookPoint};
use crate::model::{Transformer, check_finite};
use candle_core::{DType, Tensor};
use std::collections::BTreeSet;

/// The final norm of a stream that is not final.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LensNorm {
    /// Computed anew on that stream.
    Recomputed,
    /// Held at its scale of the run.
    Frozen,
}

/// What is asked.
pub struct Lens {
    /// The final norm.
    pub norm: LensNorm,
    /// The k most likely tokens at every state; 0 for none.
    pub top: usize,
}

/// A token as a state predicts it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Predicted {
    /// Token id.
    pub token: u32,
    /// Its logit, after the model's cap.
    pub logit: f32,
    /// Its probability.
    pub probability: f32,
}

/// One token of a target at one state.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Standing {
    /// Its logit, before the cap.
    pub logit: f32,
    /// How many tokens have a larger logit.
    pub rank: u32,
    /// The logarithm of its probability, of the logits after the cap.
    pub log_probability: f32,
}

/// What every state of every row reads.
#[derive(Default)]
pub struct Lensed {
    /// What each row is.
    pub rows: Vec<Row>,
    /// What each row reads, resolved; empty without targets.
    pub targets: Vec<Resolved>,
    /// The target's value, before a cap: [rows, states].
    pub values: Vec<f32>,
    /// The last state and the forward pass's own value, [rows].
    pub certificates: Vec<Certificate>,
    /// Every token of the row's target at every state: [rows][tokens · states].
    pub standings: Vec<Vec<Standing>>,
    /// The most likely tokens, most likely first: [rows · states].
    pub top: Vec<Vec<Predicted>>,
}

impl Lensed {
    /// Puts another part behind this one.
    pub fn append(&mut self, mut other: Lensed) {
        self.rows.append(&mut other.rows);
        self.targets.append(&mut other.targets);
        self.values.append(&mut other.values);
        self.certificates.append(&mut other.certificates);
        self.standings.append(&mut other.standings);
        self.top.append(&mut other.top);
    }
}

/// The states of the stream: before and after every sublayer; 2 L + 1, or L + 1 where blocks are parallel.
pub fn states(config: &ModelConfig) -> Vec<HookPoint> {
    let of_layer = |l| [BlockPoint::ResidMid, BlockPoint::ResidPost].map(|p| HookPoint::Block(l, p));
    let first = [HookPoint::Block(0, BlockPoint::ResidPre)].into_iter();
    first.chain((0..config.n_layers).flat_map(of_layer)).filter(|p| p.absent(config).is_none()).collect()
}

/// Reads the wanted rows of a chunk; `targets` one per prompt, or none.
///
/// # Errors
/// Those of the forward pass; `INCOMPLETE` where the last state is not what the forward pass computed; `ABORTED` between
/// two blocks of the vocabulary.
pub fn lens(
    model: &Transformer,
    chunk: Chunk,
    targets: Option<&[Target]>,
    lens: &Lens,
    cancel: &Cancel,
) -> Result<Lensed> {
    let states = states(&model.config);
    let points = states.iter().copied().chain([HookPoint::FinalScale]).collect();
    let Some(observed) = chunk.forward(model, points, BTreeSet::new(), cancel)? else { return Ok(Lensed::default()) };
    let rows = observed.rows;
    let streams =
        states.iter().map(|p| Ok(observed.activations.kept(*p)?.unsqueeze(1)?)).collect::<Result<Vec<_>>>()?;
    let streams = Tensor::cat(&streams, 1)?; // [rows, states, d_model]
    let normed = match lens.norm {
        LensNorm::Recomputed => model.ln_final.forward_unseen(&streams.flatten_to(1)?, model.kernels)?,
        LensNorm::Frozen => {
            let scale = observed.activations.kept(HookPoint::FinalScale)?.unsqueeze(1)?;
            let linear = model.ln_final.linear_part(&streams, &scale)?;
            model.ln_final.beta.as_ref().map_or(Ok(linear.clone()), |beta| linear.broadcast_add(beta))?.flatten_to(1)?
        }
    };
    check_finite(&normed, || "the lens".into(), |i| rows[i / states.len()].prompt)?;

    let targets = match targets {
        Some(targets) => target::resolve(&rows, chunk, targets, &observed.output, &model.unembed)?,
        None => Vec::new(),
    };
    let wanted = Wanted::of(&targets, rows.len());
    let read = read_vocabulary(model, &normed, states.len(), &wanted, lens.top, cancel)?;
    let mut result = Lensed { standings: read.standings, top: read.top, ..Lensed::default() };
    if !targets.is_empty() {
        let is_direction = |t: &Resolved| matches!(t, Resolved::Direction(_));
        let raw: Vec<Vec<Vec<f64>>> =
            if targets.iter().any(is_direction) { streams.to_dtype(DType::F64)?.to_vec3()? } else { Vec::new() };
        let value = |row: usize, state: usize| match &targets[row] {
            Resolved::Direction(v) => raw[row][state].iter().zip(v.iter()).map(|(x, v)| x * f64::from(*v)).sum(),
            Resolved::Tokens(w) => {
                let logit = |i: usize| f64::from(result.standings[row][i * states.len() + state].logit);
                let of_tokens: f64 = w.tokens.values().enumerate().map(|(i, w)| w * logit(i)).sum();
                of_tokens + w.mean * read.means[row * states.len() + state]
            }
        };
        let values: Vec<f64> = (0..rows.len())
            .flat_map(|row| (0..states.len()).map(move |state| (row, state)))
            .map(|(r, s)| value(r, s))
            .collect();
        let measured = target::measure(&targets, &observed.output, &model.unembed)?;
        let relative = certificate::relative(model.dtype());
        result.certificates =
            certify(relative, &values, states.len(), &measured.iter().map(|m| m.value).collect::<Vec<_>>());
        certificate::check(&result.certificates, &rows)?;
        result.values = values.iter().map(|v| *v as f32).collect();
    }
    Ok(Lensed { rows, targets, ..result })
}

/// The last state against the forward pass; what the states differ by are the parts whose sizes set the tolerance.
fn certify(relative: f64, values: &[f64], n_states: usize, measured: &[f64]) -> Vec<Certificate> {
    let sums = |row: &[f64]| {
        let mut sums = Sums::of(&row[..1]);
        row.windows(2).for_each(|pair| sums.add(&[pair[1] - pair[0]]));
        sums
    };
    let sums: Vec<Sums> = values.chunks_exact(n_states).map(sums).collect();
    certificate::certify(relative, &sums, &vec![0.0; measured.len()], measured)
}

/// The tokens that are wanted of every row, in the order of the target.
struct Wanted {
    tokens: Vec<Vec<u32>>,
    /// All of them, each once, rising.
    distinct: Vec<u32>,
}

impl Wanted {
    fn of(targets: &[Resolved], rows: usize) -> Self {
        let tokens: Vec<Vec<u32>> = (0..rows)
            .map(|row| match targets.get(row) {
                Some(Resolved::Tokens(w)) => w.tokens.keys().copied().collect(),
                _ => Vec::new(),
            })
            .collect();
        let distinct: BTreeSet<u32> = tokens.iter().flatten().copied().collect();
        Wanted { tokens, distinct: distinct.into_iter().collect() }
    }
}

struct Read {
    standings: Vec<Vec<Standing>>,
    top: Vec<Vec<Predicted>>,
    /// Mean logit before the cap, [rows · states].
    means: Vec<f64>,
}

/// What a scan over the vocabulary gathers for one row and state.
struct Gathered {
    /// The largest capped logit so far, and Σ exp(logit − that).
    max: f64,
    sum: f64,
    total: f64,
    largest: Largest,
    /// Of the wanted tokens: their logits and how many exceed them.
    wanted: Vec<(u32, f32, u32)>,
}

fn read_vocabulary(
    model: &Transformer,
    normed: &Tensor,
    n_states: usize,
    wanted: &Wanted,
    k: usize,
    cancel: &Cancel,
) -> Result<Read> {
    let unembed = &model.unembed;
    let n = normed.dim(0)?;
    let logits: Vec<Vec<f32>> = match &wanted.distinct[..] {
        [] => Vec::new(),
        tokens => unembed.logits_of(normed, tokens)?.to_vec2()?,
    };
    let mut gathered: Vec<Gathered> = (0..n)
        .map(|i| {
            let logit = |t: &u32| logits[i][wanted.distinct.partition_point(|d| d < t)];
            let of_row = wanted.tokens[i / n_states].iter().map(|t| (*t, logit(t), 0)).collect();
            Gathered { max: f64::NEG_INFINITY, sum: 0.0, total: 0.0, largest: Largest::new(k), wanted: of_row }
        })
        .collect();
    blocks(unembed, normed, true, |start, products| {
        cancel.check()?;
        let width = products.len() / n;
        for (row, gathered) in products.chunks_exact(width).zip(&mut gathered) {
            gathered.take(start, row, |logit| unembed.capped(logit));
        }
        Ok(())
    })?;

    let d_vocab = unembed.weight.dim(0)? as f64;
    let means = gathered.iter().map(|g| g.total / d_vocab).collect();
    let mut standings: Vec<Vec<Standing>> = Vec::new();
    for (row, tokens) in wanted.tokens.iter().enumerate() {
        let of = |(t, state): (usize, usize)| {
            let g = &gathered[row * n_states + state];
            let (_, logit, rank) = g.wanted[t];
            let log_probability = unembed.capped(f64::from(logit)) - g.max - g.sum.ln();
            Standing { logit, rank, log_probability: log_probability as f32 }
        };
        standings.push((0..tokens.len()).flat_map(|t| (0..n_states).map(move |s| (t, s))).map(of).collect());
    }
    let top = gathered.into_iter().map(|g| {
        let Gathered { max, sum, largest, .. } = g;
        let predicted = |scored: super::vocabulary::Scored| {
            let logit = unembed.capped(f64::from(scored.value));
            Predicted { token: scored.token, logit: logit as f32, probability: ((logit - max).exp() / sum) as f32 }
        };
        largest.finish().into_iter().map(predicted).collect()
    });
    Ok(Read { standings, top: top.collect(), means })
}

impl Gathered {
    fn take(&mut self, start: usize, logits: &[f32], capped: impl Fn(f64) -> f64) {
        let block_max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let max = self.max.max(capped(f64::from(block_max)));
        self.sum =
            self.sum * (self.max - max).exp() + logits.iter().map(|l| (capped(f64::from(*l)) - max).exp()).sum::<f64>();
        self.max = max;
        self.total += logits.iter().map(|l| f64::from(*l)).sum::<f64>();
        for (token, logit, rank) in &mut self.wanted {
            *rank += logits.iter().filter(|l| **l > *logit).count() as u32;
            // the token's own logit comes from another product, so it may differ in its last bit
            let own = (*token as usize).checked_sub(start).and_then(|i| logits.get(i));
            *rank -= u32::from(own.is_some_and(|own| own > logit));
        }
        for (i, logit) in logits.iter().enumerate() {
            self.largest.offer((start + i) as u32, *logit);
        }
    }
}
