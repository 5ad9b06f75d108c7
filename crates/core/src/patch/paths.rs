//! Path patching: receivers read `x + Σ_senders (c_source − c_base)`, x their stream in the base run. So what the senders write
//! differently reaches them along the direct path; then they compute from it, and everything behind them from what they
//! write. Nothing between senders and receivers moves; with `through_mlps`, as Wang et al. (2022) have it, the MLPs between
//! them do, and every attention writes what it writes in the base run, but for heads that are senders.

use super::branch::{Branch, Branches};
use super::receiver::Receiver;
use super::runs::{Runs, Side};
use super::{Pairs, Patched, Spots};
use crate::attribution::{Component, Kind};
use crate::batch::Entry;
use crate::cancel::Cancel;
use crate::chunk::Chunk;
use crate::error::{PrismError, Result};
use crate::hook::{BlockPoint, HookPoint};
use crate::intervene::{Action, Cells, Edit, select, set_cells};
use crate::model::Transformer;
use crate::ops;
use candle_core::Tensor;
use std::collections::BTreeSet;
use std::ops::Range;

/// Which paths.
pub struct Paths {
    /// Senders that write together, a set for every number of the result; no two of a set contain one another.
    pub senders: Vec<Vec<Component>>,
    /// What reads, in the order of the forward pass, each behind all senders.
    pub receivers: Vec<Receiver>,
    /// Whether the MLPs between them are computed again.
    pub through_mlps: bool,
}

/// What the senders write differently, received: one number for every set of senders and pair of the chunk.
///
/// # Errors
/// Those of the forward pass and of targets.
pub fn paths(model: &Transformer, chunk: Chunk, pairs: &Pairs, asked: &Paths, cancel: &Cancel) -> Result<Patched> {
    use BlockPoint::*;
    let of_block = |l| [ResidPre, AttnOut, MlpOut, Z, Ln1PostScale].map(|point| HookPoint::Block(l, point));
    let points = || {
        let blocks = (0..model.config.n_layers).flat_map(of_block);
        blocks.chain([HookPoint::Embed, HookPoint::PosEmbed]).collect::<BTreeSet<_>>()
    };
    let runs = Runs::new(model, chunk, pairs, [points(), points()], cancel)?;
    let mut branches = Branches::new(&runs, |_| asked.senders.len());
    if !runs.patched.is_empty() {
        for (i, senders) in asked.senders.iter().enumerate() {
            cancel.check()?;
            let differences = match asked.through_mlps {
                true => through_mlps(&runs, asked, senders, &mut branches)?,
                false => {
                    let difference = sum(&runs, senders)?;
                    asked.receivers.iter().map(|_| difference.clone()).collect()
                }
            };
            receive(&runs, asked, i, &differences, &mut branches)?;
        }
    }
    branches.flush()?;
    let values = branches.found;
    Ok(runs.patched(pairs.base_is_clean, values))
}

/// `Σ (c_source − c_base)` at the patched rows, [patched, d_model].
fn sum(runs: &Runs, senders: &[Component]) -> Result<Tensor> {
    let mut all: Option<Tensor> = None;
    for sender in senders {
        let difference = (write(runs, sender, false)? - write(runs, sender, true)?)?;
        all = Some(all.map_or(Ok(difference.clone()), |all| all + &difference)?);
    }
    all.ok_or_else(|| PrismError::argument("from", "an empty list", "at least one component"))
}

/// What a component writes at the patched rows, in the base run or the source run, [patched, d_model].
fn write(runs: &Runs, sender: &Component, of_base: bool) -> Result<Tensor> {
    let side: &Side = if of_base { &runs.base } else { &runs.source };
    let at_rows = |value: &Tensor| if of_base { runs.of_base(value) } else { runs.of_source(value) };
    let layer = sender.layer.unwrap_or_default();
    let block = &runs.model.blocks[layer];
    match (sender.kind, sender.index) {
        (Kind::Embed, _) => at_rows(side.observed.activations.kept(HookPoint::Embed)?),
        (Kind::PosEmbed, _) => at_rows(side.observed.activations.kept(HookPoint::PosEmbed)?),
        (Kind::Head, Some(h)) => {
            let z = side.at(layer, BlockPoint::Z)?.narrow(1, h, 1)?.squeeze(1)?;
            let write = block.attention.head_result(&at_rows(&z)?, h, runs.model.kernels)?;
            let write = match &block.ln1_post {
                Some(post) => post.linear_part(&write, &at_rows(side.at(layer, BlockPoint::Ln1PostScale)?)?)?,
                None => write,
            };
            Ok((write * block.multiplier)?)
        }
        (Kind::Attn, _) => at_rows(side.at(layer, BlockPoint::AttnOut)?),
        _ => at_rows(side.at(layer, BlockPoint::MlpOut)?),
    }
}

