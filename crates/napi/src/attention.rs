//! Attention patterns, as JavaScript holds them.

use crate::errors::to_js;
use crate::inputs::{self, NativePrompt};
use crate::job::{Callback, CancelHandle, Control, promise};
use crate::model::NativeModel;
use logit_prism_core::PrismError;
use logit_prism_core::circuit::detect::Detection;
use logit_prism_core::circuit::pattern::{Column, HeadPattern, Kind, Patterns, Score};
use logit_prism_core::session::{AttentionCall, DetectCall, Detected, Session};
use napi::bindgen_prelude::*;
use napi_derive::napi;
use std::sync::{Arc, Weak};

/// Patterns that were kept. They do not keep their model alive.
#[napi]
pub struct NativePatterns {
    session: Weak<Session>,
    patterns: Arc<Patterns>,
}

/// How well a name fits a head.
#[napi(object)]
pub struct NativeScore {
    pub score: f64,
    pub null: f64,
    pub strength: f64,
    pub queries: u32,
}

/// Every name's score for one head.
#[napi(object)]
pub struct NativeHeadPattern {
    pub layer: u32,
    pub head: u32,
    pub previous_token: NativeScore,
    pub own: NativeScore,
    pub first: NativeScore,
    pub column: NativeScore,
    pub induction: NativeScore,
    pub duplicate_token: NativeScore,
    pub uniform: NativeScore,
    /// what the column is of: a token, or a class by name
    pub column_token: Option<u32>,
    pub column_class: Option<String>,
    pub best: Option<String>,
    pub margin: f64,
}

/// One test of one head.
#[napi(object)]
pub struct NativeDetection {
    pub score: f64,
    pub null: f64,
    pub p: f64,
}

/// The tests of one head.
#[napi(object)]
pub struct NativeDetected {
    pub layer: u32,
    pub head: u32,
    pub induction: NativeDetection,
    pub duplicate_token: NativeDetection,
    pub previous_token: NativeDetection,
}

/// A call of `detectHeads`.
#[napi(object)]
pub struct NativeDetectCall {
    pub heads: Option<Vec<String>>,
    pub sequences: u32,
    pub length: u32,
    pub seed: u32,
}

#[napi]
impl NativeModel {
    /// Runs prompts and keeps the patterns of heads.
    #[napi(ts_return_type = "Promise<NativePatterns>")]
    pub fn attention<'env>(
        &self,
        env: &'env Env,
        prompts: Vec<NativePrompt>,
        heads: Option<Vec<String>>,
        prepend_bos: Option<bool>,
        cancel: &CancelHandle,
        #[napi(ts_arg_type = "((done: number, total: number) => void) | undefined")] progress: Option<Callback>,
    ) -> Result<Object<'env>> {
        let session = self.open(env)?;
        let engine = session.engine();
        let prompts = prompts.into_iter().map(inputs::prompt).collect();
        let (call, control) = (AttentionCall { prompts, heads, prepend_bos }, Control::new(cancel, progress)?);
        let work = move || {
            let patterns = control.run(|job| session.attention(&call, job))?;
            Ok(NativePatterns { session: Arc::downgrade(&session), patterns: Arc::new(patterns) })
        };
        promise(env, engine, work, |patterns| patterns)
    }

    /// Tests heads on random tokens.
    #[napi(ts_return_type = "Promise<NativeDetected[]>")]
    pub fn detect_heads<'env>(
        &self,
        env: &'env Env,
        call: NativeDetectCall,
        cancel: &CancelHandle,
        #[napi(ts_arg_type = "((done: number, total: number) => void) | undefined")] progress: Option<Callback>,
    ) -> Result<Object<'env>> {
        let session = self.open(env)?;
        let engine = session.engine();
        let NativeDetectCall { heads, sequences, length, seed } = call;
        let (sequences, length, seed) = (sequences as usize, length as usize, u64::from(seed));
        let (call, control) = (DetectCall { heads, sequences, length, seed }, Control::new(cancel, progress)?);
        let wrap = |list: Vec<Detected>| list.into_iter().map(detected).collect::<Vec<_>>();
        promise(env, engine, move || control.run(|job| session.detect_heads(&call, job)), wrap)
    }
}

#[napi]
impl NativePatterns {
    /// The ids of every prompt.
    #[napi]
    pub fn ids(&self) -> Vec<Uint32Array> {
        self.patterns.prompts.iter().map(|ids| ids.clone().into()).collect()
    }

    /// Layer and index of every head that was kept, one after the other.
    #[napi]
    pub fn heads(&self) -> Vec<u32> {
        self.patterns.heads.iter().flat_map(|(l, h)| [*l as u32, *h as u32]).collect()
    }

    /// A copy of the pattern of head number `head` of those kept: [query_pos, key_pos].
    #[napi]
    pub fn pattern(&self, env: &Env, head: u32, prompt: u32) -> Result<Float32Array> {
        let pattern = self.patterns.pattern(head as usize, prompt as usize);
        Ok(pattern.map_err(|error| to_js(env, &error))?.to_vec().into())
    }

    /// Names for where every head looks.
    #[napi(ts_return_type = "Promise<NativeHeadPattern[]>")]
    pub fn classify<'env>(&self, env: &'env Env) -> Result<Object<'env>> {
        let closed = || to_js(env, &PrismError::Closed { what: "model" });
        let (session, patterns) = (self.session.upgrade().ok_or_else(closed)?, self.patterns.clone());
        let engine = session.engine();
        let wrap = |list: Vec<HeadPattern>| list.into_iter().map(head_pattern).collect::<Vec<_>>();
        promise(env, engine, move || session.classify(&patterns), wrap)
    }
}

fn head_pattern(found: HeadPattern) -> NativeHeadPattern {
    let score = |kind: Kind| {
        let Score { score, null, strength, queries } = found.scores[&kind];
        NativeScore { score, null, strength, queries: queries as u32 }
    };
    let (column_token, column_class) = match &found.column {
        Some(Column::Token(id)) => (Some(*id), None),
        Some(Column::Class(name)) => (None, Some(name.clone())),
        None => (None, None),
    };
    NativeHeadPattern {
        layer: found.head.0 as u32,
        head: found.head.1 as u32,
        previous_token: score(Kind::PreviousToken),
        own: score(Kind::Own),
        first: score(Kind::First),
        column: score(Kind::Column),
        induction: score(Kind::Induction),
        duplicate_token: score(Kind::DuplicateToken),
        uniform: score(Kind::Uniform),
        column_token,
        column_class,
        best: found.best.map(|kind| kind.name().into()),
        margin: found.margin,
    }
}

fn detected(found: Detected) -> NativeDetected {
    let of = |Detection { score, null, p }: Detection| NativeDetection { score, null, p };
    NativeDetected {
        layer: found.head.0 as u32,
        head: found.head.1 as u32,
        induction: of(found.induction),
        duplicate_token: of(found.duplicate_token),
        previous_token: of(found.previous_token),
    }
}
