//! What the core returns, as JavaScript gets it: one flat buffer per kind of number, so a result crosses once.

use logit_prism_core::attribution::{Attribution, Certificate, Component, Resolved};
use logit_prism_core::chunk::Row;
use logit_prism_core::hook::HookPoint;
use napi::bindgen_prelude::*;
use napi_derive::napi;

/// What a column is.
#[napi(object)]
pub struct NativeComponent {
    pub label: String,
    pub kind: String,
    pub layer: Option<u32>,
    pub index: Option<u32>,
}

impl From<Component> for NativeComponent {
    fn from(component: Component) -> Self {
        let number = |n: Option<usize>| n.map(|n| n as u32);
        NativeComponent {
            label: component.label(),
            kind: component.kind.name().into(),
            layer: number(component.layer),
            index: number(component.index),
        }
    }
}

/// Attributions of `rowPrompt.length` rows.
#[napi(object)]
pub struct NativeAttribution {
    /// values [rows, components], then constant, total, measured, residual and tolerance, [rows] each
    pub numbers: Float32Array,
    pub row_prompt: Uint32Array,
    pub row_position: Uint32Array,
    /// the ids of prompt i: `ids[idOffsets[i] .. idOffsets[i + 1]]`
    pub ids: Uint32Array,
    pub id_offsets: Uint32Array,
    /// the target of row i: tokens and weights `[targetOffsets[i] .. targetOffsets[i + 1]]`, and the weight of the mean
    pub target_tokens: Uint32Array,
    pub target_weights: Float64Array,
    pub target_offsets: Uint32Array,
    pub target_mean: Float64Array,
    /// `measured` of the logits after the cap, [rows], for models that cap their logits
    pub after_cap: Option<Float32Array>,
    /// rows whose certificate does not hold
    pub violations: u32,
}

/// The numbers of a row that stand behind its values and constant.
const NUMBERS: [fn(&Certificate) -> f64; 4] = [|c| c.total, |c| c.measured, Certificate::residual, |c| c.tolerance];

pub fn attribution((ids, result, capped): (Vec<Vec<u32>>, Attribution, bool)) -> NativeAttribution {
    let violations = result.certificates.iter().filter(|c| !c.holds()).count() as u32;
    let mut numbers = result.values;
    numbers.extend(result.constant.iter().map(|v| *v as f32));
    for number in NUMBERS {
        numbers.extend(result.certificates.iter().map(|c| number(c) as f32));
    }
    let (mut tokens, mut weights, mut offsets, mut means) = (Vec::new(), Vec::new(), vec![0], Vec::new());
    for target in &result.targets {
        if let Resolved::Tokens(set) = target {
            tokens.extend(set.tokens.keys());
            weights.extend(set.tokens.values());
        }
        offsets.push(tokens.len() as u32);
        means.push(if let Resolved::Tokens(set) = target { set.mean } else { 0.0 });
    }
    NativeAttribution {
        numbers: numbers.into(),
        row_prompt: column(&result.rows, |row| row.prompt),
        row_position: column(&result.rows, |row| row.position),
        id_offsets: offsets_of(&ids),
        ids: ids.concat().into(),
        target_tokens: tokens.into(),
        target_weights: weights.into(),
        target_offsets: offsets.into(),
        target_mean: means.into(),
        after_cap: capped.then(|| result.after_cap.iter().map(|v| *v as f32).collect::<Vec<_>>().into()),
        violations,
    }
}

fn column(rows: &[Row], of: impl Fn(&Row) -> usize) -> Uint32Array {
    rows.iter().map(|row| of(row) as u32).collect::<Vec<_>>().into()
}

fn offsets_of(lists: &[Vec<u32>]) -> Uint32Array {
    let ends = lists.iter().scan(0, |end, list| {
        *end += list.len() as u32;
        Some(*end)
    });
    std::iter::once(0).chain(ends).collect::<Vec<_>>().into()
}

/// Values of one hook point.
#[napi(object)]
pub struct NativeTensor {
    pub name: String,
    pub data: Float32Array,
    pub shape: Vec<u32>,
    pub dims: Vec<String>,
}

impl NativeTensor {
    pub fn new(point: HookPoint, (shape, data): (Vec<usize>, Vec<f32>)) -> Self {
        NativeTensor {
            name: point.to_string(),
            data: data.into(),
            shape: shape.into_iter().map(|n| n as u32).collect(),
            dims: point.dims().iter().map(|dim| dim.name().into()).collect(),
        }
    }
}

/// What one prompt left behind.
#[napi(object)]
pub struct NativeObservation {
    pub ids: Uint32Array,
    /// logits of the last position, [d_vocab]
    pub logits: Float32Array,
    pub tensors: Vec<NativeTensor>,
}