/// The base run's stream at a place, [kept, d_model].
fn stream(runs: &Runs, at: Entry) -> Result<Tensor> {
    use BlockPoint::*;
    let last = runs.model.config.n_layers;
    let (base, layer) = (&runs.base, at.layer.min(last - 1));
    let resid_pre = base.at(layer, ResidPre)?;
    if !at.behind_attention && at.layer < last {
        return Ok(resid_pre.clone());
    }
    let mid = ops::add(runs.model.kernels, resid_pre, base.at(layer, AttnOut)?)?;
    if at.behind_attention { Ok(mid) } else { ops::add(runs.model.kernels, &mid, base.at(layer, MlpOut)?) }
}

/// The rows of every pair among the patched ones.
fn patched_rows<'a>(runs: &'a Runs) -> impl Iterator<Item = (usize, Range<usize>)> + 'a {
    let mut end = 0;
    runs.spots.iter().enumerate().map(move |(pair, spots)| {
        let start = end;
        end += spots.reaching().len();
        (pair, start..end)
    })
}

/// Runs in which the receivers read what they get: of each [patched, d_model].
fn receive(runs: &Runs, asked: &Paths, set: usize, differences: &[Tensor], branches: &mut Branches) -> Result<()> {
    let config = &runs.model.config;
    let at = asked.receivers.iter().map(|r| r.entry(config)).min().unwrap_or(Entry::before(config.n_layers));
    let entering = stream(runs, at)?;
    for (pair, rows) in patched_rows(runs).filter(|(_, rows)| !rows.is_empty()) {
        let spots = &runs.spots[pair];
        let positions: Vec<usize> = spots.reaching().iter().map(|(base, _)| *base).collect();
        let reads_row = positions.last() == Some(&spots.row);
        let is_behind = at.layer == config.n_layers;
        if is_behind && !reads_row {
            continue; // the logits of the row are read from the stream of the row
        }
        let first = if is_behind { spots.row } else { positions[0] };
        let (from, length) = (runs.base.kept(pair, first), spots.row + 1 - first);
        let mut branch = Branch {
            pair,
            first,
            at,
            stream: entering.narrow(0, from, length)?.force_contiguous()?,
            edits: Vec::new(),
        };
        for (receiver, difference) in asked.receivers.iter().zip(differences) {
            let received = difference.narrow(0, rows.start, rows.len())?;
            if *receiver != Receiver::Logits {
                let (point, index) = receiver.point(config);
                branch.edits.push(Edit { point, index, positions: positions.clone(), action: Action::Add(received) });
                continue;
            }
            if !reads_row {
                continue;
            }
            let last = received.narrow(0, rows.len() - 1, 1)?.contiguous()?;
            if is_behind {
                branch.stream = ops::add(runs.model.kernels, &branch.stream, &last)?;
            } else {
                let point = receiver.point(config).0;
                branch.edits.push(Edit { point, index: None, positions: vec![spots.row], action: Action::Add(last) });
            }
        }
        branches.push(branch, pair * asked.senders.len() + set)?;
    }
    Ok(())
}

