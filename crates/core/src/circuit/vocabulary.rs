//! Circuits between tokens: rows of `W_E OV W_U` and `W_E QK W_Eᵀ`, and how far a head copies. The vocabulary is read in
//! blocks, once per question; nothing of its square is ever formed. In f64.

use super::factored::{Factored, eigenvalues};
use super::spec::{CircuitKind, CircuitSpec};
use super::weights::{Folding, fold_after};
use crate::attribution::{Largest, Scored};
use crate::cancel::Cancel;
use crate::error::{PrismError, Result};
use crate::model::Transformer;
use crate::run::Job;
use candle_core::{DType, Tensor};
use nalgebra::{Complex, DMatrix};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Mutex;

/// Tokens of a block.
const BLOCK: usize = 1024;

/// Eigenvalues that are smaller than this beside the norms of their factors come from the rounding of f32 weights: their
/// share says nothing.
const ROUNDING: f64 = 1e-7;

/// What a token is matched with: outputs (W_U) or keys (W_E).
#[derive(Clone, Copy, PartialEq)]
enum Table {
    Embed,
    Unembed,
}

/// The row of one token.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenRow {
    /// The token that is read: the source of an OV circuit, the query of a QK circuit.
    pub token: u32,
    /// Largest first.
    pub top: Vec<Scored>,
    /// Smallest first.
    pub bottom: Vec<Scored>,
}

/// The rows of some tokens: for OV, what the head adds to the logits when it reads the token, less its mean over the
/// vocabulary; for QK, the tokens whose keys the token's query scores highest and lowest.
///
/// # Errors
/// Those of [`CircuitSpec::check`]; `TOKEN_RANGE`, `INVALID_ARGUMENT` for more tokens than there are, `ABORTED`.
pub fn rows(
    model: &Transformer,
    spec: &CircuitSpec,
    tokens: &[u32],
    k: usize,
    masked: &BTreeSet<u32>,
    job: &Job,
) -> Result<Vec<TokenRow>> {
    let d_vocab = model.config.d_vocab;
    check_tokens(tokens.iter().chain(masked), d_vocab)?;
    if !(1..=d_vocab - masked.len()).contains(&k) {
        let expected = format!("a whole number from 1 to {}, the tokens that there are", d_vocab - masked.len());
        return Err(PrismError::argument("k", k, expected));
    }
    let between = Between::new(model, spec)?;
    let read = embeddings(model, tokens)?.transpose() * &between.a * &between.b; // [tokens, d_model]
    let means = match between.table {
        Table::Unembed => &read * DMatrix::from_column_slice(read.ncols(), 1, &model.unembed.mean_column()?.weight),
        Table::Embed => DMatrix::zeros(read.nrows(), 1),
    };
    let blocks = over_vocabulary(model, job, |range| {
        let values = table(model, between.table, range.clone())?.tr_mul(&read.transpose()); // [block, tokens]
        let best = |row: usize, sign: f64| {
            let mut largest = Largest::new(k);
            for (token, value) in range.clone().zip(values.column(row).iter()) {
                if !masked.contains(&(token as u32)) {
                    largest.offer(token as u32, (sign * (value - means[row])) as f32);
                }
            }
            largest.finish()
        };
        Ok((0..tokens.len()).map(|row| [best(row, 1.0), best(row, -1.0)]).collect::<Vec<_>>())
    })?;
    let merged = |row: usize, side: usize| {
        let mut largest = Largest::new(k);
        blocks.iter().flat_map(|block| &block[row][side]).for_each(|s| largest.offer(s.token, s.value));
        largest.finish()
    };
    let negated = |s: Scored| Scored { value: -s.value, ..s };
    let row = |(row, token): (usize, &u32)| TokenRow {
        token: *token,
        top: merged(row, 0),
        bottom: merged(row, 1).into_iter().map(negated).collect(),
    };
    Ok(tokens.iter().enumerate().map(row).collect())
}

/// `W_E[q] QK W_E[k]ᵀ`, or `W_E[q] OV W_U[:, k]`, between some tokens: [tokens, others]. Nothing is taken off.
///
/// # Errors
/// Those of [`CircuitSpec::check`]; `TOKEN_RANGE`.
pub fn scores(model: &Transformer, spec: &CircuitSpec, tokens: &[u32], others: &[u32]) -> Result<DMatrix<f64>> {
    check_tokens(tokens.iter().chain(others), model.config.d_vocab)?;
    let between = Between::new(model, spec)?;
    let read = embeddings(model, tokens)?.transpose() * &between.a;
    Ok(read * (&between.b * table_of(model, between.table, others)?))
}

/// How much of the vocabulary is asked whether it is copied.
#[derive(Debug, Clone)]
pub struct CopyingCall {
    /// So many tokens, drawn without replacement; all without.
    pub sample: Option<usize>,
    /// Seed of the draw.
    pub seed: u32,
    /// Tokens that are neither drawn nor compete.
    pub masked: BTreeSet<u32>,
}

