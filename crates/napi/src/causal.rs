//! Calls that change a run and compute what follows.

use crate::inputs::{self, NativeAsked, NativePositions, NativePrompt, NativeTarget};
use crate::job::{Callback, CancelHandle, Control, promise};
use crate::model::NativeModel;
use crate::outputs::{self, NativeComponent};
use logit_prism_core::PrismError;
use logit_prism_core::attribution::{Certificate, Component};
use logit_prism_core::causal::{Erasure, Without};
use logit_prism_core::session::{AblateAt, AblateCall, Ablated, Ran, SetTo, WithoutCall};
use napi::bindgen_prelude::*;
use napi_derive::napi;

/// A call of `ablate`.
#[napi(object)]
pub struct NativeAblateCall {
    pub asked: NativeAsked,
    pub targets: Vec<NativeTarget>,
    #[napi(ts_type = "'layer' | 'head'")]
    pub unit: String,
    pub components: Option<Vec<String>>,
    /// what takes a component's place; with prompts for all but zero
    #[napi(ts_type = "'zero' | 'mean' | 'meanByPosition' | 'from'")]
    pub set: String,
    pub reference: Option<Vec<NativePrompt>>,
    /// without: at each row's own position
    pub at: Option<NativePositions>,
    #[napi(ts_type = "'throw' | 'warn'")]
    pub on_violation: String,
}

/// What ablations of `rowPrompt.length` rows did; `ablated`: columns of `components`.
#[napi(object)]
pub struct NativeCausal {
    pub components: Vec<NativeComponent>,
    pub ablated: Uint32Array,
    pub row_prompt: Uint32Array,
    pub row_position: Uint32Array,
    /// the ids of prompt i: `ids[idOffsets[i] .. idOffsets[i + 1]]`
    pub ids: Uint32Array,
    pub id_offsets: Uint32Array,
    pub target_tokens: Uint32Array,
    pub target_weights: Float64Array,
    pub target_offsets: Uint32Array,
    pub target_mean: Float64Array,
    /// the target in the clean run, [rows]
    pub measured: Float32Array,
    /// attributions of the clean run, [rows, components]
    pub attributions: Float32Array,
    /// direct, total, norm, residual and tolerance, [rows, ablated] each
    pub numbers: Float32Array,
    /// [rows, ablated, components]
    pub mediators: Float32Array,
    /// [rows, ablated]: numbers of verdicts
    pub verdicts: Uint32Array,
    /// numbers whose certificate does not hold
    pub violations: u32,
}

/// What takes a component's place, by its name.
fn set_to(set: &str, reference: Option<Vec<NativePrompt>>) -> logit_prism_core::Result<SetTo> {
    let reference = reference.unwrap_or_default().into_iter().map(inputs::prompt).collect();
    match set {
        "zero" => Ok(SetTo::Zero),
        "mean" => Ok(SetTo::Mean { reference, by_position: false }),
        "meanByPosition" => Ok(SetTo::Mean { reference, by_position: true }),
        "from" => Ok(SetTo::From(reference)),
        other => Err(PrismError::argument("set", other, "'zero', mean or from")),
    }
}

fn ablate_call(call: NativeAblateCall) -> logit_prism_core::Result<AblateCall> {
    let at = match call.at {
        None => AblateAt::Row,
        Some(NativePositions { name: Some(name), .. }) if name == "all" => AblateAt::All,
        Some(positions) => AblateAt::Positions(inputs::positions(positions)?),
    };
    Ok(AblateCall {
        asked: inputs::asked(call.asked)?,
        targets: inputs::targets(call.targets)?,
        unit: inputs::unit(&call.unit)?,
        components: call.components,
        set: set_to(&call.set, call.reference)?,
        at,
        on_violation: inputs::on_violation(&call.on_violation)?,
    })
}

fn causal((ids, (components, ablated, causal)): Ran<Ablated>) -> NativeCausal {
    let of_certificate = |of: fn(&Certificate) -> f64| causal.certificates.iter().map(move |c| of(c) as f32);
    let violations = outputs::violations(&causal.certificates);
    let certified = of_certificate(Certificate::residual).chain(of_certificate(|c| c.tolerance));
    let certified: Vec<f32> = certified.collect();
    let targets = outputs::targets(&causal.targets);
    NativeCausal {
        components: outputs::components(components),
        ablated: ablated.into_iter().map(|column| column as u32).collect::<Vec<_>>().into(),
        row_prompt: outputs::column(&causal.rows, |row| row.prompt),
        row_position: outputs::column(&causal.rows, |row| row.position),
        id_offsets: outputs::offsets_of(&ids),
        ids: ids.concat().into(),
        target_tokens: targets.tokens,
        target_weights: targets.weights,
        target_offsets: targets.offsets,
        target_mean: targets.mean,
        measured: causal.measured.iter().map(|f| *f as f32).collect::<Vec<_>>().into(),
        attributions: causal.attributions.into(),
        numbers: [causal.direct, causal.total, causal.norm, certified].concat().into(),
        mediators: causal.mediators.into(),
        verdicts: causal.verdicts.iter().map(|verdict| *verdict as u32).collect::<Vec<_>>().into(),
        violations,
    }
}