/// For every receiver how its stream differs from the base run's where the senders write what they write in the source run,
/// every other attention what it writes in the base run, and MLPs what they compute: [patched, d_model].
fn through_mlps(runs: &Runs, asked: &Paths, senders: &[Component], branches: &mut Branches) -> Result<Vec<Tensor>> {
    let config = &runs.model.config;
    let start = senders.iter().map(|sender| sender.layer.unwrap_or(0)).min().unwrap_or(0);
    let embeddings: Vec<Component> = senders.iter().copied().filter(|sender| sender.layer.is_none()).collect();
    let entering = moved(runs, &stream(runs, Entry::before(start))?, &embeddings)?;
    let held = (start..config.n_layers).map(|l| Held::of(runs, l, senders)).collect::<Result<Vec<_>>>()?;
    let mut all = Vec::new();
    for (pair, rows) in patched_rows(runs).filter(|(_, rows)| !rows.is_empty()) {
        let (spots, first) = (&runs.spots[pair], runs.spots[pair].positions[0].0);
        let kept = runs.base.kept(pair, first);
        let kept = kept..kept + spots.row + 1 - first;
        let stream = entering.narrow(0, kept.start, kept.len())?.contiguous()?;
        let mut edits = Vec::new();
        for (l, held) in held.iter().enumerate() {
            held.edits(start + l, spots, kept.clone(), rows.clone(), &mut edits)?;
        }
        all.push(Branch { pair, first, at: Entry::before(start), stream, edits });
    }
    let points = asked.receivers.iter().map(|receiver| receiver.read(config)).collect();
    let (_, activations) = branches.forward(all, points, |branch| {
        runs.spots[branch.pair].reaching().iter().map(|(base, _)| base - branch.first).collect()
    })?;
    let of_receiver = |receiver: &Receiver| -> Result<Tensor> {
        let base = match receiver.read(config) {
            HookPoint::Block(l, BlockPoint::ResidMid) => stream(runs, Entry::behind_attention(l))?,
            HookPoint::Block(l, BlockPoint::ResidPre) => stream(runs, Entry::before(l))?,
            _ => stream(runs, Entry::before(config.n_layers))?,
        };
        Ok((activations.kept(receiver.read(config))? - runs.of_base(&base)?)?)
    };
    let rows: Vec<usize> = (0..runs.patched.len()).collect();
    asked.receivers.iter().map(|receiver| select(&of_receiver(receiver)?, &rows)).collect()
}

/// What a layer writes while only MLPs are computed again.
struct Held {
    /// Its attention: the base run's write, and what senders in it write differently, [kept, d_model].
    attention: Tensor,
    /// Its MLP where that is a sender, [patched, d_model].
    mlp: Option<Tensor>,
}

impl Held {
    fn of(runs: &Runs, l: usize, senders: &[Component]) -> Result<Self> {
        let (mlps, heads): (Vec<Component>, Vec<Component>) =
            senders.iter().filter(|sender| sender.layer == Some(l)).partition(|sender| sender.kind == Kind::Mlp);
        let attention = moved(runs, runs.base.at(l, BlockPoint::AttnOut)?, &heads)?;
        Ok(Held { attention, mlp: mlps.first().map(|mlp| write(runs, mlp, false)).transpose()? })
    }

    /// As edits of one pair; `kept` are its rows among the kept ones, `patched` those among the patched ones.
    fn edits(
        &self,
        l: usize,
        spots: &Spots,
        kept: Range<usize>,
        patched: Range<usize>,
        edits: &mut Vec<Edit>,
    ) -> Result<()> {
        let positions: Vec<usize> = spots.reaching().iter().map(|(base, _)| *base).collect();
        let replace = |point, positions, values: Tensor| {
            let action = Action::Replace(values.contiguous()?);
            Result::Ok(Edit { point: HookPoint::Block(l, point), index: None, positions, action })
        };
        let every = (spots.row + 1 - kept.len()..=spots.row).collect();
        let attention = self.attention.narrow(0, kept.start, kept.len())?;
        edits.push(replace(BlockPoint::AttnOut, every, attention)?);
        if let Some(mlp) = &self.mlp {
            edits.push(replace(BlockPoint::MlpOut, positions, mlp.narrow(0, patched.start, patched.len())?)?);
        }
        Ok(())
    }
}

/// A value of the base run [kept, d_model], and at the patched rows what senders write differently.
fn moved(runs: &Runs, value: &Tensor, senders: &[Component]) -> Result<Tensor> {
    let moved = value.force_contiguous()?;
    if !senders.is_empty() {
        let kept: Vec<usize> = runs.patched.iter().map(|(base, _)| *base as usize).collect();
        let whole = Cells { cells: 1, width: moved.dim(1)? };
        set_cells(&moved, whole, &kept, None, &(runs.of_base(value)? + sum(runs, senders)?)?)?;
    }
    Ok(moved)
}
