//! A run and what it kept, as JavaScript holds it.

use crate::errors::to_js;
use crate::inputs::{self, NativeAttributing, NativeRunCall};
use crate::interventions::{NativeInterventions, interventions};
use crate::job::{Callback, CancelHandle, Control, promise};
use crate::model::NativeModel;
use crate::outputs::{self, NativeAttribution, NativeStack, NativeTensor};
use logit_prism_core::PrismError;
use logit_prism_core::cache::Cache;
use logit_prism_core::hook::HookPoint;
use logit_prism_core::intervene::Record;
use logit_prism_core::session::Session;
use napi::bindgen_prelude::*;
use napi_derive::napi;
use std::sync::{Arc, Mutex, Weak};

/// What a run kept; empty once it is closed. It does not keep its model alive.
#[napi]
pub struct NativeRun {
    session: Weak<Session>,
    cache: Mutex<Option<Arc<Cache>>>,
}

impl NativeRun {
    fn new(session: &Arc<Session>, cache: Cache) -> Self {
        NativeRun { session: Arc::downgrade(session), cache: Mutex::new(Some(Arc::new(cache))) }
    }
}

#[napi]
impl NativeModel {
    /// Runs prompts with what is changed in them, and keeps hook points and logits. `runs` are those that `changes` counts.
    #[napi(ts_return_type = "Promise<NativeRun>")]
    pub fn run<'env>(
        &self,
        env: &'env Env,
        call: NativeRunCall,
        changes: NativeInterventions,
        #[napi(ts_arg_type = "NativeRun[]")] runs: Vec<ClassInstance<NativeRun>>,
        cancel: &CancelHandle,
        #[napi(ts_arg_type = "((done: number, total: number) => void) | undefined")] progress: Option<Callback>,
    ) -> Result<Object<'env>> {
        let session = self.open(env)?;
        let engine = session.engine();
        let runs = runs.iter().map(|run| run.open(env)).collect::<Result<Vec<_>>>()?;
        let (call, changes) = (inputs::run_call(call), interventions(changes, runs));
        let control = Control::new(cancel, progress)?;
        let work = move || {
            let (call, changes) = (call?, changes?);
            let cache = control.run(|job| session.run_with(&call, &changes, job))?;
            Ok(NativeRun::new(&session, cache))
        };
        promise(env, engine, work, |run| run)
    }

    /// Reads a run that was saved for this model.
    #[napi(ts_return_type = "Promise<NativeRun>")]
    pub fn load_run<'env>(&self, env: &'env Env, path: String) -> Result<Object<'env>> {
        let session = self.open(env)?;
        let engine = session.engine();
        let work = move || Ok(NativeRun::new(&session, session.load_run(path.as_ref())?));
        promise(env, engine, work, |run| run)
    }
}

#[napi]
impl NativeRun {
    /// The hook points that were kept, in the order of the forward pass.
    #[napi]
    pub fn names(&self, env: &Env) -> Result<Vec<String>> {
        Ok(self.open(env)?.points.iter().map(HookPoint::to_string).collect())
    }

    /// Which logits were kept: last, all or none.
    #[napi]
    pub fn logits_kept(&self, env: &Env) -> Result<&'static str> {
        Ok(self.open(env)?.logits.name())
    }

    /// What was changed, as JSON: `[{ prompt?, at, head?, neuron?, position, set }]`.
    #[napi]
    pub fn interventions(&self, env: &Env) -> Result<String> {
        Ok(Record::to_json(&self.open(env)?.interventions))
    }

    /// The ids of every prompt.
    #[napi]
    pub fn ids(&self, env: &Env) -> Result<Vec<Uint32Array>> {
        Ok(self.open(env)?.prompts.iter().map(|p| p.ids.clone().into()).collect())
    }

    /// The kept positions of every prompt.
    #[napi]
    pub fn positions(&self, env: &Env) -> Result<Vec<Uint32Array>> {
        let positions = |positions: &[usize]| positions.iter().map(|p| *p as u32).collect::<Vec<_>>().into();
        Ok(self.open(env)?.prompts.iter().map(|p| positions(&p.positions)).collect())
    }

    /// A copy of one point of one prompt.
    #[napi]
    pub fn tensor(&self, env: &Env, name: String, prompt: u32) -> Result<NativeTensor> {
        let (session, cache) = self.both(env)?;
        let read = || {
            let point = HookPoint::parse(&name, &session.transformer.config)?;
            Ok(NativeTensor::new(point, cache.values(point, prompt as usize)?))
        };
        read().map_err(|error| to_js(env, &error))
    }

    /// A copy of the logits of one prompt.
    #[napi]
    pub fn logits(&self, env: &Env, prompt: u32) -> Result<NativeTensor> {
        let logits = self.open(env)?.logits(prompt as usize).map_err(|error| to_js(env, &error))?;
        Ok(NativeTensor::logits(logits))
    }

    /// Attributes from what was kept.
    #[napi(ts_return_type = "Promise<NativeAttribution>")]
    pub fn attribute<'env>(
        &self,
        env: &'env Env,
        call: NativeAttributing,
        cancel: &CancelHandle,
    ) -> Result<Object<'env>> {
        let (session, cache) = self.both(env)?;
        let engine = session.engine();
        let (call, control) = (inputs::attributing(call), Control::new(cancel, None)?);
        let work = move || {
            let (targets, options) = call?;
            let result = control.run(|job| session.attribute_run(&cache, &targets, &options, job))?;
            let ids = cache.prompts.iter().map(|p| p.ids.clone()).collect();
            Ok((ids, result, session.transformer.unembed.cap.is_some()))
        };
        let wrap: fn(_) -> NativeAttribution = outputs::attribution;
        promise(env, engine, work, wrap)
    }

    /// The vectors that components wrote.
    #[napi(ts_return_type = "Promise<NativeStack>")]
    pub fn decompose<'env>(
        &self,
        env: &'env Env,
        #[napi(ts_arg_type = "'layer' | 'head' | 'neuron'")] unit: String,
        cancel: &CancelHandle,
    ) -> Result<Object<'env>> {
        let (session, cache) = self.both(env)?;
        let engine = session.engine();
        let (unit, control) = (inputs::unit(&unit), Control::new(cancel, None)?);
        let work = move || control.run(|job| session.decompose_run(&cache, unit?, job));
        let wrap: fn(_) -> NativeStack = outputs::stack;
        promise(env, engine, work, wrap)
    }

    /// Writes the run to a file.
    #[napi(ts_return_type = "Promise<void>")]
    pub fn save<'env>(&self, env: &'env Env, path: String) -> Result<Object<'env>> {
        let (session, cache) = self.both(env)?;
        let engine = session.engine();
        promise(env, engine, move || session.save_run(&cache, path.as_ref()), |()| ())
    }

    /// Frees what was kept.
    #[napi]
    pub fn close(&self) {
        self.cache.lock().unwrap_or_else(|e| e.into_inner()).take();
    }

    fn open(&self, env: &Env) -> Result<Arc<Cache>> {
        let cache = self.cache.lock().unwrap_or_else(|e| e.into_inner()).clone();
        cache.ok_or_else(|| to_js(env, &PrismError::Closed { what: "run" }))
    }

    fn both(&self, env: &Env) -> Result<(Arc<Session>, Arc<Cache>)> {
        let session = self.session.upgrade().ok_or_else(|| to_js(env, &PrismError::Closed { what: "model" }))?;
        Ok((session, self.open(env)?))
    }
}
