//! The calls that read the residual stream in other ways than by component and target.

use crate::inputs::{self, NativeLensCall, NativeProbeCall, NativeSourcesCall, NativeTopTokensCall};
use crate::job::{Callback, CancelHandle, Control, promise};
use crate::model::NativeModel;
use crate::outputs::{self, NativeLens, NativeProbe, NativeSources, NativeTopTokens};
use napi::bindgen_prelude::*;
use napi_derive::napi;

#[napi]
impl NativeModel {
    /// Attributes, and splits heads by source position.
    #[napi(ts_return_type = "Promise<NativeSources>")]
    pub fn sources<'env>(
        &self,
        env: &'env Env,
        call: NativeSourcesCall,
        cancel: &CancelHandle,
        #[napi(ts_arg_type = "((done: number, total: number) => void) | undefined")] progress: Option<Callback>,
    ) -> Result<Object<'env>> {
        let session = self.open(env)?;
        let engine = session.engine();
        let (call, control) = (inputs::sources_call(call), Control::new(cancel, progress)?);
        let work = move || {
            let (ids, result) = control.run(|job| session.sources(&call?, job))?;
            Ok((ids, result, session.transformer.unembed.cap.is_some()))
        };
        let wrap: fn(_) -> NativeSources = outputs::sources;
        promise(env, engine, work, wrap)
    }

    /// The logit lens.
    #[napi(ts_return_type = "Promise<NativeLens>")]
    pub fn lens<'env>(
        &self,
        env: &'env Env,
        call: NativeLensCall,
        cancel: &CancelHandle,
        #[napi(ts_arg_type = "((done: number, total: number) => void) | undefined")] progress: Option<Callback>,
    ) -> Result<Object<'env>> {
        let session = self.open(env)?;
        let engine = session.engine();
        let (call, control) = (inputs::lens_call(call), Control::new(cancel, progress)?);
        let work = move || {
            let (ids, result) = control.run(|job| session.lens(&call?, job))?;
            Ok((ids, result, outputs::state_names(&session.transformer.config)))
        };
        let wrap: fn(_) -> NativeLens = outputs::lens;
        promise(env, engine, work, wrap)
    }

    /// The tokens that components raise and lower most.
    #[napi(ts_return_type = "Promise<NativeTopTokens>")]
    pub fn top_tokens<'env>(
        &self,
        env: &'env Env,
        call: NativeTopTokensCall,
        cancel: &CancelHandle,
        #[napi(ts_arg_type = "((done: number, total: number) => void) | undefined")] progress: Option<Callback>,
    ) -> Result<Object<'env>> {
        let session = self.open(env)?;
        let engine = session.engine();
        let (call, control) = (inputs::top_tokens_call(call), Control::new(cancel, progress)?);
        let wrap: fn(_) -> NativeTopTokens = outputs::top_tokens;
        promise(env, engine, move || control.run(|job| session.top_tokens(&call?, job)), wrap)
    }

    /// Many directions at a point of the residual stream.
    #[napi(ts_return_type = "Promise<NativeProbe>")]
    pub fn probe<'env>(
        &self,
        env: &'env Env,
        call: NativeProbeCall,
        cancel: &CancelHandle,
        #[napi(ts_arg_type = "((done: number, total: number) => void) | undefined")] progress: Option<Callback>,
    ) -> Result<Object<'env>> {
        let session = self.open(env)?;
        let engine = session.engine();
        let (call, control) = (inputs::probe_call(call), Control::new(cancel, progress)?);
        let wrap: fn(_) -> NativeProbe = outputs::probe;
        promise(env, engine, move || control.run(|job| session.probe(&call?, job)), wrap)
    }
}
