//! What JavaScript gives, as the core wants it. Everything is copied at entry: changing or detaching an input later is
//! harmless. The facade has checked kinds and ranges, so what does not fit here is its defect.

use logit_prism_core::PrismError;
use logit_prism_core::attribution::lens::LensNorm;
use logit_prism_core::attribution::{Against, Answer, Convention, NormTreatment, OnViolation, Options, Target, Unit};
use logit_prism_core::cache::Logits;
use logit_prism_core::device::{DeviceName, WeightDtype};
use logit_prism_core::ops::Kernels;
use logit_prism_core::rows::Positions;
use logit_prism_core::session::{Asked, Call, LensCall, LoadOptions, ProbeCall, RunCall, SourcesCall, TopTokensCall};
use logit_prism_core::tokenizer::{Prompt, Token};
use napi::bindgen_prelude::*;
use napi_derive::napi;

/// Options of loading; `memoryLimit` in bytes.
#[napi(object)]
pub struct NativeLoadOptions {
    #[napi(ts_type = "'cpu' | `cuda:${number}`")]
    pub device: Option<String>,
    #[napi(ts_type = "'f32' | 'bf16' | 'f16'")]
    pub dtype: Option<String>,
    pub threads: Option<u32>,
    pub memory_limit: Option<f64>,
    pub allow_custom_regex: Option<bool>,
    pub allow_unknown_config: Option<bool>,
    #[napi(ts_type = "'fused' | 'plain'")]
    pub kernels: Option<String>,
}

/// Text, or ids to run verbatim.
#[napi]
pub type NativePrompt = Either<String, Uint32Array>;

/// An id, or a text that must be one token where it stands.
#[napi]
pub type NativeToken = Either<u32, String>;

/// One of: `answer` (tokens, 'next' or 'predicted') with `against` (tokens or 'mean'); `tokens` with `weights`; `direction`.
#[napi(object)]
pub struct NativeTarget {
    #[napi(ts_type = "(number | string)[] | 'next' | 'predicted'")]
    pub answer: Option<Either<String, Vec<NativeToken>>>,
    #[napi(ts_type = "(number | string)[] | 'mean'")]
    pub against: Option<Either<String, Vec<NativeToken>>>,
    pub tokens: Option<Vec<NativeToken>>,
    pub weights: Option<Vec<f64>>,
    pub direction: Option<Float32Array>,
}

/// Which positions: `of` for every prompt, or `perPrompt`, or by name.
#[napi(object)]
pub struct NativePositions {
    #[napi(ts_type = "'last' | 'all'")]
    pub name: Option<String>,
    pub of: Option<Vec<i64>>,
    pub per_prompt: Option<Vec<Vec<i64>>>,
}

/// What every call says: prompts and rows.
#[napi(object)]
pub struct NativeAsked {
    pub prompts: Vec<NativePrompt>,
    pub positions: NativePositions,
    pub prepend_bos: Option<bool>,
    pub batch_tokens: Option<u32>,
}

/// What is attributed, and how.
#[napi(object)]
pub struct NativeAttributing {
    pub targets: Vec<NativeTarget>,
    #[napi(ts_type = "'layer' | 'head' | 'neuron'")]
    pub unit: String,
    pub top: Option<u32>,
    #[napi(ts_type = "'default' | 'transformerlens'")]
    pub convention: String,
    #[napi(ts_type = "'frozen' | 'none'")]
    pub norm: Option<String>,
    #[napi(ts_type = "'throw' | 'warn'")]
    pub on_violation: String,
}

/// A call of `attribute`.
#[napi(object)]
pub struct NativeCall {
    pub asked: NativeAsked,
    pub attributing: NativeAttributing,
}

/// A call of `run`.
#[napi(object)]
pub struct NativeRunCall {
    pub asked: NativeAsked,
    pub points: Vec<String>,
    #[napi(ts_type = "'last' | 'all' | 'none'")]
    pub logits: String,
}

