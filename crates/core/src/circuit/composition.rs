//! Composition scores (Elhage et al. 2021, "Two-layer attention-only transformers"): how much of what an earlier head can
//! write lies where a later head reads. With rows as vectors:
//!
//! ```text
//! Q   ‖OV₁ QK₂‖ / (‖OV₁‖ ‖QK₂‖)      K   ‖OV₁ QK₂ᵀ‖ / (‖OV₁‖ ‖QK₂‖)      V   ‖OV₁ OV₂‖ / (‖OV₁‖ ‖OV₂‖)
//! ```
//!
//! With `A B` for either matrix, `R_aᵀ R_a = A₁ᵀ A₁` and `R_bᵀ R_b = B₂ B₂ᵀ`, a numerator is `‖(R_a B₁)(A₂ R_bᵀ)‖`: the
//! heads of a layer are stacked, so that a pair of layers is one product of [H e, d_model] and [d_model, H e].

use super::factored::{Factored, row_major};
use super::spec::{CircuitKind, CircuitSpec, Offsets, not_clipped, without_qk_norm};
use super::weights::Folding;
use crate::attribution::{Component, Kind, Unit};
use crate::config::{ModelConfig, Positions};
use crate::error::{PrismError, Result};
use crate::model::Transformer;
use crate::ops;
use crate::run::Job;
use candle_core::{Device, Tensor};
use nalgebra::DMatrix;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use rayon::prelude::*;

/// What of the later head the earlier one may feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Composed {
    /// Its queries.
    Q,
    /// Its keys.
    K,
    /// Its values.
    V,
}

/// What is asked.
#[derive(Debug, Clone)]
pub struct CompositionCall {
    /// Queries, keys or values.
    pub kind: Composed,
    /// Whether norms are folded in.
    pub folding: Folding,
    /// Pairs of random heads behind the baseline.
    pub baseline: usize,
    /// Their seed.
    pub seed: u32,
}

/// The scores of pairs of random heads: factors of the model's shapes with independent normal numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Baseline {
    /// Their mean.
    pub mean: f64,
    /// Their standard deviation (n − 1).
    pub std: f64,
    /// How many pairs.
    pub samples: usize,
}

/// Scores of all pairs of heads.
#[derive(Debug, Clone)]
pub struct Composition {
    /// The heads in order, layer by layer: what rows and columns are.
    pub heads: Vec<Component>,
    /// [heads, heads], row-major: row the earlier head, which writes, column the later one, which reads; 0 to 1. NaN where
    /// the row's layer is not before the column's; 0 where either circuit is 0.
    pub values: Vec<f32>,
    /// What unrelated heads would have.
    pub baseline: Baseline,
    /// What was folded in, and what else holds for the numbers.
    pub notes: Vec<String>,
}

/// Scores every pair of an earlier and a later head.
///
/// # Errors
/// `CONFIG_UNSUPPORTED` for models that clip values, and for `Q` and `K` where queries and keys have norms;
/// `INVALID_ARGUMENT` for a baseline of fewer than 2 pairs, `ABORTED` between two pairs of layers, `NOT_FINITE`.
pub fn compose(model: &Transformer, call: &CompositionCall, job: &Job) -> Result<Composition> {
    let config = &model.config;
    let notes = notes(config, call)?;
    if !(2..=100_000).contains(&call.baseline) {
        return Err(PrismError::argument("baseline", call.baseline, "a whole number from 2 to 100000"));
    }
    let baseline = baseline(config, call, job)?;
    let (n_layers, n) = (config.n_layers, config.n_layers * config.n_heads);
    let writes =
        (0..n_layers).map(|l| stacked(model, l, &|spec| written(&spec.read(model)?.factored), call, Composed::V));
    let writes = writes.collect::<Result<Vec<_>>>()?;
    let reads = (0..n_layers).map(|l| stacked(model, l, &|spec| read_by(model, spec, call.kind), call, call.kind));
    let reads = reads.collect::<Result<Vec<_>>>()?;

    let mut values = vec![f32::NAN; n * n];
    let (mut done, pairs) = (0, n_layers * (n_layers - 1) / 2);
    for (early, writes) in writes.iter().enumerate() {
        for (late, reads) in reads.iter().enumerate().skip(early + 1) {
            job.cancel.check()?;
            let products: Vec<Vec<f32>> = ops::matmul(writes, &reads.t()?)?.to_vec2()?;
            for (i, row) in norms(&products, config.n_heads).into_iter().enumerate() {
                let from = (early * config.n_heads + i) * n + late * config.n_heads;
                values[from..from + config.n_heads].copy_from_slice(&row);
            }
            done += 1;
            (job.progress)(done, pairs);
        }
    }
    let heads = Component::all(Unit::Head, config).into_iter().filter(|c| c.kind == Kind::Head).collect();
    Ok(Composition { heads, values, baseline, notes })
}

/// Bytes that the scores of all pairs take.
pub fn composition_bytes(config: &ModelConfig, threads: usize) -> u64 {
    let (d, e) = (config.d_model, config.d_head);
    let width = config.n_heads * e;
    let stacks = 4 * (2 * config.n_layers + 1) * width * d;
    let n = config.n_layers * config.n_heads;
    (stacks + 8 * width * width + 4 * n * n + 8 * threads * (8 * d * e + 8 * e * e)) as u64
}

