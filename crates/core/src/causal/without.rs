//! What is left of a target where whole sets of components are replaced at every position: a circuit is what remains when
//! everything else is gone. Every set is a run of its own, with an edit wherever one of its components writes; the runs of
//! many sets go through the model together.

use super::plan::{self, Planned};
use super::reference::{Replacement, Values};
use crate::attribution::{Component, Kind, Resolved, Target, measure, resolve_rows};
use crate::cancel::Cancel;
use crate::chunk::{Chunk, Prompted, Row};
use crate::error::{PrismError, Result};
use crate::hook::{BlockPoint, HookPoint};
use crate::intervene::{Action, Edit};
use crate::model::Transformer;
use candle_core::{DType, Tensor};
use std::collections::BTreeSet;
use std::ops::Range;

/// What to replace together.
pub struct Removing {
    /// Sets of heads, MLPs and embeddings.
    pub sets: Vec<Vec<Component>>,
    /// What takes their place.
    pub replacement: Replacement,
    /// Runs are put together up to this many tokens.
    pub chunk_tokens: usize,
}

/// What is left of a target at some rows.
#[derive(Debug, Default)]
pub struct Without {
    /// What each row is.
    pub rows: Vec<Row>,
    /// What each row is about, resolved in the clean run.
    pub targets: Vec<Resolved>,
    /// F of the clean run, [rows].
    pub measured: Vec<f64>,
    /// F without each set, [rows, sets].
    pub left: Vec<f64>,
}

impl Without {
    /// Puts another part behind this one.
    pub fn append(&mut self, mut other: Without) {
        self.rows.append(&mut other.rows);
        self.targets.append(&mut other.targets);
        self.measured.append(&mut other.measured);
        self.left.append(&mut other.left);
    }
}

/// How many sets are run together with the prompts of a chunk.
pub fn sets_at_once(prompts: &[Prompted], chunk_tokens: usize) -> usize {
    (chunk_tokens / prompts.iter().map(|p| p.ids.len()).sum::<usize>().max(1)).max(1)
}

/// Runs the prompts of a chunk once as they are and once without every set; `planned` and `targets` hold one entry per
/// prompt of the call. The chunk's positions are all up to the last wanted one.
///
/// # Errors
/// Those of the forward pass and of targets.
pub fn without(
    model: &Transformer,
    chunk: Chunk,
    planned: &[Planned],
    targets: &[Target],
    asked: &Removing,
    cancel: &Cancel,
) -> Result<Without> {
    let (rows, _) = plan::rows(chunk, planned);
    if rows.is_empty() {
        return Ok(Without::default());
    }
    let planned = chunk.part(planned);
    let clean: Vec<Prompted> = chunk.prompts.iter().zip(planned).map(|(p, of)| wanted(p, of, Vec::new())).collect();
    let clean = Chunk { first: chunk.first, prompts: &clean };
    let output = clean.run(model, BTreeSet::new(), BTreeSet::new(), cancel)?.output;
    let targets = resolve_rows(&rows, clean, chunk.part(targets), &output, model)?;
    let measured = measure(&targets, &output, &model.unembed)?.iter().map(|m| m.value).collect();

    let places = Places::new(model, chunk, &asked.replacement)?;
    let mut left = vec![0.0; rows.len() * asked.sets.len()];
    let at_once = sets_at_once(chunk.prompts, asked.chunk_tokens);
    for (group, sets) in asked.sets.chunks(at_once).enumerate() {
        let mut prompts = Vec::with_capacity(sets.len() * chunk.prompts.len());
        for set in sets {
            for (i, (prompt, of)) in chunk.prompts.iter().zip(planned).enumerate() {
                prompts.push(wanted(prompt, of, places.edits(set, i, &prompt.positions)?));
            }
        }
        let output = together(model, chunk, &prompts, cancel)?;
        let repeated: Vec<Resolved> = sets.iter().flat_map(|_| targets.iter().cloned()).collect();
        for (i, found) in measure(&repeated, &output, &model.unembed)?.iter().enumerate() {
            let (set, row) = (group * at_once + i / rows.len(), i % rows.len());
            left[row * asked.sets.len() + set] = found.value;
        }
    }
    Ok(Without { rows, targets, measured, left })
}