/// A call of `sources`.
#[napi(object)]
pub struct NativeSourcesCall {
    pub asked: NativeAsked,
    pub attributing: NativeAttributing,
    pub heads: Option<Vec<String>>,
}

/// A call of `lens`.
#[napi(object)]
pub struct NativeLensCall {
    pub asked: NativeAsked,
    pub targets: Vec<NativeTarget>,
    #[napi(ts_type = "'recomputed' | 'frozen'")]
    pub norm: String,
    pub top: u32,
}

/// A call of `topTokens`.
#[napi(object)]
pub struct NativeTopTokensCall {
    pub asked: NativeAsked,
    #[napi(ts_type = "'layer' | 'head' | 'neuron'")]
    pub unit: String,
    pub components: Option<Vec<String>>,
    pub k: u32,
    pub masked: Uint32Array,
}

/// A call of `probe`.
#[napi(object)]
pub struct NativeProbeCall {
    pub asked: NativeAsked,
    pub directions: Float32Array,
    pub at: String,
    #[napi(ts_type = "'layer' | 'head'")]
    pub unit: String,
    #[napi(ts_type = "'throw' | 'warn'")]
    pub on_violation: String,
}

type Parsed<T> = logit_prism_core::Result<T>;

pub fn load_options(options: NativeLoadOptions) -> Parsed<LoadOptions> {
    let kernels = [("fused", Kernels::default()), ("plain", Kernels::Plain)];
    let kernels = options.kernels.map(|name| one_of("kernels", &name, &kernels));
    let dtypes = [("f32", WeightDtype::F32), ("bf16", WeightDtype::Bf16), ("f16", WeightDtype::F16)];
    let dtype = options.dtype.map(|name| one_of("dtype", &name, &dtypes));
    Ok(LoadOptions {
        device: options.device.map(|name| DeviceName::parse(&name)).transpose()?.unwrap_or_default(),
        dtype: dtype.transpose()?.unwrap_or_default(),
        threads: options.threads.map(|n| n as usize),
        memory_limit: options.memory_limit.map(|bytes| bytes as u64),
        allow_custom_regex: options.allow_custom_regex.unwrap_or(false),
        allow_unknown_config: options.allow_unknown_config.unwrap_or(false),
        kernels: kernels.transpose()?.unwrap_or_default(),
    })
}

pub fn call(call: NativeCall) -> Parsed<Call> {
    let (targets, options) = attributing(call.attributing)?;
    Ok(Call { asked: asked(call.asked)?, targets, options })
}

pub fn attributing(given: NativeAttributing) -> Parsed<(Vec<Target<Token>>, Options)> {
    let norms = [("frozen", NormTreatment::Frozen), ("none", NormTreatment::None)];
    let options = Options {
        unit: unit(&given.unit)?,
        top: given.top.map(|k| k as usize),
        convention: convention(&given.convention)?,
        norm: given.norm.as_deref().map(|name| one_of("norm", name, &norms)).transpose()?,
        on_violation: on_violation(&given.on_violation)?,
    };
    Ok((targets(given.targets)?, options))
}

pub fn run_call(call: NativeRunCall) -> Parsed<RunCall> {
    let logits = [("last", Logits::Last), ("all", Logits::All), ("none", Logits::None)];
    Ok(RunCall { asked: asked(call.asked)?, points: call.points, logits: one_of("logits", &call.logits, &logits)? })
}

pub fn sources_call(given: NativeSourcesCall) -> Parsed<SourcesCall> {
    Ok(SourcesCall {
        call: call(NativeCall { asked: given.asked, attributing: given.attributing })?,
        heads: given.heads,
    })
}

pub fn lens_call(call: NativeLensCall) -> Parsed<LensCall> {
    let norms = [("recomputed", LensNorm::Recomputed), ("frozen", LensNorm::Frozen)];
    Ok(LensCall {
        asked: asked(call.asked)?,
        targets: targets(call.targets)?,
        norm: one_of("norm", &call.norm, &norms)?,
        top: call.top as usize,
    })
}

