//! A loaded model, as JavaScript holds it.

use crate::errors::to_js;
use crate::inputs::{NativeCall, NativeLoadOptions};
use crate::job::{Callback, CancelHandle, Control, promise};
use crate::outputs::{NativeAttribution, NativeComponent};
use crate::{inputs, outputs};
use logit_prism_core::PrismError;
use logit_prism_core::attribution::Component;
use logit_prism_core::checkpoint::locate;
use logit_prism_core::config::ModelConfig;
use logit_prism_core::device;
use logit_prism_core::engine::Engine;
use logit_prism_core::hook::HookPoint;
use logit_prism_core::session::Session;
use logit_prism_core::tokenizer::Tokenizer;
use napi::bindgen_prelude::*;
use napi_derive::napi;
use std::sync::{Arc, Mutex};

/// A loaded model; empty once it is closed.
#[napi]
pub struct NativeModel {
    session: Mutex<Option<Arc<Session>>>,
}

/// Loads a checkpoint from a directory, or from the local Hugging Face cache by its repository id.
#[napi(ts_return_type = "Promise<NativeModel>")]
pub fn load_model<'env>(
    env: &'env Env,
    path: String,
    options: NativeLoadOptions,
    cancel: &CancelHandle,
    #[napi(ts_arg_type = "((done: number, total: number) => void) | undefined")] progress: Option<Callback>,
) -> Result<Object<'env>> {
    let options = inputs::load_options(options).map_err(|error| to_js(env, &error))?;
    let (engine, control) = (Engine::of(options.device), Control::new(cancel, progress)?);
    let work = move || control.run(|job| Session::load(&locate(&path)?, &options, job));
    promise(env, engine, work, |session| NativeModel { session: Mutex::new(Some(Arc::new(session))) })
}

/// Which addon this is.
#[napi(object)]
pub struct NativeBuild {
    pub version: String,
    /// Whether it computes on NVIDIA GPUs.
    pub cuda: bool,
}

/// Which addon this is.
#[napi]
pub fn build() -> NativeBuild {
    NativeBuild { version: env!("CARGO_PKG_VERSION").into(), cuda: cfg!(feature = "cuda") }
}

/// A GPU that can be computed on; `driver` is its version, where the system tells.
#[napi(object)]
pub struct NativeGpu {
    pub ordinal: u32,
    pub name: String,
    pub driver: Option<String>,
}

/// The GPU of this ordinal, or the first that will do; refused with the reason where the driver has none.
#[napi]
pub fn gpu(env: &Env, ordinal: Option<u32>) -> Result<NativeGpu> {
    let found = device::gpu(ordinal.map(|ordinal| ordinal as usize)).map_err(|error| to_js(env, &error))?;
    Ok(NativeGpu { ordinal: found.ordinal as u32, name: found.name, driver: found.driver })
}

#[napi]
impl NativeModel {
    /// The resolved config, as JSON.
    #[napi]
    pub fn config(&self, env: &Env) -> Result<String> {
        self.with(env, |session| Ok(serde_json::to_string(&session.transformer.config).unwrap_or_default()))
    }

    /// The columns of a result.
    #[napi]
    pub fn components(
        &self,
        env: &Env,
        #[napi(ts_arg_type = "'layer' | 'head' | 'neuron'")] unit: String,
    ) -> Result<Vec<NativeComponent>> {
        let of =
            |config: &ModelConfig, unit| Component::all(unit, config).into_iter().map(NativeComponent::from).collect();
        self.with(env, |session| Ok(of(&session.transformer.config, inputs::unit(&unit)?)))
    }

    /// The hook points that the model has, in the order of the forward pass.
    #[napi]
    pub fn hook_names(&self, env: &Env) -> Result<Vec<String>> {
        let names = |config: &ModelConfig| HookPoint::all(config).iter().map(HookPoint::to_string).collect();
        self.with(env, |session| Ok(names(&session.transformer.config)))
    }

    /// The hook points that attribution from a run needs.
    #[napi]
    pub fn attribution_hooks(
        &self,
        env: &Env,
        #[napi(ts_arg_type = "'layer' | 'head' | 'neuron'")] unit: String,
        #[napi(ts_arg_type = "'default' | 'transformerlens'")] convention: String,
    ) -> Result<Vec<String>> {
        self.with(env, |session| {
            let points = session.attribution_points(inputs::unit(&unit)?, inputs::convention(&convention)?);
            Ok(points.iter().map(HookPoint::to_string).collect())
        })
    }

    /// The tokens that no text is made of: special ones, reserved ones, and ids that the tokenizer does not have.
    #[napi]
    pub fn special_tokens(&self, env: &Env) -> Result<Uint32Array> {
        self.with(env, |session| Ok(session.special_tokens().into()))
    }

    /// Numbers of the weights.
    #[napi]
    pub fn parameters(&self, env: &Env) -> Result<f64> {
        self.with(env, |session| Ok(session.parameters as f64))
    }

    /// Bytes of the weights as they are held.
    #[napi]
    pub fn weight_bytes(&self, env: &Env) -> Result<f64> {
        self.with(env, |session| Ok(session.weight_bytes as f64))
    }

