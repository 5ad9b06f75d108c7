//! What the core returns, as JavaScript gets it: one flat buffer per kind of number, so a result crosses once.

use logit_prism_core::attribution::lens::{self, Lensed, Predicted, Standing};
use logit_prism_core::attribution::probe::Probed;
use logit_prism_core::attribution::sources::{Heads, Sources};
use logit_prism_core::attribution::top_tokens::TopTokens;
use logit_prism_core::attribution::{Attribution, Certificate, Component, ExpertId, Resolved, Scored};
use logit_prism_core::cache::Stack;
use logit_prism_core::chunk::Row;
use logit_prism_core::config::ModelConfig;
use logit_prism_core::hook::HookPoint;
use logit_prism_core::session::Ran;
use napi::bindgen_prelude::*;
use napi_derive::napi;

/// What a column is.
#[napi(object)]
pub struct NativeComponent {
    pub label: String,
    pub kind: String,
    pub layer: Option<u32>,
    pub index: Option<u32>,
    /// for neurons of experts: its number, or the shared one
    #[napi(ts_type = "number | 'shared'")]
    pub expert: Option<Either<u32, String>>,
}

impl From<Component> for NativeComponent {
    fn from(component: Component) -> Self {
        let number = |n: Option<usize>| n.map(|n| n as u32);
        NativeComponent {
            label: component.label(),
            kind: component.kind.name().into(),
            layer: number(component.layer),
            index: number(component.index),
            expert: component.expert.map(|expert| match expert {
                ExpertId::Routed(e) => Either::A(e as u32),
                ExpertId::Shared => Either::B("shared".into()),
            }),
        }
    }
}

/// Attributions of `rowPrompt.length` rows.
#[napi(object)]
pub struct NativeAttribution {
    /// [rows, components]
    pub values: Float32Array,
    /// constant, total, measured, residual and tolerance, [rows] each
    pub certificates: Float32Array,
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
    /// what the columns are, where they are not all of the unit's
    pub components: Option<Vec<NativeComponent>>,
    /// rows whose certificate does not hold
    pub violations: u32,
}

/// The numbers of a row's certificate, behind its constant.
const CERTIFICATE: [fn(&Certificate) -> f64; 4] = [|c| c.total, |c| c.measured, Certificate::residual, |c| c.tolerance];

pub fn attribution((ids, result, capped): (Vec<Vec<u32>>, Attribution, bool)) -> NativeAttribution {
    let violations = violations(&result.certificates);
    let components = result.components.map(components);
    let mut certificates: Vec<f32> = result.constant.iter().map(|v| *v as f32).collect();
    for number in CERTIFICATE {
        certificates.extend(result.certificates.iter().map(|c| number(c) as f32));
    }
    let targets = targets(&result.targets);
    NativeAttribution {
        values: result.values.into(),
        certificates: certificates.into(),
        row_prompt: column(&result.rows, |row| row.prompt),
        row_position: column(&result.rows, |row| row.position),
        id_offsets: offsets_of(&ids),
        ids: ids.concat().into(),
        target_tokens: targets.tokens,
        target_weights: targets.weights,
        target_offsets: targets.offsets,
        target_mean: targets.mean,
        components,
        after_cap: capped.then(|| result.after_cap.iter().map(|v| *v as f32).collect::<Vec<_>>().into()),
        violations,
    }
}

pub fn violations(certificates: &[Certificate]) -> u32 {
    certificates.iter().filter(|c| !c.holds()).count() as u32
}

pub fn components(components: Vec<Component>) -> Vec<NativeComponent> {
    components.into_iter().map(NativeComponent::from).collect()
}

pub struct Targets {
    pub tokens: Uint32Array,
    pub weights: Float64Array,
    pub offsets: Uint32Array,
    pub mean: Float64Array,
}

