//! Circuits from weights, as JavaScript asks for them and gets them.

use crate::errors::to_js;
use crate::inputs::one_of;
use crate::job::{Callback, CancelHandle, Control, promise};
use crate::model::NativeModel;
use crate::outputs::{NativeComponent, components};
use logit_prism_core::PrismError;
use logit_prism_core::attribution::Scored;
use logit_prism_core::circuit::{
    CircuitKind, CircuitSpec, Composed, Composition, CompositionCall, Copying, CopyingCall, Folding, Offsets,
    SingularVectors, TokenRow, row_major,
};
use logit_prism_core::session::Spectrum;
use napi::bindgen_prelude::*;
use napi_derive::napi;

/// A circuit of one head: `ov`, or `qk` with the first and the last offset and a prompt length.
#[napi(object)]
pub struct NativeCircuit {
    pub layer: u32,
    pub head: u32,
    #[napi(ts_type = "'ov' | 'qk'")]
    pub kind: String,
    pub fold_norms: bool,
    pub offsets: Option<Vec<u32>>,
    pub length: Option<u32>,
}

/// Norm, singular values and eigenvalues.
#[napi(object)]
pub struct NativeSpectrum {
    pub norm: f64,
    pub singular_values: Float64Array,
    /// real and imaginary part of each, one after the other
    pub eigenvalues: Float64Array,
}

/// Singular values [k] with their vectors, [k, dModel] each.
#[napi(object)]
pub struct NativeSingularVectors {
    pub values: Float64Array,
    pub left: Float32Array,
    pub right: Float32Array,
}

/// Rows of some tokens: [tokens, 2, k], largest first, then smallest first.
#[napi(object)]
pub struct NativeTokenRows {
    pub tokens: Uint32Array,
    pub values: Float32Array,
}

/// How far an OV circuit copies.
#[napi(object)]
pub struct NativeCopying {
    pub eigenvalue_share: f64,
    /// real and imaginary part of each, one after the other
    pub eigenvalues: Float64Array,
    pub top1: f64,
    pub mean_rank: f64,
    pub sampled: u32,
}

/// A call of `composition`.
#[napi(object)]
pub struct NativeCompositionCall {
    #[napi(ts_type = "'Q' | 'K' | 'V'")]
    pub kind: String,
    pub fold_norms: bool,
    pub baseline: u32,
    pub seed: u32,
}

/// Scores of all pairs of heads: [heads, heads], row the earlier one; NaN where it is not earlier.
#[napi(object)]
pub struct NativeComposition {
    pub heads: Vec<NativeComponent>,
    pub values: Float32Array,
    pub baseline_mean: f64,
    pub baseline_std: f64,
    pub notes: Vec<String>,
}

#[napi]
impl NativeModel {
    /// What must be known about a circuit; refuses those that there are not.
    #[napi]
    pub fn circuit_notes(&self, env: &Env, circuit: NativeCircuit) -> Result<Vec<String>> {
        let session = self.open(env)?;
        let notes = spec(circuit).and_then(|spec| session.circuit_notes(&spec));
        notes.map_err(|error| to_js(env, &error))
    }

