//! What JavaScript gives, as the core wants it. Everything is copied at entry: changing or detaching an input later is
//! harmless. The facade has checked kinds and ranges, so what does not fit here is its defect.

use logit_prism_core::PrismError;
use logit_prism_core::attribution::{Against, Answer, NormTreatment, OnViolation, Options, Target, Unit};
use logit_prism_core::ops::Kernels;
use logit_prism_core::rows::Positions;
use logit_prism_core::session::{Call, LoadOptions};
use logit_prism_core::tokenizer::{Prompt, Token};
use napi::bindgen_prelude::*;
use napi_derive::napi;

/// Options of loading; `memoryLimit` in bytes.
#[napi(object)]
pub struct NativeLoadOptions {
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

/// A call of `attribute`.
#[napi(object)]
pub struct NativeCall {
    pub prompts: Vec<NativePrompt>,
    pub targets: Vec<NativeTarget>,
    pub positions: NativePositions,
    #[napi(ts_type = "'layer' | 'head'")]
    pub unit: String,
    #[napi(ts_type = "'frozen' | 'none'")]
    pub norm: Option<String>,
    #[napi(ts_type = "'throw' | 'warn'")]
    pub on_violation: String,
    pub prepend_bos: Option<bool>,
    pub batch_tokens: Option<u32>,
}

type Parsed<T> = logit_prism_core::Result<T>;

pub fn load_options(options: NativeLoadOptions) -> Parsed<LoadOptions> {
    let kernels = [("fused", Kernels::default()), ("plain", Kernels::Plain)];
    let kernels = options.kernels.map(|name| one_of("kernels", &name, &kernels));
    Ok(LoadOptions {
        threads: options.threads.map(|n| n as usize),
        memory_limit: options.memory_limit.map(|bytes| bytes as u64),
        allow_custom_regex: options.allow_custom_regex.unwrap_or(false),
        allow_unknown_config: options.allow_unknown_config.unwrap_or(false),
        kernels: kernels.transpose()?.unwrap_or_default(),
    })
}

pub fn call(call: NativeCall) -> Parsed<Call> {
    let norm = call
        .norm
        .as_deref()
        .map(|name| one_of("norm", name, &[("frozen", NormTreatment::Frozen), ("none", NormTreatment::None)]));
    Ok(Call {
        prompts: call.prompts.into_iter().map(prompt).collect(),
        targets: call.targets.into_iter().map(target).collect::<Parsed<_>>()?,
        positions: positions(call.positions)?,
        options: Options {
            unit: unit(&call.unit)?,
            norm: norm.transpose()?,
            on_violation: one_of(
                "onViolation",
                &call.on_violation,
                &[("throw", OnViolation::Throw), ("warn", OnViolation::Warn)],
            )?,
        },
        prepend_bos: call.prepend_bos,
        chunk_tokens: call.batch_tokens.map(|n| n as usize),
    })
}

pub fn prompt(prompt: NativePrompt) -> Prompt {
    match prompt {
        Either::A(text) => Prompt::Text(text),
        Either::B(ids) => Prompt::Ids(ids.to_vec()),
    }
}

pub fn unit(name: &str) -> Parsed<Unit> {
    one_of("unit", name, &[("layer", Unit::Layer), ("head", Unit::Head)])
}

fn positions(positions: NativePositions) -> Parsed<Positions> {
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

fn one_of<T: Clone>(argument: &str, name: &str, choices: &[(&str, T)]) -> Parsed<T> {
    let names: Vec<_> = choices.iter().map(|(name, _)| format!("'{name}'")).collect();
    let found = choices.iter().find(|(choice, _)| *choice == name).map(|(_, value)| value.clone());
    found.ok_or_else(|| PrismError::argument(argument, format!("'{name}'"), names.join(" or ")))
}
