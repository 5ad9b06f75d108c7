//! Interventions as JavaScript gives them.

use crate::inputs::{self, NativePositions, NativePrompt, one_of};
use logit_prism_core::PrismError;
use logit_prism_core::cache::{Axis, Cache};
use logit_prism_core::session::{Intervention, Interventions, Lists, Reference, Set};
use napi::bindgen_prelude::*;
use napi_derive::napi;
use std::sync::Arc;

/// One intervention. With `set: 'scale'` there is `scale`, with `'add'` `add`; with `'mean'` `axis` and either
/// `reference` or `run`; with `'from'` `run`, `prompt` and perhaps `fromPositions`.
#[napi(object)]
pub struct NativeIntervention {
    pub at: String,
    pub head: Option<u32>,
    pub neuron: Option<u32>,
    pub positions: NativePositions,
    #[napi(ts_type = "'zero' | 'scale' | 'add' | 'mean' | 'from'")]
    pub set: String,
    pub scale: Option<f64>,
    pub add: Option<Float32Array>,
    #[napi(ts_type = "'all' | 'position'")]
    pub axis: Option<String>,
    pub reference: Option<u32>,
    pub run: Option<u32>,
    pub prompt: Option<u32>,
    pub from_positions: Option<NativePositions>,
}

/// Interventions for every prompt, or prompt by prompt; the prompts that `reference` counts.
#[napi(object)]
pub struct NativeInterventions {
    pub for_all: Option<Vec<NativeIntervention>>,
    pub per_prompt: Option<Vec<Vec<NativeIntervention>>>,
    pub references: Vec<Vec<NativePrompt>>,
}

type Parsed<T> = logit_prism_core::Result<T>;

/// `runs` are those that `run` counts.
pub fn interventions(given: NativeInterventions, runs: Vec<Arc<Cache>>) -> Parsed<Interventions> {
    let list = |list: Vec<NativeIntervention>| list.into_iter().map(intervention).collect::<Parsed<Vec<_>>>();
    let lists = match given.per_prompt {
        Some(lists) => Lists::PerPrompt(lists.into_iter().map(list).collect::<Parsed<_>>()?),
        None => Lists::ForAll(list(given.for_all.unwrap_or_default())?),
    };
    let prompts = |list: Vec<NativePrompt>| list.into_iter().map(inputs::prompt).collect();
    Ok(Interventions { lists, runs, references: given.references.into_iter().map(prompts).collect() })
}

fn intervention(given: NativeIntervention) -> Parsed<Intervention> {
    let missing = |key: &str| PrismError::argument(format!("set.{key}"), "nothing", "a value");
    let set = match given.set.as_str() {
        "zero" => Set::Zero,
        "scale" => Set::Scale(given.scale.ok_or_else(|| missing("scale"))?),
        "add" => Set::Add(given.add.ok_or_else(|| missing("add"))?.to_vec()),
        "mean" => {
            let axes = [("all", Axis::All), ("position", Axis::Position)];
            let axis = one_of("axis", given.axis.as_deref().unwrap_or_default(), &axes)?;
            let reference = given.reference.map(|i| Reference::Prompts(i as usize));
            let run = || given.run.map(|i| Reference::Run(i as usize));
            Set::Mean(reference.or_else(run).ok_or_else(|| missing("mean"))?, axis)
        }
        "from" => Set::From {
            run: given.run.ok_or_else(|| missing("from"))? as usize,
            prompt: given.prompt.ok_or_else(|| missing("prompt"))? as usize,
            positions: given.from_positions.map(inputs::positions).transpose()?,
        },
        other => return Err(PrismError::argument("set", format!("'{other}'"), "zero, scale, add, mean or from")),
    };
    Ok(Intervention {
        at: given.at,
        head: given.head.map(|h| h as usize),
        neuron: given.neuron.map(|n| n as usize),
        positions: inputs::positions(given.positions)?,
        set,
    })
}
