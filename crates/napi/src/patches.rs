//! Calls that put values of one run into another.

use crate::inputs::{self, NativeAsked, NativePositions, NativePrompt, NativeTarget};
use crate::job::{Callback, CancelHandle, Control, promise};
use crate::model::NativeModel;
use crate::outputs::{self, NativeComponent};
use logit_prism_core::attribution::Component;
use logit_prism_core::patch::{Patching, Place, Receiver};
use logit_prism_core::session::{PairsCall, PatchCall, PathsCall, Swept};
use napi::bindgen_prelude::*;
use napi_derive::napi;

/// What every call of patching says: pairs of prompts, what is asked of them, and the positions that are patched.
#[napi(object)]
pub struct NativePairs {
    /// the clean prompts; one position of each
    pub asked: NativeAsked,
    pub corrupt: Vec<NativePrompt>,
    pub targets: Vec<NativeTarget>,
    pub positions: NativePositions,
    /// without: the same choice
    pub corrupt_positions: Option<NativePositions>,
}

/// A call of `patch`.
#[napi(object)]
pub struct NativePatchCall {
    pub pairs: NativePairs,
    #[napi(ts_type = "'resid_pre' | 'attn_out' | 'mlp_out' | 'z'")]
    pub at: String,
    pub by_head: bool,
    pub by_position: bool,
    pub noising: bool,
}

/// A call of `patchPaths`.
#[napi(object)]
pub struct NativePathsCall {
    pub pairs: NativePairs,
    pub from: Option<Vec<String>>,
    pub to: Vec<String>,
    pub each: bool,
    pub through_mlps: bool,
}

/// What patches did; one row per pair.
#[napi(object)]
pub struct NativePatched {
    /// 0, 1, …: a row per pair
    pub row_prompt: Uint32Array,
    /// where the target is read: of the clean prompt
    pub row_position: Uint32Array,
    /// the same of the corrupted one
    pub corrupt_row: Uint32Array,
    /// the ids of clean prompt i: `ids[idOffsets[i] .. idOffsets[i + 1]]`
    pub ids: Uint32Array,
    pub id_offsets: Uint32Array,
    pub corrupt_ids: Uint32Array,
    pub corrupt_id_offsets: Uint32Array,
    pub target_tokens: Uint32Array,
    pub target_weights: Float64Array,
    pub target_offsets: Uint32Array,
    pub target_mean: Float64Array,
    /// patched positions of pair i, of the clean prompt and of the corrupted one: `[positionOffsets[i] .. positionOffsets[i + 1]]`
    pub clean_positions: Uint32Array,
    pub corrupt_positions: Uint32Array,
    pub position_offsets: Uint32Array,
    /// the target in both runs, by pair
    pub clean: Float64Array,
    pub corrupt: Float64Array,
    /// the target after every patch, pair after pair
    pub values: Float64Array,
}

/// What path patching did, and the senders and receivers.
#[napi(object)]
pub struct NativePaths {
    pub senders: Vec<NativeComponent>,
    pub receivers: Vec<String>,
    pub patched: NativePatched,
}

fn pairs(pairs: NativePairs) -> logit_prism_core::Result<PairsCall> {
    Ok(PairsCall {
        clean: inputs::asked(pairs.asked)?,
        corrupt: pairs.corrupt.into_iter().map(inputs::prompt).collect(),
        targets: inputs::targets(pairs.targets)?,
        positions: inputs::positions(pairs.positions)?,
        corrupt_positions: pairs.corrupt_positions.map(inputs::positions).transpose()?,
    })
}

fn patch_call(call: NativePatchCall) -> logit_prism_core::Result<PatchCall> {
    let places =
        [("resid_pre", Place::ResidPre), ("attn_out", Place::AttnOut), ("mlp_out", Place::MlpOut), ("z", Place::Z)];
    let at = inputs::one_of("at", &call.at, &places)?;
    let patching = Patching { at, by_head: call.by_head, by_position: call.by_position };
    Ok(PatchCall { pairs: pairs(call.pairs)?, patching, noising: call.noising })
}

fn paths_call(call: NativePathsCall) -> logit_prism_core::Result<PathsCall> {
    let NativePathsCall { from, to, each, through_mlps, .. } = call;
    Ok(PathsCall { pairs: pairs(call.pairs)?, from, to, each, through_mlps })
}

fn patched(swept: Swept) -> NativePatched {
    let Swept { clean, corrupt, positions, rows, patched } = swept;
    let numbers = |list: &mut dyn Iterator<Item = usize>| list.map(|n| n as u32).collect::<Vec<_>>().into();
    let targets = outputs::targets(&patched.targets);
    let mut end = 0;
    let ends = positions.iter().map(|positions| {
        end += positions.len();
        end
    });
    NativePatched {
        position_offsets: numbers(&mut std::iter::once(0).chain(ends)),
        row_prompt: numbers(&mut (0..rows.len())),
        row_position: numbers(&mut rows.iter().map(|(clean, _)| *clean)),
        corrupt_row: numbers(&mut rows.iter().map(|(_, corrupt)| *corrupt)),
        id_offsets: outputs::offsets_of(&clean),
        ids: clean.concat().into(),
        corrupt_id_offsets: outputs::offsets_of(&corrupt),
        corrupt_ids: corrupt.concat().into(),
        target_tokens: targets.tokens,
        target_weights: targets.weights,
        target_offsets: targets.offsets,
        target_mean: targets.mean,
        clean_positions: numbers(&mut positions.iter().flatten().map(|(clean, _)| *clean)),
        corrupt_positions: numbers(&mut positions.iter().flatten().map(|(_, corrupt)| *corrupt)),
        clean: patched.clean.into(),
        corrupt: patched.corrupt.into(),
        values: patched.values.into(),
    }
}

#[napi]
impl NativeModel {
    /// Puts values of one run of every pair into the other, one place at a time.
    #[napi(ts_return_type = "Promise<NativePatched>")]
    pub fn patch<'env>(
        &self,
        env: &'env Env,
        call: NativePatchCall,
        cancel: &CancelHandle,
        #[napi(ts_arg_type = "((done: number, total: number) => void) | undefined")] progress: Option<Callback>,
    ) -> Result<Object<'env>> {
        let session = self.open(env)?;
        let engine = session.engine();
        let (call, control) = (patch_call(call), Control::new(cancel, progress)?);
        let wrap: fn(_) -> NativePatched = patched;
        promise(env, engine, move || control.run(|job| session.patch(&call?, job)), wrap)
    }

    /// Lets what senders write in the corrupted run reach receivers of the clean one.
    #[napi(ts_return_type = "Promise<NativePaths>")]
    pub fn patch_paths<'env>(
        &self,
        env: &'env Env,
        call: NativePathsCall,
        cancel: &CancelHandle,
        #[napi(ts_arg_type = "((done: number, total: number) => void) | undefined")] progress: Option<Callback>,
    ) -> Result<Object<'env>> {
        let session = self.open(env)?;
        let engine = session.engine();
        let (call, control) = (paths_call(call), Control::new(cancel, progress)?);
        let wrap = |(senders, receivers, swept): (Vec<Component>, Vec<Receiver>, Swept)| NativePaths {
            senders: outputs::components(senders),
            receivers: receivers.iter().map(Receiver::label).collect(),
            patched: patched(swept),
        };
        promise(env, engine, move || control.run(|job| session.patch_paths(&call?, job)), wrap)
    }
}