pub fn targets(resolved: &[Resolved]) -> Targets {
    let (mut tokens, mut weights, mut offsets, mut means) = (Vec::new(), Vec::new(), vec![0], Vec::new());
    for target in resolved {
        if let Resolved::Tokens(set) = target {
            tokens.extend(set.tokens.keys());
            weights.extend(set.tokens.values());
        }
        offsets.push(tokens.len() as u32);
        means.push(if let Resolved::Tokens(set) = target { set.mean } else { 0.0 });
    }
    Targets { tokens: tokens.into(), weights: weights.into(), offsets: offsets.into(), mean: means.into() }
}

pub fn column(rows: &[Row], of: impl Fn(&Row) -> usize) -> Uint32Array {
    rows.iter().map(|row| of(row) as u32).collect::<Vec<_>>().into()
}

pub fn offsets_of(lists: &[Vec<u32>]) -> Uint32Array {
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
    pub fn logits((shape, data): (Vec<usize>, Vec<f32>)) -> Self {
        let shape = shape.into_iter().map(|n| n as u32).collect();
        NativeTensor { name: "logits".into(), data: data.into(), shape, dims: vec!["pos".into(), "d_vocab".into()] }
    }

    pub fn new(point: HookPoint, (shape, data): (Vec<usize>, Vec<f32>)) -> Self {
        NativeTensor {
            name: point.to_string(),
            data: data.into(),
            shape: shape.into_iter().map(|n| n as u32).collect(),
            dims: point.dims().iter().map(|dim| dim.name().into()).collect(),
        }
    }
}

/// The vectors that components wrote: [rows, components, d_model], row-major.
#[napi(object)]
pub struct NativeStack {
    pub vectors: Float32Array,
    pub row_prompt: Uint32Array,
    pub row_position: Uint32Array,
}

pub fn stack(stack: Stack) -> NativeStack {
    NativeStack {
        row_prompt: column(&stack.rows, |row| row.prompt),
        row_position: column(&stack.rows, |row| row.position),
        vectors: stack.vectors.into(),
    }
}

/// An attribution and the heads of it by source position.
#[napi(object)]
pub struct NativeSources {
    pub attribution: NativeAttribution,
    /// layer and index of every head, one after the other
    pub heads: Uint32Array,
    /// row after row: [heads, key_pos], with as many positions as the row's prompt has
    pub values: Float32Array,
}

pub fn sources((ids, (heads, sources), capped): (Vec<Vec<u32>>, (Heads, Sources), bool)) -> NativeSources {
    NativeSources {
        attribution: attribution((ids, sources.attribution, capped)),
        heads: heads.iter().flat_map(|(l, h)| [*l as u32, *h as u32]).collect::<Vec<_>>().into(),
        values: sources.values.concat().into(),
    }
}

/// What every state of the stream reads, at `rowPrompt.length` rows.
#[napi(object)]
pub struct NativeLens {
    pub states: Vec<String>,
    pub row_prompt: Uint32Array,
    pub row_position: Uint32Array,
    /// the ids of prompt i: `ids[idOffsets[i] .. idOffsets[i + 1]]`
    pub ids: Uint32Array,
    pub id_offsets: Uint32Array,
    /// the target's value, [rows, states]; empty without targets
    pub values: Float32Array,
    /// the forward pass's own value and what the last state may differ by, [rows] each; empty without targets
    pub measured: Float32Array,
    pub tolerance: Float32Array,
    pub target_tokens: Uint32Array,
    pub target_weights: Float64Array,
    pub target_offsets: Uint32Array,
    pub target_mean: Float64Array,
    /// of every target token: [tokens, states]
    pub token_logits: Float32Array,
    pub token_ranks: Uint32Array,
    pub token_log_probabilities: Float32Array,
    /// most likely first: [rows, states, k]
    pub top_ids: Uint32Array,
    pub top_logits: Float32Array,
    pub top_probabilities: Float32Array,
}

pub fn state_names(config: &ModelConfig) -> Vec<String> {
    lens::states(config).iter().map(HookPoint::to_string).collect()
}

