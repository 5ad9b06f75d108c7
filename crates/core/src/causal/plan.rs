//! Where components are replaced, and what has to be computed again: from the first changed position of a prompt to the
//! last wanted one. What lies before is the clean run's, whose keys and values are borrowed.

use crate::batch::{KeyValues, Past};
use crate::chunk::{Chunk, Observed, Prompted, Row};
use crate::config::ModelConfig;
use crate::error::Result;
use crate::hook::{BlockPoint, HookPoint};
use crate::model::Transformer;
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

/// One prompt of a plan.
#[derive(Debug, Clone)]
pub struct Planned {
    /// The rows that are asked for: positions, rising.
    pub wanted: Vec<usize>,
    /// The positions of the change; without them each row's own.
    pub changed: Option<Vec<usize>>,
}

/// What is run of every prompt, and what is asked of it.
pub struct Plan {
    /// Prompts and the positions that the clean run keeps: what is asked for, and what is computed again.
    pub prompts: Vec<Prompted>,
    /// What is asked of each.
    pub planned: Vec<Planned>,
}

impl Plan {
    /// The plan of prompts and their wanted positions; `changed`: where components of a prompt (its index and length) are
    /// replaced, `None` for each row's own position.
    ///
    /// # Errors
    /// Those of `changed`.
    pub fn new(prompts: Vec<Prompted>, changed: impl Fn(usize, usize) -> Result<Option<Vec<usize>>>) -> Result<Self> {
        let mut plan = Plan { prompts: Vec::new(), planned: Vec::new() };
        for (i, prompt) in prompts.into_iter().enumerate() {
            let planned = Planned { changed: changed(i, prompt.ids.len())?, wanted: prompt.positions };
            let again = planned.again().unwrap_or(0..0);
            let positions: BTreeSet<usize> = planned.wanted.iter().copied().chain(again).collect();
            plan.prompts.push(Prompted::new(prompt.ids, positions.into_iter().collect()));
            plan.planned.push(planned);
        }
        Ok(plan)
    }
}

impl Planned {
    /// The positions to compute again together; `None` where every row is on its own, or nothing changes up to the last row.
    fn again(&self) -> Option<Range<usize>> {
        let (first, last) = (*self.changed.as_ref()?.first()?, *self.wanted.last()?);
        (first <= last).then_some(first..last + 1)
    }
}

/// Consecutive positions of a prompt that are computed again.
pub(super) struct Site {
    /// Index in the chunk.
    pub prompt: usize,
    /// Which positions.
    pub positions: Range<usize>,
    /// Where the first of them lies among the kept rows.
    pub kept: usize,
    /// Whether a component is replaced there, position by position.
    pub changed: Vec<bool>,
    /// The wanted rows among them: number of the row, and of the kept row.
    pub wanted: Vec<(usize, usize)>,
}

/// One prompt of a chunk, its plan, and where its kept rows lie.
struct Part<'a> {
    /// Index in the chunk.
    prompt: usize,
    planned: &'a Planned,
    /// The kept positions, and the kept row of the first.
    positions: &'a [usize],
    first: usize,
}

impl Part<'_> {
    /// The kept row of a position.
    fn kept(&self, position: usize) -> usize {
        self.first + self.positions.partition_point(|p| *p < position)
    }
}

fn parts<'a>(chunk: Chunk<'a>, planned: &'a [Planned]) -> Vec<Part<'a>> {
    let mut first = 0;
    let part = |(prompt, (prompted, planned)): (usize, (&'a Prompted, &'a Planned))| {
        let part = Part { prompt, planned, positions: &prompted.positions, first };
        first += prompted.positions.len();
        part
    };
    chunk.prompts.iter().zip(chunk.part(planned)).enumerate().map(part).collect()
}

/// The wanted rows of a chunk, and the number of each among those that its clean run keeps.
pub(super) fn rows(chunk: Chunk, planned: &[Planned]) -> (Vec<Row>, Vec<u32>) {
    let mut rows = (Vec::new(), Vec::new());
    for part in parts(chunk, planned) {
        for position in &part.planned.wanted {
            rows.0.push(Row { prompt: chunk.first + part.prompt, position: *position });
            rows.1.push(part.kept(*position) as u32);
        }
    }
    rows
}

/// What is computed again of a chunk.
pub(super) fn sites(chunk: Chunk, planned: &[Planned]) -> Vec<Site> {
    let (mut sites, mut row) = (Vec::new(), 0);
    for part in parts(chunk, planned) {
        let (prompt, planned) = (part.prompt, part.planned);
        let first_row = row;
        row += planned.wanted.len();
        let numbered = planned.wanted.iter().enumerate().map(|(i, position)| (first_row + i, *position));
        match (&planned.changed, planned.again()) {
            (None, _) => sites.extend(numbered.map(|(row, position)| Site {
                prompt,
                positions: position..position + 1,
                kept: part.kept(position),
                changed: vec![true],
                wanted: vec![(row, part.kept(position))],
            })),
            (Some(changed), Some(positions)) => sites.push(Site {
                prompt,
                kept: part.kept(positions.start),
                changed: positions.clone().map(|p| changed.binary_search(&p).is_ok()).collect(),
                wanted: numbered.filter(|(_, p)| positions.contains(p)).map(|(row, p)| (row, part.kept(p))).collect(),
                positions,
            }),
            (Some(_), None) => {}
        }
    }
    sites
}

/// The points of keys as the scores use them, and of values.
pub(crate) fn keys_and_values(config: &ModelConfig) -> BTreeSet<HookPoint> {
    let points = [key_point(config), BlockPoint::V];
    (0..config.n_layers).flat_map(|l| points.map(|point| HookPoint::Block(l, point))).collect()
}

fn key_point(config: &ModelConfig) -> BlockPoint {
    if config.turns_queries_and_keys() { BlockPoint::RotK } else { BlockPoint::K }
}

/// What a site's runs have in common: their tokens, and what lies before.
pub(super) struct SitePast {
    pub ids: Vec<u32>,
    pub past: Past,
}

/// Of every site.
pub(super) fn pasts(model: &Transformer, observed: &Observed, sites: &[Site], chunk: Chunk) -> Result<Vec<SitePast>> {
    let of_site = |site: &Site| {
        let past = stored(model, observed, chunk, site.prompt, site.positions.start)?;
        let ids = chunk.prompts[site.prompt].ids[site.positions.clone()].to_vec();
        Ok(SitePast { ids, past: Past::Stored(Arc::new(past)) })
    };
    sites.iter().map(of_site).collect()
}

/// Keys and values of a prompt's first positions, from a run that kept them everywhere.
///
/// # Errors
/// `INTERNAL` where it did not.
pub(crate) fn stored(
    model: &Transformer,
    observed: &Observed,
    chunk: Chunk,
    prompt: usize,
    length: usize,
) -> Result<KeyValues> {
    let span = &observed.spans[prompt];
    let of = |l, point| -> Result<_> {
        Ok(observed.activations.kept(HookPoint::Block(l, point))?.narrow(0, span.start, span.len())?)
    };
    let key = key_point(&model.config);
    let layers = (0..model.config.n_layers).map(|l| Ok((of(l, key)?, of(l, BlockPoint::V)?)));
    let layers = layers.collect::<Result<Vec<_>>>()?;
    Ok(KeyValues { layers, length, prompt_length: chunk.prompts[prompt].ids.len() })
}