pub fn top_tokens_call(call: NativeTopTokensCall) -> Parsed<TopTokensCall> {
    Ok(TopTokensCall {
        asked: asked(call.asked)?,
        unit: unit(&call.unit)?,
        components: call.components,
        k: call.k as usize,
        masked: call.masked.to_vec(),
    })
}

pub fn probe_call(call: NativeProbeCall) -> Parsed<ProbeCall> {
    Ok(ProbeCall {
        asked: asked(call.asked)?,
        directions: call.directions.to_vec(),
        at: call.at,
        unit: unit(&call.unit)?,
        on_violation: on_violation(&call.on_violation)?,
    })
}

pub fn convention(name: &str) -> Parsed<Convention> {
    one_of("convention", name, &[("default", Convention::Default), ("transformerlens", Convention::TransformerLens)])
}

pub fn on_violation(name: &str) -> Parsed<OnViolation> {
    one_of("onViolation", name, &[("throw", OnViolation::Throw), ("warn", OnViolation::Warn)])
}

pub fn targets(list: Vec<NativeTarget>) -> Parsed<Vec<Target<Token>>> {
    list.into_iter().map(target).collect()
}

pub fn asked(asked: NativeAsked) -> Parsed<Asked> {
    Ok(Asked {
        prompts: asked.prompts.into_iter().map(prompt).collect(),
        positions: positions(asked.positions)?,
        prepend_bos: asked.prepend_bos,
        chunk_tokens: asked.batch_tokens.map(|n| n as usize),
    })
}

pub fn prompt(prompt: NativePrompt) -> Prompt {
    match prompt {
        Either::A(text) => Prompt::Text(text),
        Either::B(ids) => Prompt::Ids(ids.to_vec()),
    }
}

pub fn unit(name: &str) -> Parsed<Unit> {
    one_of("unit", name, &[("layer", Unit::Layer), ("head", Unit::Head), ("neuron", Unit::Neuron)])
}

pub fn positions(positions: NativePositions) -> Parsed<Positions> {
    match (positions.of, positions.per_prompt) {
        (Some(of), _) => Ok(Positions::Of(of)),
        (_, Some(lists)) => Ok(Positions::PerPrompt(lists)),
        _ => {
            let name = positions.name.unwrap_or_default();
            one_of("position", &name, &[("last", Positions::Last), ("all", Positions::All)])
        }
    }
}

fn target(target: NativeTarget) -> Parsed<Target<Token>> {
    if let Some(direction) = target.direction {
        return Ok(Target::Direction(direction.to_vec().into()));
    }
    if let (Some(list), Some(weights)) = (target.tokens, target.weights) {
        return Ok(Target::Weights(tokens(list).into_iter().zip(weights).collect()));
    }
    let answer = match target.answer {
        Some(Either::B(list)) => Answer::Tokens(tokens(list)),
        Some(Either::A(name)) => one_of("answer", &name, &[("next", Answer::Next), ("predicted", Answer::Predicted)])?,
        None => return Err(PrismError::argument("target", "nothing", "answer, weights or direction")),
    };
    let against = match target.against {
        Some(Either::B(list)) => Some(Against::Tokens(tokens(list))),
        Some(Either::A(name)) => Some(one_of("against", &name, &[("mean", Against::Mean)])?),
        None => None,
    };
    Ok(Target::Tokens { answer, against })
}

fn tokens(list: Vec<NativeToken>) -> Vec<Token> {
    let token = |token| match token {
        Either::A(id) => Token::Id(id),
        Either::B(text) => Token::Text(text),
    };
    list.into_iter().map(token).collect()
}

pub fn one_of<T: Clone>(argument: &str, name: &str, choices: &[(&str, T)]) -> Parsed<T> {
    let names: Vec<_> = choices.iter().map(|(name, _)| format!("'{name}'")).collect();
    let found = choices.iter().find(|(choice, _)| *choice == name).map(|(_, value)| value.clone());
    found.ok_or_else(|| PrismError::argument(argument, format!("'{name}'"), names.join(" or ")))
}