/// How far an OV circuit copies.
#[derive(Debug, Clone, PartialEq)]
pub struct Copying {
    /// `Σ λ / Σ |λ|` over the eigenvalues of the full circuit `W_E OV W_U`, from −1 to 1 (Elhage et al. 2021, "copying
    /// matrices"); NaN where they are 0 but for rounding.
    pub eigenvalue_share: f64,
    /// Those of the eigenvalues that can differ from 0, largest magnitude first.
    pub eigenvalues: Vec<Complex<f64>>,
    /// Share of the tokens whose own logit the head raises above that of every other token when it reads them.
    pub top1: f64,
    /// Mean rank of the token itself among all tokens, 1 the best; of equal values it is the last.
    pub mean_rank: f64,
    /// How many tokens were asked.
    pub sampled: usize,
}

/// How far an OV circuit copies: by eigenvalues and by the tokens that it raises most.
///
/// # Errors
/// Those of [`CircuitSpec::check`]; `INVALID_ARGUMENT` for QK circuits and samples that cannot be drawn, `TOKEN_RANGE`,
/// `ABORTED`, `NOT_FINITE`.
pub fn copying(model: &Transformer, spec: &CircuitSpec, call: &CopyingCall, job: &Job) -> Result<Copying> {
    if spec.kind != CircuitKind::Ov {
        return Err(PrismError::argument("copyingScore", "a QK circuit", "an OV circuit"));
    }
    let tokens = sample(call, model.config.d_vocab)?;
    let Between { a, b, .. } = Between::new(model, spec)?;
    let (read, own) = read_and_own(model, &tokens, &a, &b)?;
    let blocks = over_vocabulary(model, job, |range| {
        let written = &b * table(model, Table::Unembed, range.clone())?; // [e, block]
        let read_here = table(model, Table::Embed, range.clone())?.tr_mul(&a); // [block, e]
        let small = &written * &read_here;
        let better = better_than(&read, &own, &written, &tokens, range, call, job.cancel)?;
        Ok((small, [written.norm_squared(), read_here.norm_squared()], better))
    })?;
    // the eigenvalues of E A B U other than 0 are those of B U E A, summed over the vocabulary
    let mut small = DMatrix::zeros(b.nrows(), b.nrows());
    let mut squares = [0.0; 2];
    let mut ranks = vec![1u64; tokens.len()];
    for (part, [written, read], better) in blocks {
        small += part;
        squares = [squares[0] + written, squares[1] + read];
        ranks.iter_mut().zip(better).for_each(|(rank, better)| *rank += u64::from(better));
    }
    let mut eigenvalues = eigenvalues(small)?;
    eigenvalues.truncate(Factored { a, b }.rank());
    let magnitude: f64 = eigenvalues.iter().map(|l| l.norm()).sum();
    let is_zero = magnitude <= ROUNDING * (squares[0] * squares[1]).sqrt();
    let n = tokens.len() as f64;
    Ok(Copying {
        eigenvalue_share: if is_zero { f64::NAN } else { eigenvalues.iter().map(|l| l.re).sum::<f64>() / magnitude },
        eigenvalues,
        top1: ranks.iter().filter(|rank| **rank == 1).count() as f64 / n,
        mean_rank: ranks.iter().map(|rank| *rank as f64).sum::<f64>() / n,
        sampled: tokens.len(),
    })
}

/// What the head takes from each of the tokens, [tokens, e], and what it adds to the token's own logit, [tokens].
fn read_and_own(
    model: &Transformer,
    tokens: &[u32],
    a: &DMatrix<f64>,
    b: &DMatrix<f64>,
) -> Result<(DMatrix<f64>, Vec<f64>)> {
    let (mut read, mut own) = (DMatrix::zeros(tokens.len(), a.ncols()), Vec::with_capacity(tokens.len()));
    for some in tokens.chunks(BLOCK) {
        let from = embeddings(model, some)?.tr_mul(a);
        let to = b * table_of(model, Table::Unembed, some)?;
        let start = own.len();
        own.extend((0..some.len()).map(|i| from.row(i).transpose().dot(&to.column(i))));
        read.rows_mut(start, some.len()).copy_from(&from);
    }
    Ok((read, own))
}

/// For each of the tokens, how many others of a block get at least what it gets itself.
fn better_than(
    read: &DMatrix<f64>,
    own: &[f64],
    written: &DMatrix<f64>,
    tokens: &[u32],
    block: Range<usize>,
    call: &CopyingCall,
    cancel: &Cancel,
) -> Result<Vec<u32>> {
    let mut better = Vec::with_capacity(tokens.len());
    for start in (0..tokens.len()).step_by(BLOCK) {
        cancel.check()?;
        let n = BLOCK.min(tokens.len() - start);
        let values = read.rows(start, n) * written; // [n, block]
        for (i, row) in (start..start + n).zip(values.row_iter()) {
            let beats = |(token, value): &(usize, &f64)| {
                *token != tokens[i] as usize && **value >= own[i] && !call.masked.contains(&(*token as u32))
            };
            better.push(block.clone().zip(row.iter()).filter(beats).count() as u32);
        }
    }
    Ok(better)
}

