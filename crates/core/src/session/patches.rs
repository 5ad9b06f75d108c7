//! Calls that put values of one run into another: pairs of prompts, one clean and one corrupted.

use super::Session;
use super::asked::Asked;
use super::calls::ids_of;
use super::causes::{branching_bytes, kept_bytes};
use super::declared::in_order;
use crate::attribution::{Component, Kind, Target, Unit};
use crate::chunk::{Chunk, Prompted, n_rows};
use crate::config::ModelConfig;
use crate::error::{PrismError, Result};
use crate::memory;
use crate::patch::{self, Pairs, Patched, Patching, Paths, Place, Receiver, Spots};
use crate::rows::Positions;
use crate::run::{self, Job, Work};
use crate::suggest::nearest;
use crate::tokenizer::{Prompt, Token};

/// What every call of patching says.
#[derive(Debug, Clone)]
pub struct PairsCall {
    /// The clean prompts; one position of each, where the target is read.
    pub clean: Asked,
    /// The corrupted prompts, one for each.
    pub corrupt: Vec<Prompt>,
    /// One target for all pairs, or one per pair; tokens are resolved behind the clean prompt.
    pub targets: Vec<Target<Token>>,
    /// What is patched: positions of the clean prompts.
    pub positions: Positions,
    /// The positions of the corrupted prompts that belong to those, in their order; the same choice without.
    pub corrupt_positions: Option<Positions>,
}

/// A call of [`Session::patch`].
#[derive(Debug, Clone)]
pub struct PatchCall {
    /// Prompts, targets, positions.
    pub pairs: PairsCall,
    /// Axes.
    pub patching: Patching,
    /// Corrupted values into the clean run, not clean values into the corrupted one.
    pub noising: bool,
}

/// A call of [`Session::patch_paths`].
#[derive(Debug, Clone)]
pub struct PathsCall {
    /// Prompts, targets, positions.
    pub pairs: PairsCall,
    /// Labels of senders; without, every head, MLP and embedding that all receivers read.
    pub from: Option<Vec<String>>,
    /// Labels of receivers.
    pub to: Vec<String>,
    /// One sender at a time, not all together.
    pub each: bool,
    /// Whether the MLPs between are computed again.
    pub through_mlps: bool,
}

/// What was run, where it was patched, and what came of it.
#[derive(Debug)]
pub struct Swept {
    /// Ids of the clean prompts.
    pub clean: Vec<Vec<u32>>,
    /// Ids of the corrupted prompts.
    pub corrupt: Vec<Vec<u32>>,
    /// Patched positions of every pair: of the clean prompt, rising, and of the corrupted one.
    pub positions: Vec<Vec<(usize, usize)>>,
    /// The row of every pair: in the clean prompt and in the corrupted one.
    pub rows: Vec<(usize, usize)>,
    /// The numbers.
    pub patched: Patched,
}

/// Pairs as ids.
struct Prepared {
    clean: Vec<Prompted>,
    corrupt: Vec<Prompted>,
    positions: Vec<Vec<(usize, usize)>>,
    targets: Vec<Target>,
}

impl Session {
    /// Activation patching: every layer, and every head or position if asked for, one at a time.
    ///
    /// # Errors
    /// Those of tokenising, of targets and of the forward pass; `INVALID_ARGUMENT` for pairs that do not fit.
    pub fn patch(&self, call: &PatchCall, job: &Job) -> Result<Swept> {
        self.guarded(|| {
            let PatchCall { patching, noising, .. } = *call;
            if patching.by_head && patching.at != Place::Z {
                return Err(PrismError::argument("over", "'head' where there are no heads", "at: 'z' with it"));
            }
            let prepared = self.pairs(&call.pairs, job)?;
            let config = &self.transformer.config;
            let numbers = prepared.positions.iter().map(|p| patching.numbers(config, p.len())).sum();
            self.swept(&call.pairs, prepared, noising, numbers, job, |chunk, pairs| {
                patch::sweep(&self.transformer, chunk, pairs, &patching, job.cancel)
            })
        })
    }