    /// Norm, singular values and eigenvalues.
    #[napi(ts_return_type = "Promise<NativeSpectrum>")]
    pub fn circuit_spectrum<'env>(&self, env: &'env Env, circuit: NativeCircuit) -> Result<Object<'env>> {
        let (session, spec) = (self.open(env)?, spec(circuit));
        let engine = session.engine();
        promise(env, engine, move || session.circuit_spectrum(&spec?), spectrum as fn(Spectrum) -> NativeSpectrum)
    }

    /// The k largest singular values and their vectors.
    #[napi(ts_return_type = "Promise<NativeSingularVectors>")]
    pub fn circuit_vectors<'env>(&self, env: &'env Env, circuit: NativeCircuit, k: u32) -> Result<Object<'env>> {
        let (session, spec) = (self.open(env)?, spec(circuit));
        let engine = session.engine();
        let wrap: fn(_) -> NativeSingularVectors = vectors;
        promise(env, engine, move || session.circuit_vectors(&spec?, k as usize), wrap)
    }

    /// The whole matrix, [dModel, dModel].
    #[napi(ts_return_type = "Promise<Float32Array>")]
    pub fn circuit_matrix<'env>(&self, env: &'env Env, circuit: NativeCircuit) -> Result<Object<'env>> {
        let (session, spec) = (self.open(env)?, spec(circuit));
        let engine = session.engine();
        let work = move || Ok(row_major(&session.circuit_matrix(&spec?)?));
        promise(env, engine, work, Float32Array::new)
    }

    /// The rows of some tokens.
    #[napi(ts_return_type = "Promise<NativeTokenRows>")]
    #[allow(clippy::too_many_arguments)]
    pub fn circuit_rows<'env>(
        &self,
        env: &'env Env,
        circuit: NativeCircuit,
        tokens: Uint32Array,
        k: u32,
        masked: Uint32Array,
        cancel: &CancelHandle,
        #[napi(ts_arg_type = "((done: number, total: number) => void) | undefined")] progress: Option<Callback>,
    ) -> Result<Object<'env>> {
        let (session, spec, control) = (self.open(env)?, spec(circuit), Control::new(cancel, progress)?);
        let engine = session.engine();
        let (tokens, masked) = (tokens.to_vec(), masked.iter().copied().collect());
        let work = move || control.run(|job| session.circuit_rows(&spec?, &tokens, k as usize, &masked, job));
        promise(env, engine, work, rows as fn(Vec<TokenRow>) -> NativeTokenRows)
    }

    /// The entries between some tokens, [tokens, others].
    #[napi(ts_return_type = "Promise<Float32Array>")]
    pub fn circuit_scores<'env>(
        &self,
        env: &'env Env,
        circuit: NativeCircuit,
        tokens: Uint32Array,
        others: Uint32Array,
    ) -> Result<Object<'env>> {
        let (session, spec) = (self.open(env)?, spec(circuit));
        let engine = session.engine();
        let (tokens, others) = (tokens.to_vec(), others.to_vec());
        let work = move || Ok(row_major(&session.circuit_scores(&spec?, &tokens, &others)?));
        promise(env, engine, work, Float32Array::new)
    }

    /// How far an OV circuit copies; all tokens without `sample`.
    #[napi(ts_return_type = "Promise<NativeCopying>")]
    #[allow(clippy::too_many_arguments)]
    pub fn circuit_copying<'env>(
        &self,
        env: &'env Env,
        circuit: NativeCircuit,
        sample: Option<u32>,
        seed: u32,
        masked: Uint32Array,
        cancel: &CancelHandle,
        #[napi(ts_arg_type = "((done: number, total: number) => void) | undefined")] progress: Option<Callback>,
    ) -> Result<Object<'env>> {
        let (session, spec, control) = (self.open(env)?, spec(circuit), Control::new(cancel, progress)?);
        let engine = session.engine();
        let call = CopyingCall { sample: sample.map(|n| n as usize), seed, masked: masked.iter().copied().collect() };
        let work = move || control.run(|job| session.circuit_copying(&spec?, &call, job));
        promise(env, engine, work, copying as fn(Copying) -> NativeCopying)
    }

    /// Composition scores of all pairs of heads.
    #[napi(ts_return_type = "Promise<NativeComposition>")]
    pub fn composition<'env>(
        &self,
        env: &'env Env,
        call: NativeCompositionCall,
        cancel: &CancelHandle,
        #[napi(ts_arg_type = "((done: number, total: number) => void) | undefined")] progress: Option<Callback>,
    ) -> Result<Object<'env>> {
        let (session, call, control) = (self.open(env)?, composition_call(call), Control::new(cancel, progress)?);
        let engine = session.engine();
        let work = move || control.run(|job| session.composition(&call?, job));
        promise(env, engine, work, composition as fn(Composition) -> NativeComposition)
    }
}

fn spec(circuit: NativeCircuit) -> logit_prism_core::Result<CircuitSpec> {
    let range = match circuit.offsets.as_deref() {
        None => None,
        Some([first, last]) => Some(*first as usize..=*last as usize),
        Some(other) => return Err(PrismError::argument("offsets", other.len(), "two numbers: first and last")),
    };
    let offsets = Offsets { range, length: circuit.length.map(|n| n as usize) };
    let kinds = [("ov", CircuitKind::Ov), ("qk", CircuitKind::Qk(offsets))];
    Ok(CircuitSpec {
        layer: circuit.layer as usize,
        head: circuit.head as usize,
        kind: one_of("kind", &circuit.kind, &kinds)?,
        folding: folding(circuit.fold_norms),
    })
}

fn composition_call(call: NativeCompositionCall) -> logit_prism_core::Result<CompositionCall> {
    let kinds = [("Q", Composed::Q), ("K", Composed::K), ("V", Composed::V)];
    Ok(CompositionCall {
        kind: one_of("kind", &call.kind, &kinds)?,
        folding: folding(call.fold_norms),
        baseline: call.baseline as usize,
        seed: call.seed,
    })
}

fn folding(fold_norms: bool) -> Folding {
    if fold_norms { Folding::Folded } else { Folding::Raw }
}

fn spectrum(spectrum: Spectrum) -> NativeSpectrum {
    NativeSpectrum {
        norm: spectrum.norm,
        singular_values: spectrum.singular_values.into(),
        eigenvalues: spectrum.eigenvalues.iter().flat_map(|l| [l.re, l.im]).collect::<Vec<_>>().into(),
    }
}

fn vectors(vectors: SingularVectors) -> NativeSingularVectors {
    NativeSingularVectors {
        values: vectors.values.into(),
        left: row_major(&vectors.left).into(),
        right: row_major(&vectors.right).into(),
    }
}

fn rows(rows: Vec<TokenRow>) -> NativeTokenRows {
    let all: Vec<&Scored> = rows.iter().flat_map(|row| row.top.iter().chain(&row.bottom)).collect();
    NativeTokenRows {
        tokens: all.iter().map(|s| s.token).collect::<Vec<_>>().into(),
        values: all.iter().map(|s| s.value).collect::<Vec<_>>().into(),
    }
}

fn copying(copying: Copying) -> NativeCopying {
    NativeCopying {
        eigenvalue_share: copying.eigenvalue_share,
        eigenvalues: copying.eigenvalues.iter().flat_map(|l| [l.re, l.im]).collect::<Vec<_>>().into(),
        top1: copying.top1,
        mean_rank: copying.mean_rank,
        sampled: copying.sampled as u32,
    }
}

fn composition(composition: Composition) -> NativeComposition {
    NativeComposition {
        heads: components(composition.heads),
        values: composition.values.into(),
        baseline_mean: composition.baseline.mean,
        baseline_std: composition.baseline.std,
        notes: composition.notes,
    }
}
