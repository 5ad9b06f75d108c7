//! Circuits of a loaded model: each call reads as memory, then one call of the room that computes, on the pool.

use super::Session;
use crate::circuit::{self, Circuit, CircuitSpec, Composition, CompositionCall, Copying, CopyingCall, SingularVectors};
use crate::circuit::{TokenRow, composition_bytes, copying_bytes, vocabulary_bytes};
use crate::error::{PrismError, Result};
use crate::memory;
use crate::run::Job;
use nalgebra::{Complex, DMatrix};
use std::collections::BTreeSet;

/// The numbers of a circuit that no token is needed for.
#[derive(Debug, Clone)]
pub struct Spectrum {
    /// `‖M‖_F`
    pub norm: f64,
    /// Largest first.
    pub singular_values: Vec<f64>,
    /// Largest magnitude first; as many as singular values.
    pub eigenvalues: Vec<Complex<f64>>,
}

impl Session {
    /// What must be known about a circuit, in words. Computes nothing and waits for nothing.
    ///
    /// # Errors
    /// Those of [`CircuitSpec::check`].
    pub fn circuit_notes(&self, spec: &CircuitSpec) -> Result<Vec<String>> {
        spec.check(&self.transformer)
    }

    /// Norm, singular values and eigenvalues.
    ///
    /// # Errors
    /// Those of [`CircuitSpec::check`]; `NOT_FINITE`, `MEMORY`, `POISONED`.
    pub fn circuit_spectrum(&self, spec: &CircuitSpec) -> Result<Spectrum> {
        self.with_circuit(spec, 0, |Circuit { factored, .. }| {
            Ok(Spectrum {
                norm: factored.norm(),
                singular_values: factored.singular_values()?,
                eigenvalues: factored.eigenvalues()?,
            })
        })
    }

    /// The k largest singular values with their vectors.
    ///
    /// # Errors
    /// Those of [`Session::circuit_spectrum`]; `INVALID_ARGUMENT` for more than there are.
    pub fn circuit_vectors(&self, spec: &CircuitSpec, k: usize) -> Result<SingularVectors> {
        self.with_circuit(spec, 0, |Circuit { factored, .. }| {
            if !(1..=factored.rank()).contains(&k) {
                let expected = format!("a whole number from 1 to {}, the circuit's rank at most", factored.rank());
                return Err(PrismError::argument("k", k, expected));
            }
            factored.singular_vectors(k)
        })
    }

    /// The circuit itself, [d_model, d_model].
    ///
    /// # Errors
    /// Those of [`Session::circuit_spectrum`].
    pub fn circuit_matrix(&self, spec: &CircuitSpec) -> Result<DMatrix<f64>> {
        let d_model = self.transformer.config.d_model as u64;
        self.with_circuit(spec, 12 * d_model * d_model, |Circuit { factored, .. }| Ok(factored.product()))
    }

    /// See [`circuit::rows`].
    ///
    /// # Errors
    /// Those of [`circuit::rows`]; `MEMORY`, `POISONED`.
    pub fn circuit_rows(
        &self,
        spec: &CircuitSpec,
        tokens: &[u32],
        k: usize,
        masked: &BTreeSet<u32>,
        job: &Job,
    ) -> Result<Vec<TokenRow>> {
        self.over_vocabulary(self.row_bytes(tokens.len()), |model| circuit::rows(model, spec, tokens, k, masked, job))
    }

    /// See [`circuit::scores`].
    ///
    /// # Errors
    /// Those of [`circuit::scores`]; `MEMORY`, `POISONED`.
    pub fn circuit_scores(&self, spec: &CircuitSpec, tokens: &[u32], others: &[u32]) -> Result<DMatrix<f64>> {
        self.over_vocabulary(self.row_bytes(tokens.len() + others.len()), |model| {
            circuit::scores(model, spec, tokens, others)
        })
    }

    /// See [`circuit::copying`].
    ///
    /// # Errors
    /// Those of [`circuit::copying`]; `MEMORY`, `POISONED`.
    pub fn circuit_copying(&self, spec: &CircuitSpec, call: &CopyingCall, job: &Job) -> Result<Copying> {
        let n = call.sample.unwrap_or(usize::MAX).min(self.transformer.config.d_vocab);
        let needed = copying_bytes(&self.transformer, n, self.pool.current_num_threads());
        self.over_vocabulary(needed, |model| circuit::copying(model, spec, call, job))
    }

    /// See [`circuit::compose`].
    ///
    /// # Errors
    /// Those of [`circuit::compose`]; `MEMORY`, `POISONED`.
    pub fn composition(&self, call: &CompositionCall, job: &Job) -> Result<Composition> {
        self.guarded(|| {
            let needed = composition_bytes(&self.transformer.config, self.pool.current_num_threads());
            memory::check("the composition scores", needed, self.limit())?;
            self.pool.install(|| circuit::compose(&self.transformer, call, job))
        })
    }

    fn with_circuit<T: Send>(
        &self,
        spec: &CircuitSpec,
        besides: u64,
        f: impl FnOnce(Circuit) -> Result<T> + Send,
    ) -> Result<T> {
        self.guarded(|| {
            let config = &self.transformer.config;
            let factors = (config.d_model * config.d_head + config.d_head * config.d_head) as u64;
            memory::check("the circuit", 8 * 12 * factors + besides, self.limit())?;
            self.pool.install(|| f(spec.read(&self.transformer)?))
        })
    }

    fn row_bytes(&self, n: usize) -> u64 {
        vocabulary_bytes(&self.transformer, n, self.pool.current_num_threads())
    }

    fn over_vocabulary<T: Send>(
        &self,
        needed: u64,
        f: impl FnOnce(&crate::model::Transformer) -> Result<T> + Send,
    ) -> Result<T> {
        self.guarded(|| {
            memory::check("the circuit between tokens", needed, self.limit())?;
            self.pool.install(|| f(&self.transformer))
        })
    }
}