    /// Path patching from the corrupted run into the clean one. Returns the sets of senders besides, in the order of the
    /// numbers, and the receivers.
    ///
    /// # Errors
    /// As [`Session::patch`]; `INVALID_ARGUMENT` for labels that the model does not have, and receivers that do not read what
    /// senders write.
    pub fn patch_paths(&self, call: &PathsCall, job: &Job) -> Result<(Vec<Component>, Vec<Receiver>, Swept)> {
        self.guarded(|| {
            let config = &self.transformer.config;
            let receivers = Receiver::parse(&call.to, config)?;
            let senders = senders(call, &receivers, config)?;
            let prepared = self.pairs(&call.pairs, job)?;
            let sets = if call.each { senders.iter().map(|s| vec![*s]).collect() } else { vec![senders.clone()] };
            let paths = Paths { senders: sets, receivers, through_mlps: call.through_mlps };
            let numbers = paths.senders.len() * prepared.clean.len();
            let swept = self.swept(&call.pairs, prepared, true, numbers, job, |chunk, pairs| {
                patch::paths(&self.transformer, chunk, pairs, &paths, job.cancel)
            })?;
            Ok((senders, paths.receivers, swept))
        })
    }

    /// Pairs as ids, and what is patched of them.
    fn pairs(&self, call: &PairsCall, job: &Job) -> Result<Prepared> {
        let clean = self.prepare(&call.clean, job)?;
        if call.corrupt.len() != clean.len() {
            let expected = format!("{}: one for each clean prompt", clean.len());
            return Err(PrismError::argument("corrupt", format!("{} prompts", call.corrupt.len()), expected));
        }
        let corrupt = self.prepare(&Asked { prompts: call.corrupt.clone(), ..call.clean.clone() }, job)?;
        if let Some((prompt, row)) = clean.iter().enumerate().find(|(_, prompt)| prompt.positions.len() != 1) {
            let found = format!("{} positions of prompt {prompt}", row.positions.len());
            return Err(PrismError::argument("position", found, "one position of every prompt"));
        }
        call.positions.check(clean.len())?;
        let chosen = call.corrupt_positions.as_ref().unwrap_or(&call.positions);
        chosen.check(clean.len())?;
        let of_pair = |(i, (clean, corrupt)): (usize, (&Prompted, &Prompted))| {
            let (n, m) = (clean.ids.len(), corrupt.ids.len());
            if n != m && (call.positions == Positions::All || *chosen == Positions::All) {
                let found = format!("prompt {i} of {m} tokens for a clean one of {n}");
                return Err(PrismError::argument("corrupt", found, "as many tokens, or positions that are named"));
            }
            // refuses those that are out of range or stand twice
            call.positions.of(i, n)?;
            chosen.of(i, m)?;
            let (of, from) = (in_order(&call.positions, i, n)?, in_order(chosen, i, m)?);
            if of.len() != from.len() || of.is_empty() {
                let found = format!("{} positions of prompt {i} for {} of the clean one", from.len(), of.len());
                return Err(PrismError::argument("corruptPositions", found, "one for each, and at least one"));
            }
            let mut pairs: Vec<(usize, usize)> = of.into_iter().zip(from).collect();
            pairs.sort_unstable();
            Ok(pairs)
        };
        let positions = clean.iter().zip(&corrupt).enumerate().map(of_pair).collect::<Result<_>>()?;
        let targets = self.targets(&call.targets, &call.clean.prompts)?;
        Ok(Prepared { clean, corrupt, positions, targets })
    }