fn wanted(prompt: &Prompted, planned: &Planned, edits: Vec<Edit>) -> Prompted {
    Prompted { ids: prompt.ids.clone(), positions: planned.wanted.clone(), edits }
}

/// Runs the prompts of a chunk several times over, each time with other edits.
fn together(model: &Transformer, chunk: Chunk, prompts: &[Prompted], cancel: &Cancel) -> Result<crate::model::Output> {
    let run = Chunk { first: 0, prompts }.run(model, BTreeSet::new(), BTreeSet::new(), cancel);
    let observed = run.map_err(|error| match error {
        PrismError::NotFinite { first, prompt } => {
            PrismError::NotFinite { first, prompt: chunk.first + prompt % chunk.prompts.len() }
        }
        other => other,
    })?;
    Ok(observed.output)
}

/// What takes the place of components in the prompts of a chunk.
struct Places<'a> {
    model: &'a Transformer,
    /// Of z and embeddings, at all positions of the chunk that change; `None` for zeros.
    values: Option<Values>,
    /// What the MLP of each layer writes in place of its own: [positions of the chunk, d_model], or [1, d_model] for all.
    mlps: Vec<Tensor>,
    /// Where the positions of each prompt lie.
    spans: Vec<Range<usize>>,
}

impl<'a> Places<'a> {
    fn new(model: &'a Transformer, chunk: Chunk, replacement: &Replacement) -> Result<Self> {
        let values = replacement.at(&chunk.rows(), chunk)?;
        let mlp = |layer: usize| {
            let raw = match &values {
                None => Tensor::zeros((1, model.config.d_model), DType::F32, &model.device)?,
                Some(values) => values.kept(HookPoint::Block(layer, BlockPoint::MlpOut))?.clone(),
            };
            Ok(model.blocks[layer].mlp_write(raw, model.kernels)?.0)
        };
        let mlps = (0..model.blocks.len()).map(mlp).collect::<Result<_>>()?;
        let mut end = 0;
        let span = |p: &Prompted| {
            let start = end;
            end += p.positions.len();
            start..end
        };
        Ok(Places { model, values, mlps, spans: chunk.prompts.iter().map(span).collect() })
    }

    /// The edits that replace a set of components in one prompt of the chunk.
    fn edits(&self, set: &[Component], prompt: usize, positions: &[usize]) -> Result<Vec<Edit>> {
        let mut edits = Vec::new();
        let mut push = |point, index, action| edits.push(Edit { point, index, positions: positions.into(), action });
        for (layer, block) in self.model.blocks.iter().enumerate() {
            let of_layer = |kind| set.iter().filter(move |c| c.layer == Some(layer) && c.kind == kind);
            let heads: Vec<usize> = of_layer(Kind::Head).filter_map(|c| c.index).collect();
            let z = HookPoint::Block(block.layer, BlockPoint::Z);
            if heads.len() == self.model.config.n_heads {
                push(z, None, self.value(z, None, prompt)?);
            } else {
                for h in heads {
                    push(z, Some(h), self.value(z, Some(h), prompt)?);
                }
            }
            if of_layer(Kind::Mlp).next().is_some() {
                let write = &self.mlps[layer];
                let write = if self.values.is_none() { write.clone() } else { self.of_prompt(write, prompt)? };
                push(HookPoint::Block(block.layer, BlockPoint::MlpOut), None, Action::Replace(write));
            }
        }
        for (kind, point) in [(Kind::Embed, HookPoint::Embed), (Kind::PosEmbed, HookPoint::PosEmbed)] {
            if set.iter().any(|c| c.kind == kind) {
                push(point, None, self.value(point, None, prompt)?);
            }
        }
        Ok(edits)
    }

    /// What takes the place of a value, or of one head of it.
    fn value(&self, point: HookPoint, head: Option<usize>, prompt: usize) -> Result<Action> {
        let Some(values) = &self.values else { return Ok(Action::Zero) };
        let all = self.of_prompt(values.kept(point)?, prompt)?;
        let one = head.map_or(Ok(all.clone()), |h| all.narrow(1, h, 1))?;
        Ok(Action::Replace(one.contiguous()?.flatten_from(1)?))
    }

    fn of_prompt(&self, values: &Tensor, prompt: usize) -> Result<Tensor> {
        let span = &self.spans[prompt];
        Ok(values.narrow(0, span.start, span.len())?)
    }
}