/// Projections of every component's write on the direction of one component's, in the clean run and without it.
#[napi(object)]
pub struct NativeErasure {
    pub components: Vec<NativeComponent>,
    /// |c|
    pub norm: f64,
    pub clean: Float64Array,
    pub ablated: Float64Array,
}

/// A call of `without`.
#[napi(object)]
pub struct NativeWithoutCall {
    pub asked: NativeAsked,
    pub targets: Vec<NativeTarget>,
    /// sets of components, as their numbers among those by head: set i is `sets[setOffsets[i] .. setOffsets[i + 1]]`
    pub sets: Uint32Array,
    pub set_offsets: Uint32Array,
    /// as of `ablate`
    #[napi(ts_type = "'zero' | 'mean' | 'meanByPosition' | 'from'")]
    pub set: String,
    pub reference: Option<Vec<NativePrompt>>,
}

/// A target as it is, and without sets of components.
#[napi(object)]
pub struct NativeWithout {
    pub row_prompt: Uint32Array,
    pub row_position: Uint32Array,
    /// the ids of prompt i: `ids[idOffsets[i] .. idOffsets[i + 1]]`
    pub ids: Uint32Array,
    pub id_offsets: Uint32Array,
    pub target_tokens: Uint32Array,
    pub target_weights: Float64Array,
    pub target_offsets: Uint32Array,
    pub target_mean: Float64Array,
    /// the target in the clean run, [rows]
    pub measured: Float64Array,
    /// the target without each set, [rows, sets]
    pub left: Float64Array,
}

fn without_call(call: NativeWithoutCall) -> logit_prism_core::Result<WithoutCall> {
    let set = |span: &[u32]| match call.sets.get(span[0] as usize..span[1] as usize) {
        Some(set) => Ok(set.iter().map(|column| *column as usize).collect()),
        None => Err(PrismError::argument("setOffsets", format!("{span:?}"), "rising numbers within the sets")),
    };
    Ok(WithoutCall {
        asked: inputs::asked(call.asked)?,
        targets: inputs::targets(call.targets)?,
        sets: call.set_offsets.windows(2).map(set).collect::<logit_prism_core::Result<_>>()?,
        set: set_to(&call.set, call.reference)?,
    })
}

fn remains((ids, found): Ran<Without>) -> NativeWithout {
    let targets = outputs::targets(&found.targets);
    NativeWithout {
        row_prompt: outputs::column(&found.rows, |row| row.prompt),
        row_position: outputs::column(&found.rows, |row| row.position),
        id_offsets: outputs::offsets_of(&ids),
        ids: ids.concat().into(),
        target_tokens: targets.tokens,
        target_weights: targets.weights,
        target_offsets: targets.offsets,
        target_mean: targets.mean,
        measured: found.measured.into(),
        left: found.left.into(),
    }
}

/// The names of verdicts, in the order of their numbers.
#[napi]
pub fn verdict_names() -> Vec<String> {
    logit_prism_core::causal::Verdict::ALL.iter().map(|verdict| verdict.name().into()).collect()
}

#[napi]
impl NativeModel {
    /// Replaces every wanted component, one at a time, and computes what follows.
    #[napi(ts_return_type = "Promise<NativeCausal>")]
    pub fn ablate<'env>(
        &self,
        env: &'env Env,
        call: NativeAblateCall,
        cancel: &CancelHandle,
        #[napi(ts_arg_type = "((done: number, total: number) => void) | undefined")] progress: Option<Callback>,
    ) -> Result<Object<'env>> {
        let session = self.open(env)?;
        let engine = session.engine();
        let (call, control) = (ablate_call(call), Control::new(cancel, progress)?);
        let wrap: fn(_) -> NativeCausal = causal;
        promise(env, engine, move || control.run(|job| session.ablate(&call?, job)), wrap)
    }

    /// A target as it is and without each of some sets of components, replaced together at every position.
    #[napi(ts_return_type = "Promise<NativeWithout>")]
    pub fn without<'env>(
        &self,
        env: &'env Env,
        call: NativeWithoutCall,
        cancel: &CancelHandle,
        #[napi(ts_arg_type = "((done: number, total: number) => void) | undefined")] progress: Option<Callback>,
    ) -> Result<Object<'env>> {
        let session = self.open(env)?;
        let engine = session.engine();
        let (call, control) = (without_call(call), Control::new(cancel, progress)?);
        let wrap: fn(_) -> NativeWithout = remains;
        promise(env, engine, move || control.run(|job| session.without(&call?, job)), wrap)
    }

    /// How every component's write lies along that of one component, at one position of one prompt.
    #[napi(ts_return_type = "Promise<NativeErasure>")]
    pub fn erasure<'env>(&self, env: &'env Env, call: NativeAblateCall, cancel: &CancelHandle) -> Result<Object<'env>> {
        let session = self.open(env)?;
        let engine = session.engine();
        let (call, control) = (ablate_call(call), Control::new(cancel, None)?);
        let wrap = |(components, found): (Vec<Component>, Erasure)| NativeErasure {
            components: outputs::components(components),
            norm: found.norm,
            clean: found.clean.into(),
            ablated: found.ablated.into(),
        };
        promise(env, engine, move || control.run(|job| session.erasure(&call?, job)), wrap)
    }
}