    /// Runs the pairs; `noising`: the clean runs are the ones that are patched.
    fn swept(
        &self,
        call: &PairsCall,
        prepared: Prepared,
        noising: bool,
        numbers: usize,
        job: &Job,
        each: impl Fn(Chunk, &Pairs) -> Result<Patched> + Sync,
    ) -> Result<Swept> {
        let Prepared { clean, corrupt, positions, targets } = prepared;
        let rows: Vec<(usize, usize)> =
            clean.iter().zip(&corrupt).map(|(clean, corrupt)| (clean.positions[0], corrupt.positions[0])).collect();
        let spots = |((row, other), positions): (&(usize, usize), &Vec<(usize, usize)>)| {
            let swapped = |(clean, corrupt): &(usize, usize)| (*corrupt, *clean);
            if noising {
                return Spots { row: *row, source_row: *other, positions: positions.clone() };
            }
            let mut positions: Vec<_> = positions.iter().map(swapped).collect();
            positions.sort_unstable();
            Spots { row: *other, source_row: *row, positions }
        };
        let spots: Vec<Spots> = rows.iter().zip(&positions).map(spots).collect();
        let ids = (ids_of(clean), ids_of(corrupt));
        let (base, source) = if noising { (&ids.0, &ids.1) } else { (&ids.1, &ids.0) };
        let of_spots = |ids: &[Vec<u32>], kept: fn(&Spots) -> Vec<usize>| -> Vec<Prompted> {
            ids.iter().zip(&spots).map(|(ids, spots)| Prompted::new(ids.clone(), kept(spots))).collect()
        };
        let (base, source) = (of_spots(base, Spots::of_base), of_spots(source, Spots::of_source));
        // what a source run keeps, per number that a base run keeps
        let ratio = base.iter().zip(&source).map(|(b, s)| s.ids.len().div_ceil(b.ids.len())).max().unwrap_or(1) as u64;
        let pairs = Pairs { base, source, spots, targets, base_is_clean: noising };
        let work = Work {
            prompts: &pairs.base,
            chunk_tokens: call.clean.chunk_tokens(self.device),
            purpose: "the patches",
            result_bytes: 8 * numbers as u64,
            is_merged: true,
            chunk_bytes: &|chunk| {
                let (model, lengths) = (&self.transformer, chunk.iter().map(|p| p.ids.len()).collect::<Vec<_>>());
                let (rows, longest) = (n_rows(chunk), chunk.iter().map(|p| p.positions.len()).max().unwrap_or(0));
                let source = kept_bytes(&model.config, rows) + memory::forward_of(model, &lengths, rows);
                branching_bytes(model, chunk, numbers * longest) + ratio * source
            },
        };
        let parts = run::over_chunks(&self.place(), &work, job, |chunk| each(chunk, &pairs))?;
        let patched = run::merged(parts, Patched::append);
        Ok(Swept { clean: ids.0, corrupt: ids.1, positions, rows, patched })
    }
}

/// The components that a call names, in the order of the forward pass, each read by every receiver.
fn senders(call: &PathsCall, receivers: &[Receiver], config: &ModelConfig) -> Result<Vec<Component>> {
    let writers = |unit| Component::all(unit, config).into_iter().filter(|c| c.kind != Kind::AttnBias);
    let mut known: Vec<Component> = writers(Unit::Head).collect();
    let is_read = |sender: &Component| receivers.iter().all(|receiver| receiver.reads(sender, config));
    let Some(labels) = &call.from else {
        known.retain(is_read);
        return Ok(known);
    };
    known.extend(writers(Unit::Layer).filter(|c| c.kind == Kind::Attn));
    let refused = |found: String, expected: String| Err(PrismError::argument("from", found, expected));
    let mut senders = Vec::<Component>::new();
    for label in labels {
        let Some(sender) = known.iter().find(|c| c.label() == *label) else {
            let nearest = nearest(label, known.iter().map(Component::label)).join(", ");
            return refused(
                format!("'{label}'"),
                format!("embeddings, heads, 'L0 attn' or 'L0 mlp'; nearest: {nearest}"),
            );
        };
        if let Some(other) = senders.iter().find(|other| overlap(other, sender) && (!call.each || *other == sender)) {
            return refused(format!("'{}' and '{label}'", other.label()), "each write once".into());
        }
        if let Some(receiver) = receivers.iter().find(|receiver| !receiver.reads(sender, config)) {
            let reason =
                format!("senders that lie before '{}', which does not read what '{label}' writes", receiver.label());
            return refused(format!("'{label}'"), reason);
        }
        senders.push(*sender);
    }
    match senders.is_empty() {
        true => refused("an empty list".into(), "at least one component".into()),
        false => Ok(senders),
    }
}

/// Whether two components are one, or one is a head of the other.
fn overlap(a: &Component, b: &Component) -> bool {
    let attends = |c: &Component| matches!(c.kind, Kind::Head | Kind::Attn);
    a == b || (a.layer == b.layer && attends(a) && attends(b) && (a.kind == Kind::Attn || b.kind == Kind::Attn))
}