/// The tokens that are asked, rising.
fn sample(call: &CopyingCall, d_vocab: usize) -> Result<Vec<u32>> {
    check_tokens(&call.masked, d_vocab)?;
    let all: Vec<u32> = (0..d_vocab as u32).filter(|token| !call.masked.contains(token)).collect();
    let n = call.sample.unwrap_or(all.len()).min(all.len());
    if n == 0 {
        return Err(PrismError::argument("sample", "no token", "at least one that is not masked"));
    }
    let mut rng = ChaCha8Rng::seed_from_u64(u64::from(call.seed));
    let mut tokens: Vec<u32> = rand::seq::index::sample(&mut rng, all.len(), n).iter().map(|i| all[i]).collect();
    tokens.sort_unstable();
    Ok(tokens)
}

/// A circuit with the way to the table that its rows are matched with.
struct Between {
    /// [d_model, e]
    a: DMatrix<f64>,
    /// [e, d_model]; for OV through the final norm and times the logit scale
    b: DMatrix<f64>,
    table: Table,
}

impl Between {
    fn new(model: &Transformer, spec: &CircuitSpec) -> Result<Self> {
        let Factored { a, mut b } = spec.read(model)?.factored;
        let table = match spec.kind {
            CircuitKind::Qk(_) => Table::Embed,
            CircuitKind::Ov => {
                if spec.folding == Folding::Folded {
                    fold_after(&model.ln_final, &mut b)?;
                }
                b *= model.unembed.logit_scale;
                Table::Unembed
            }
        };
        Ok(Between { a, b, table })
    }
}

/// Hands the vocabulary to `each` block by block, on the threads of the pool it runs in; results in order.
fn over_vocabulary<T: Send>(
    model: &Transformer,
    job: &Job,
    each: impl Fn(Range<usize>) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let d_vocab = model.config.d_vocab;
    let n_blocks = d_vocab.div_ceil(BLOCK);
    let done = Mutex::new(0);
    let block = |i: usize| {
        job.cancel.check()?;
        let result = each(i * BLOCK..d_vocab.min((i + 1) * BLOCK))?;
        let mut done = done.lock().unwrap_or_else(|e| e.into_inner());
        *done += 1;
        (job.progress)(*done, n_blocks);
        Ok(result)
    };
    (0..n_blocks).into_par_iter().map(block).collect()
}

/// Bytes that rows or scores of `n` tokens take on `threads` threads.
pub fn vocabulary_bytes(model: &Transformer, n: usize, threads: usize) -> u64 {
    let config = &model.config;
    let block = BLOCK.min(config.d_vocab) * (3 * config.d_model + 2 * config.d_head + n.min(BLOCK));
    8 * (threads * block + n * (3 * config.d_model + 2 * config.d_head) + 4 * config.d_model * config.d_head) as u64
}

/// Bytes that the copying of `n` tokens takes on `threads` threads.
pub fn copying_bytes(model: &Transformer, n: usize, threads: usize) -> u64 {
    let config = &model.config;
    let blocks = config.d_vocab.div_ceil(BLOCK) * (config.d_head * config.d_head + n);
    vocabulary_bytes(model, n.min(BLOCK), threads) + 8 * (n * (config.d_head + 4) + blocks) as u64
}

fn table(model: &Transformer, table: Table, range: Range<usize>) -> Result<DMatrix<f64>> {
    let rows = |of: &Tensor| of.narrow(0, range.start, range.len());
    columns(model, table, &rows(weight(model, table))?)
}

fn table_of(model: &Transformer, table: Table, tokens: &[u32]) -> Result<DMatrix<f64>> {
    let weight = weight(model, table);
    columns(model, table, &weight.index_select(&Tensor::new(tokens, weight.device())?, 0)?)
}

fn weight(model: &Transformer, table: Table) -> &Tensor {
    match table {
        Table::Embed => &model.embed.tokens,
        Table::Unembed => &model.unembed.weight,
    }
}

/// Rows of a table as columns: [d_model, tokens].
fn columns(model: &Transformer, table: Table, rows: &Tensor) -> Result<DMatrix<f64>> {
    let rows = if table == Table::Embed { model.embed.scaled(rows.clone(), model.kernels)? } else { rows.clone() };
    let (tokens, d_model) = rows.dims2()?;
    let values: Vec<f32> = rows.to_dtype(DType::F32)?.contiguous()?.flatten_all()?.to_vec1()?;
    Ok(DMatrix::from_iterator(d_model, tokens, values.into_iter().map(f64::from))) // rows lie as columns do there
}

/// What the first block reads of these tokens, positions aside: [d_model, tokens].
fn embeddings(model: &Transformer, tokens: &[u32]) -> Result<DMatrix<f64>> {
    table_of(model, Table::Embed, tokens)
}

fn check_tokens<'a>(tokens: impl IntoIterator<Item = &'a u32>, d_vocab: usize) -> Result<()> {
    match tokens.into_iter().find(|id| **id as usize >= d_vocab) {
        Some(id) => Err(PrismError::TokenRange { id: u64::from(*id), d_vocab }),
        None => Ok(()),
    }
}