    /// Peak bytes of one forward pass over a prompt of this many tokens, attributed at its last position.
    #[napi]
    pub fn forward_bytes(&self, env: &Env, tokens: u32) -> Result<f64> {
        self.with(env, |session| Ok(session.forward_bytes(tokens as usize) as f64))
    }

    /// Tokens that are computed together, unless a prompt alone is longer or the caller says otherwise.
    #[napi]
    pub fn chunk_tokens(&self, env: &Env) -> Result<u32> {
        self.with(env, |session| Ok(session.chunk_tokens() as u32))
    }

    /// Attributes over a batch of prompts.
    #[napi(ts_return_type = "Promise<NativeAttribution>")]
    pub fn attribute<'env>(
        &self,
        env: &'env Env,
        call: NativeCall,
        cancel: &CancelHandle,
        #[napi(ts_arg_type = "((done: number, total: number) => void) | undefined")] progress: Option<Callback>,
    ) -> Result<Object<'env>> {
        let session = self.open(env)?;
        let engine = session.engine();
        let call = inputs::call(call);
        let control = Control::new(cancel, progress)?;
        let wrap: fn(_) -> NativeAttribution = outputs::attribution;
        let work = move || {
            let (ids, result) = control.run(|job| session.attribute(&call?, job))?;
            Ok((ids, result, session.transformer.unembed.cap.is_some()))
        };
        promise(env, engine, work, wrap)
    }

    /// SHA-256 over config and weights as they lie on disk, in hex.
    #[napi(ts_return_type = "Promise<string>")]
    pub fn fingerprint<'env>(&self, env: &'env Env) -> Result<Object<'env>> {
        let session = self.open(env)?;
        let engine = session.engine();
        promise(env, engine, move || session.fingerprint(), |hex| hex)
    }

    /// Whether the checkpoint has a tokenizer.
    #[napi]
    pub fn has_tokenizer(&self, env: &Env) -> Result<bool> {
        self.with(env, |session| Ok(session.tokenizer.is_some()))
    }

    /// The ids of a text.
    #[napi]
    pub fn encode(&self, env: &Env, text: String, prepend_bos: Option<bool>) -> Result<Uint32Array> {
        Ok(self.with_tokenizer(env, |tokenizer| tokenizer.encode(&text, prepend_bos))?.into())
    }

    /// The text of some ids.
    #[napi]
    pub fn decode(&self, env: &Env, ids: Uint32Array) -> Result<String> {
        self.with_tokenizer(env, |tokenizer| tokenizer.decode(&ids))
    }

    /// The id of an entry of the vocabulary.
    #[napi]
    pub fn token_to_id(&self, env: &Env, token: String) -> Result<Option<u32>> {
        self.with_tokenizer(env, |tokenizer| Ok(tokenizer.token_to_id(&token)))
    }

    /// The entry of an id in the vocabulary.
    #[napi]
    pub fn id_to_token(&self, env: &Env, id: u32) -> Result<Option<String>> {
        self.with_tokenizer(env, |tokenizer| Ok(tokenizer.id_to_token(id)))
    }

    /// The id that stands for what the vocabulary does not have.
    #[napi]
    pub fn unknown_token(&self, env: &Env) -> Result<Option<u32>> {
        self.with_tokenizer(env, |tokenizer| Ok(tokenizer.unknown()))
    }

    /// Frees the model when the calls that are under way have ended. Later calls are refused.
    #[napi(ts_return_type = "Promise<void>")]
    pub fn close<'env>(&self, env: &'env Env) -> Result<Object<'env>> {
        let session = self.session.lock().unwrap_or_else(|e| e.into_inner()).take();
        let engine = session.as_ref().map_or_else(Engine::cpu, |session| session.engine());
        // jobs run in order, so those that still hold the session end before this one
        let free = move || {
            drop(session);
            Ok(())
        };
        promise(env, engine, free, |()| ())
    }

    pub(crate) fn open(&self, env: &Env) -> Result<Arc<Session>> {
        let session = self.session.lock().unwrap_or_else(|e| e.into_inner()).clone();
        session.ok_or_else(|| to_js(env, &PrismError::Closed { what: "model" }))
    }

    fn with<T>(&self, env: &Env, f: impl FnOnce(&Session) -> logit_prism_core::Result<T>) -> Result<T> {
        f(&*self.open(env)?).map_err(|error| to_js(env, &error))
    }

    fn with_tokenizer<T>(&self, env: &Env, f: impl FnOnce(&Tokenizer) -> logit_prism_core::Result<T>) -> Result<T> {
        self.with(env, |session| f(session.tokenizer("this call")?))
    }
}

#[cfg(feature = "test-panic")]
#[napi]
impl NativeModel {
    /// Panics inside a job of this model.
    #[napi(ts_return_type = "Promise<void>")]
    pub fn panic<'env>(&self, env: &'env Env) -> Result<Object<'env>> {
        let session = self.open(env)?;
        let engine = session.engine();
        promise(env, engine, move || session.guarded(|| panic!("asked for by a test")), |()| ())
    }
}
