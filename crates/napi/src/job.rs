//! Promises that the engine thread settles, the flag that stops their work, and progress on the way.

use crate::errors::to_js;
use logit_prism_core::PrismError;
use logit_prism_core::cancel::Cancel;
use logit_prism_core::engine::Engine;
use logit_prism_core::fence::fenced;
use logit_prism_core::run::Job;
use napi::bindgen_prelude::*;
use napi::threadsafe_function::{ThreadsafeFunction, ThreadsafeFunctionCallMode};
use napi_derive::napi;

/// Stops the call that it is given to. Its owner calls `finish` when the call has settled: until then it must be
/// reachable, for a handle that is collected (or torn down with its environment) stops its call.
#[napi]
#[derive(Default)]
pub struct CancelHandle {
    flag: Cancel,
}

#[napi]
impl CancelHandle {
    /// A flag that is not set.
    #[napi(constructor)]
    pub fn new() -> Self {
        CancelHandle::default()
    }

    /// Stops the call at its next layer.
    #[napi]
    pub fn cancel(&self) {
        self.flag.cancel();
    }

    /// Says that the call has settled.
    #[napi]
    pub fn finish(&self) {}
}

impl Drop for CancelHandle {
    fn drop(&mut self) {
        self.flag.cancel();
    }
}

/// A callback that takes (done, total).
pub type Callback<'a> = Function<'a, FnArgs<(u32, u32)>, ()>;

// weak, so that it holds no process alive; 16 reports may wait, the next are dropped
type Reports = ThreadsafeFunction<FnArgs<(u32, u32)>, (), FnArgs<(u32, u32)>, Status, false, true, 16>;

/// What a call of JavaScript gives a job besides its arguments.
pub struct Control {
    cancel: Cancel,
    reports: Option<Reports>,
}

impl Control {
    /// From the handle and the callback of a call.
    pub fn new(handle: &CancelHandle, callback: Option<Callback>) -> Result<Self> {
        let weak = |f: Callback| {
            f.build_threadsafe_function().callee_handled::<false>().weak::<true>().max_queue_size::<16>().build()
        };
        Ok(Control { cancel: handle.flag.clone(), reports: callback.map(weak).transpose()? })
    }

    /// Runs `f` with what the core wants of it.
    pub fn run<T>(&self, f: impl FnOnce(&Job) -> T) -> T {
        let progress = |done: usize, total: usize| {
            if let Some(reports) = &self.reports {
                reports.call((done as u32, total as u32).into(), ThreadsafeFunctionCallMode::NonBlocking);
            }
        };
        f(&Job { cancel: &self.cancel, progress: &progress })
    }
}

type Settle<R> = Box<dyn FnOnce(Env) -> Result<R> + Send>;

/// A promise of what `work` returns on a device's engine thread, turned into a JavaScript value by `wrap` on the JavaScript
/// thread. It settles exactly once, whatever happens.
pub fn promise<'env, T: Send + 'static, R: ToNapiValue + 'static>(
    env: &'env Env,
    engine: &'static Engine,
    work: impl FnOnce() -> logit_prism_core::Result<T> + Send + 'static,
    wrap: impl FnOnce(T) -> R + Send + 'static,
) -> Result<Object<'env>> {
    let (deferred, promise) = env.create_deferred::<R, Settle<R>>()?;
    engine.submit(move || {
        let outcome = fenced(work);
        let outcome = outcome.unwrap_or_else(|problem| Err(PrismError::Internal { place: "a job".into(), problem }));
        deferred.resolve(Box::new(move |env| outcome.map(wrap).map_err(|error| to_js(&env, &error))));
    });
    Ok(promise)
}
