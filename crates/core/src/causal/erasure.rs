//! Writer and eraser: how every component's write lies along the direction of one component's write, with that component
//! and without it. A component whose clean write points against the direction, and no longer does without the writer, removes what
//! it writes.

use super::change::{Clean, Own};
use super::{Ablating, Planned, branch_points, plan};
use crate::attribution::{Component, Depth, component_points, residual_stack};
use crate::batch::{Batch, Segment};
use crate::cancel::Cancel;
use crate::chunk::Chunk;
use crate::error::Result;
use crate::hook::{BlockPoint, HookPoint};
use crate::model::Transformer;
use crate::tap::{Activations, Capture, Tap};
use candle_core::{DType, Tensor};
use std::collections::{BTreeMap, BTreeSet};

/// Projections on the direction of a component's clean write c at one row.
#[derive(Debug)]
pub struct Erasure {
    /// |c|
    pub norm: f64,
    /// `c_j·c / |c|` of every component of the unit in the clean run.
    pub clean: Vec<f64>,
    /// The same after the component was replaced; what lies before it is unchanged.
    pub ablated: Vec<f64>,
}

/// At the one wanted row of a chunk of one prompt, for the one column that is asked for.
///
/// # Errors
/// Those of the forward pass.
pub fn erasure(
    model: &Transformer,
    chunk: Chunk,
    planned: &[Planned],
    asked: &Ablating,
    cancel: &Cancel,
) -> Result<Erasure> {
    let (_, kept) = plan::rows(chunk, planned);
    let sites = plan::sites(chunk, planned);
    let points = super::points(model).into_iter().chain(component_points(model, asked.unit)).collect();
    let observed = chunk.run(model, points, plan::keys_and_values(&model.config), cancel)?;
    let rows = Tensor::new(&kept[..], &model.device)?;
    let mut values = BTreeMap::new();
    for point in super::points(model) {
        values.insert(point, observed.activations.kept(point)?.index_select(&rows, 0)?);
    }
    let clean = writes(model, asked, &Activations::of(values.clone(), BTreeMap::new()))?;

    let state = Clean::new(model, chunk, &observed, &sites, &asked.replacement)?;
    let components = Component::all(asked.unit, &model.config);
    let pasts = plan::pasts(model, &observed, &sites, chunk)?;
    let column = asked.columns.first().copied().unwrap_or(0);
    let change = state.change(&components[column])?;
    for (site, past) in sites.iter().zip(&pasts) {
        let Some((_, kept)) = site.wanted.first() else { continue };
        let resume = Some(change.resume(site)?);
        let segment = Segment { ids: past.ids.clone(), past: Some(past.past.clone()), resume };
        let row = (kept - site.kept) as u32;
        let capture = Capture { points: branch_points(model), rows: vec![row], everywhere: BTreeSet::new() };
        let mut tap = Tap::new(&capture, cancel);
        model.forward(&Batch::new(vec![segment], &model.config)?, &mut tap)?;
        own_values(model, &change.own, *kept, &mut values)?;
        let behind = tap.finish();
        for (point, value) in &mut values {
            if let Some(changed) = behind.rows(*point).filter(|changed| changed.dims()[0] > 0) {
                *value = changed.clone();
            }
        }
    }
    let ablated = writes(model, asked, &Activations::of(values, BTreeMap::new()))?;

    let c = &clean[column];
    let norm = c.iter().map(|x| x * x).sum::<f64>().sqrt();
    let along = |write: &Vec<f64>| match norm > 0.0 {
        true => write.iter().zip(c).map(|(a, b)| a * b).sum::<f64>() / norm,
        false => 0.0,
    };
    Ok(Erasure { norm, clean: clean.iter().map(along).collect(), ablated: ablated.iter().map(along).collect() })
}

/// What every component wrote at the one row.
fn writes(model: &Transformer, asked: &Ablating, activations: &Activations) -> Result<Vec<Vec<f64>>> {
    let stack = residual_stack(model, activations, asked.unit, Depth::all(model))?;
    Ok(stack.squeeze(0)?.to_dtype(DType::F64)?.to_vec2()?)
}

/// Puts what the changed sublayer writes in the place of what it wrote. A bias that was taken off has no value of its own
/// and stays in the stack: nothing behind reads it from there.
fn own_values(model: &Transformer, own: &Own, kept: usize, values: &mut BTreeMap<HookPoint, Tensor>) -> Result<()> {
    let mut put = |point: HookPoint, all: &[f32]| -> Result<()> {
        if let Some(value) = values.get_mut(&point) {
            let width = value.elem_count();
            let row = all[kept * width..(kept + 1) * width].to_vec();
            *value = Tensor::from_vec(row, value.shape(), &model.device)?;
        }
        Ok(())
    };
    match own {
        Own::Embed { column, write } => put([HookPoint::Embed, HookPoint::PosEmbed][*column], write),
        Own::Mlp { layer, write } => put(HookPoint::Block(*layer, BlockPoint::MlpOut), write),
        Own::Attention { layer, z, scales, .. } => {
            put(HookPoint::Block(*layer, BlockPoint::Z), z)?;
            let scales: Vec<f32> = scales.iter().flatten().map(|s| *s as f32).collect();
            if scales.is_empty() { Ok(()) } else { put(HookPoint::Block(*layer, BlockPoint::Ln1PostScale), &scales) }
        }
    }
}
