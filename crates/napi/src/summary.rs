//! Rows reduced as they come, as JavaScript holds them.

use crate::errors::to_js;
use crate::job::promise;
use logit_prism_core::PrismError;
use logit_prism_core::attribution::summary::{ColumnSummary, Summary};
use logit_prism_core::engine::Engine;
use napi::bindgen_prelude::*;
use napi_derive::napi;
use std::sync::{Arc, Mutex, MutexGuard};

/// Running sums of the columns of attributions.
#[napi]
pub struct NativeSummary {
    summary: Arc<Mutex<Summary>>,
}

/// Every column of a summary, one list per figure.
#[napi(object)]
pub struct NativeColumns {
    pub mean: Float64Array,
    pub std: Float64Array,
    pub low: Float64Array,
    pub high: Float64Array,
    pub same_sign: Float64Array,
    pub stability: Float64Array,
}

#[napi]
impl NativeSummary {
    /// An empty summary of `columns` columns.
    #[napi(constructor)]
    pub fn new(env: &Env, columns: u32, seed: u32, resamples: u32) -> Result<Self> {
        let summary = Summary::new(columns as usize, seed, resamples as usize).map_err(|error| to_js(env, &error))?;
        Ok(NativeSummary { summary: Arc::new(Mutex::new(summary)) })
    }

    /// Adds rows [rows, columns] and the prompt of each.
    #[napi(ts_return_type = "Promise<void>")]
    pub fn add<'env>(&self, env: &'env Env, values: Float32Array, prompts: Uint32Array) -> Result<Object<'env>> {
        let (values, prompts, summary) = (values.to_vec(), prompts.to_vec(), self.summary.clone());
        promise(env, Engine::cpu(), move || locked(&summary).add(&values, &prompts), |()| ())
    }

    /// The same at once.
    #[napi]
    pub fn add_now(&self, env: &Env, values: Float32Array, prompts: Uint32Array) -> Result<()> {
        locked(&self.summary).add(&values, &prompts).map_err(|error| to_js(env, &error))
    }

    /// Rows and prompts so far.
    #[napi]
    pub fn seen(&self) -> Vec<f64> {
        let (rows, prompts) = locked(&self.summary).seen();
        vec![rows as f64, prompts as f64]
    }

    /// Every column; `k` is for the stability.
    #[napi(ts_return_type = "Promise<NativeColumns>")]
    pub fn finish<'env>(&self, env: &'env Env, k: u32) -> Result<Object<'env>> {
        let summary = self.summary.clone();
        let wrap: fn(_) -> NativeColumns = columns;
        promise(env, Engine::cpu(), move || Ok::<_, PrismError>(locked(&summary).finish(k as usize)), wrap)
    }

    /// The same at once.
    #[napi]
    pub fn finish_now(&self, k: u32) -> NativeColumns {
        columns(locked(&self.summary).finish(k as usize))
    }
}

fn locked(summary: &Mutex<Summary>) -> MutexGuard<'_, Summary> {
    summary.lock().unwrap_or_else(|e| e.into_inner())
}

fn columns(columns: Vec<ColumnSummary>) -> NativeColumns {
    let list = |of: fn(&ColumnSummary) -> f64| columns.iter().map(of).collect::<Vec<_>>().into();
    NativeColumns {
        mean: list(|c| c.mean),
        std: list(|c| c.std),
        low: list(|c| c.interval[0]),
        high: list(|c| c.interval[1]),
        same_sign: list(|c| c.same_sign),
        stability: list(|c| c.stability),
    }
}