pub fn lens((ids, lensed, states): (Vec<Vec<u32>>, Lensed, Vec<String>)) -> NativeLens {
    let targets = targets(&lensed.targets);
    let standings = || lensed.standings.iter().flatten();
    let top = || lensed.top.iter().flatten();
    let of_row =
        |of: fn(&Certificate) -> f64| lensed.certificates.iter().map(|c| of(c) as f32).collect::<Vec<_>>().into();
    let of_token = |of: fn(&Standing) -> f32| standings().map(of).collect::<Vec<_>>().into();
    let of_top = |of: fn(&Predicted) -> f32| top().map(of).collect::<Vec<_>>().into();
    NativeLens {
        states,
        row_prompt: column(&lensed.rows, |row| row.prompt),
        row_position: column(&lensed.rows, |row| row.position),
        id_offsets: offsets_of(&ids),
        ids: ids.concat().into(),
        measured: of_row(|c| c.measured),
        tolerance: of_row(|c| c.tolerance),
        token_logits: of_token(|s| s.logit),
        token_ranks: standings().map(|s| s.rank).collect::<Vec<_>>().into(),
        token_log_probabilities: of_token(|s| s.log_probability),
        top_ids: top().map(|p| p.token).collect::<Vec<_>>().into(),
        top_logits: of_top(|p| p.logit),
        top_probabilities: of_top(|p| p.probability),
        values: lensed.values.into(),
        target_tokens: targets.tokens,
        target_weights: targets.weights,
        target_offsets: targets.offsets,
        target_mean: targets.mean,
    }
}

/// The tokens that components raise and lower most.
#[napi(object)]
pub struct NativeTopTokens {
    pub components: Vec<NativeComponent>,
    pub row_prompt: Uint32Array,
    pub row_position: Uint32Array,
    pub ids: Uint32Array,
    pub id_offsets: Uint32Array,
    /// [rows, components, 2, k]: raised, most first, then lowered, most first
    pub tokens: Uint32Array,
    pub values: Float32Array,
}

pub fn top_tokens((ids, (columns, result)): Ran<(Vec<Component>, TopTokens)>) -> NativeTopTokens {
    let scored: Vec<&Scored> = result.raised.iter().zip(&result.lowered).flat_map(|(r, l)| r.iter().chain(l)).collect();
    NativeTopTokens {
        components: components(columns),
        row_prompt: column(&result.rows, |row| row.prompt),
        row_position: column(&result.rows, |row| row.position),
        id_offsets: offsets_of(&ids),
        ids: ids.concat().into(),
        tokens: scored.iter().map(|s| s.token).collect::<Vec<_>>().into(),
        values: scored.iter().map(|s| s.value).collect::<Vec<_>>().into(),
    }
}

/// Directions at a point of the stream.
#[napi(object)]
pub struct NativeProbe {
    pub components: Vec<NativeComponent>,
    pub row_prompt: Uint32Array,
    pub row_position: Uint32Array,
    pub ids: Uint32Array,
    pub id_offsets: Uint32Array,
    /// [rows, directions, components]
    pub values: Float32Array,
    /// both sides of the certificate and its tolerance, [rows, directions] each
    pub total: Float32Array,
    pub measured: Float32Array,
    pub tolerance: Float32Array,
    pub violations: u32,
}

pub fn probe((ids, (columns, probed)): Ran<(Vec<Component>, Probed)>) -> NativeProbe {
    let list =
        |of: fn(&Certificate) -> f64| probed.certificates.iter().map(|c| of(c) as f32).collect::<Vec<_>>().into();
    NativeProbe {
        components: components(columns),
        row_prompt: column(&probed.rows, |row| row.prompt),
        row_position: column(&probed.rows, |row| row.position),
        id_offsets: offsets_of(&ids),
        ids: ids.concat().into(),
        total: list(|c| c.total),
        measured: list(|c| c.measured),
        tolerance: list(|c| c.tolerance),
        violations: violations(&probed.certificates),
        values: probed.values.into(),
    }
}