/// The heads of a layer below one another, each of norm 1: [H e, d_model], in f32.
fn stacked(
    model: &Transformer,
    layer: usize,
    of: &(dyn Fn(&CircuitSpec) -> Result<DMatrix<f64>> + Sync),
    call: &CompositionCall,
    side: Composed,
) -> Result<Tensor> {
    let kind = || if side == Composed::V { CircuitKind::Ov } else { CircuitKind::Qk(Offsets::default()) };
    let head = |head| {
        let matrix = of(&CircuitSpec { layer, head, kind: kind(), folding: call.folding })?;
        let norm = matrix.norm();
        let scale = if norm == 0.0 { 0.0 } else { 1.0 / norm };
        Ok(row_major(&(matrix * scale)))
    };
    let heads = (0..model.config.n_heads).into_par_iter().map(head).collect::<Result<Vec<_>>>()?;
    let rows = heads.iter().map(Vec::len).sum::<usize>() / model.config.d_model;
    Ok(Tensor::from_vec(heads.concat(), (rows, model.config.d_model), &Device::Cpu)?)
}

/// `R_a B` [e, d_model]: as long in every direction as what the circuit writes.
fn written(circuit: &Factored) -> Result<DMatrix<f64>> {
    Ok(root(&circuit.a) * &circuit.b)
}

/// `(A R_bᵀ)ᵀ` [e, d_model] of the later head's matrix, of the side that is fed.
fn read_by(model: &Transformer, spec: &CircuitSpec, kind: Composed) -> Result<DMatrix<f64>> {
    let Factored { a, b } = spec.read(model)?.factored;
    let (a, b) = if kind == Composed::K { (b.transpose(), a.transpose()) } else { (a, b) };
    Ok(root(&b.transpose()) * a.transpose())
}

/// An R [e, e] with `Rᵀ R = Aᵀ A`, from the eigenvectors of the right side, which may be singular.
fn root(a: &DMatrix<f64>) -> DMatrix<f64> {
    let eigen = (a.transpose() * a).symmetric_eigen();
    let mut root = eigen.eigenvectors.transpose();
    for (mut row, value) in root.row_iter_mut().zip(eigen.eigenvalues.iter()) {
        row *= value.max(0.0).sqrt();
    }
    root
}

/// The Frobenius norms of the blocks of [H e, H e]: [H][H]. Squares are summed in f64.
fn norms(products: &[Vec<f32>], n_heads: usize) -> Vec<Vec<f32>> {
    let e = products.len() / n_heads;
    let square = |row: &[f32]| row.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>();
    let block = |rows: &[Vec<f32>], j: usize| rows.iter().map(|row| square(&row[j * e..(j + 1) * e])).sum::<f64>();
    products.chunks_exact(e).map(|rows| (0..n_heads).map(|j| block(rows, j).sqrt() as f32).collect()).collect()
}

/// Scores of random heads of the model's shapes.
fn baseline(config: &ModelConfig, call: &CompositionCall, job: &Job) -> Result<Baseline> {
    let score = |i: usize| {
        job.cancel.check()?;
        let mut rng = ChaCha8Rng::seed_from_u64(u64::from(call.seed));
        rng.set_stream(i as u64); // one for each pair: the threads do not matter
        let mut head = || {
            let mut normal = |rows, columns| DMatrix::from_fn(rows, columns, |_, _| StandardNormal.sample(&mut rng));
            Factored { a: normal(config.d_model, config.d_head), b: normal(config.d_head, config.d_model) }
        };
        let (early, late) = (head(), head());
        let (written, read) = (written(&early)?, root(&late.b.transpose()) * late.a.transpose());
        Ok((&written * read.transpose()).norm() / (written.norm() * read.norm()))
    };
    let scores: Vec<f64> = (0..call.baseline).into_par_iter().map(score).collect::<Result<_>>()?;
    let n = scores.len() as f64;
    let mean = scores.iter().sum::<f64>() / n;
    let variance = scores.iter().map(|score| (score - mean).powi(2)).sum::<f64>() / (n - 1.0);
    Ok(Baseline { mean, std: variance.sqrt(), samples: scores.len() })
}

fn notes(config: &ModelConfig, call: &CompositionCall) -> Result<Vec<String>> {
    not_clipped(config)?;
    let mut notes = Vec::new();
    notes.push(match call.folding {
        Folding::Folded => {
            "γ and centring of the norms around attention are folded in; their scales cancel in a score".into()
        }
        Folding::Raw => "norms are left out: neither γ nor centring is in the matrices".to_string(),
    });
    if call.kind != Composed::V {
        without_qk_norm(config)?;
        if let Positions::Rotary { .. } = config.positions {
            notes.push("rotary positions: QK at offset 0; at other offsets scores differ".into());
        }
    }
    if config.n_heads != config.n_key_value_heads {
        let group = config.n_heads / config.n_key_value_heads;
        notes.push(format!("{group} query heads share one W_K and W_V: heads of a group are not independent"));
    }
    notes.push(
        "the baseline is of independent normal factors; trained weights of unrelated heads may lie above it".into(),
    );
    Ok(notes)
}
