//! Causes: what becomes of a target when a component is replaced and everything behind it is computed again.
//!
//! ```text
//! total     T = F − F′                                    F = Σ_t w_t logit_t; primes: the run after it
//! direct    D = (c − c′)·ũ / s                            zero ablation: its attribution
//! mediator  M_j = (c_j − c_j′)·ũ / s                      every other component j
//! norm      N = x′·ũ (1/s − 1/s′)                         the final norm, whose scale changes as well
//! T = D + Σ_j M_j + N                                     exactly: the certificate of every number here
//! ```
//!
//! A head is replaced at its z, an MLP at what it computes before a norm behind it, embeddings where they are added.
//! Nothing is computed twice: a run after a change enters the model behind the changed sublayer, and borrows the clean
//! run's keys and values of the positions before (plan.rs, change.rs); many such runs go through the model together.

mod change;
mod erasure;
mod plan;
mod read;
mod reference;
mod verdict;
mod without;

pub use erasure::{Erasure, erasure};
pub use plan::{Plan, Planned};
pub(crate) use plan::{keys_and_values, stored};
pub use reference::{Reference, Replacement, mean, of_prompts};
pub use verdict::Verdict;
pub use without::{Removing, Without, sets_at_once, without};

use crate::attribution::{
    Certificate, Component, Directions, OnViolation, Resolved, Target, Unit, certify_sums, fine_columns, measure,
    resolve_rows,
};
use crate::batch::{Batch, Segment};
use crate::cancel::Cancel;
use crate::chunk::{Chunk, Observed, Row};
use crate::error::{PrismError, Result};
use crate::hook::{BlockPoint, HookPoint};
use crate::model::{Output, Transformer};
use crate::tap::{Activations, Capture, Tap};
use candle_core::{Device, Tensor};
use change::{Change, Clean};
use plan::Site;
use read::Reader;
use std::collections::BTreeSet;

/// Rows that branch off the clean run and are computed together: enough for the full speed of matrix products, and on a
/// GPU to be worth starting its kernels.
pub fn branch_rows(device: &Device) -> usize {
    if device.is_cpu() { 640 } else { 4096 }
}

/// What to ablate, and how.
pub struct Ablating {
    /// What components are: heads or layers.
    pub unit: Unit,
    /// Which of them, rising.
    pub columns: Vec<usize>,
    /// What takes their place.
    pub replacement: Replacement,
    /// Whether a certificate that fails is an error.
    pub on_violation: OnViolation,
}

/// Causes at some rows.
#[derive(Debug, Default)]
pub struct Causal {
    /// What each row is.
    pub rows: Vec<Row>,
    /// What each row is about, resolved in the clean run.
    pub targets: Vec<Resolved>,
    /// F of the clean run, [rows].
    pub measured: Vec<f64>,
    /// Attributions of the clean run, [rows, components].
    pub attributions: Vec<f32>,
    /// D, [rows, ablated].
    pub direct: Vec<f32>,
    /// T, [rows, ablated].
    pub total: Vec<f32>,
    /// N, [rows, ablated].
    pub norm: Vec<f32>,
    /// M_j, 0 for the ablated component itself, [rows, ablated, components].
    pub mediators: Vec<f32>,
    /// What became of the direct effect, [rows, ablated].
    pub verdicts: Vec<Verdict>,
    /// `D + Σ M + N` and T, [rows, ablated]. The tolerance is that of the attributions of both runs:
    /// `1e-5 (1 + Σ_j |c_j·ũ/s| + Σ_j |c_j′·ũ/s|)`.
    pub certificates: Vec<Certificate>,
}

impl Causal {
    /// Puts another part behind this one.
    pub fn append(&mut self, mut other: Causal) {
        self.rows.append(&mut other.rows);
        self.targets.append(&mut other.targets);
        self.measured.append(&mut other.measured);
        self.attributions.append(&mut other.attributions);
        self.direct.append(&mut other.direct);
        self.total.append(&mut other.total);
        self.norm.append(&mut other.norm);
        self.mediators.append(&mut other.mediators);
        self.verdicts.append(&mut other.verdicts);
        self.certificates.append(&mut other.certificates);
    }
}

/// Ablates every wanted component at the wanted rows of a chunk, one at a time; `planned` and `targets` hold one
/// entry per prompt of the call. The chunk's positions are those that [`Plan`] keeps.
///
/// # Errors
/// Those of the forward pass and of targets, `INCOMPLETE` where a certificate fails.
pub fn ablate(
    model: &Transformer,
    chunk: Chunk,
    planned: &[Planned],
    targets: &[Target],
    asked: &Ablating,
    cancel: &Cancel,
) -> Result<Causal> {
    let (rows, kept) = plan::rows(chunk, planned);
    if rows.is_empty() {
        return Ok(Causal::default());
    }
    let sites = plan::sites(chunk, planned);
    let observed = chunk.run(model, points(model), plan::keys_and_values(&model.config), cancel)?;
    let output = at_rows(&observed.output, &kept)?;
    let targets = resolve_rows(&rows, chunk, chunk.part(targets), &output, model)?;
    let measured: Vec<f64> = measure(&targets, &output, &model.unembed)?.iter().map(|m| m.value).collect();

    let directions = Directions::of(&targets, None, model)?;
    let reader = Reader::new(model, &directions, &observed.activations, &kept)?;
    let clean = reader.clean(&observed.activations, &kept)?;
    let state = Clean::new(model, chunk, &observed, &sites, &asked.replacement)?;
    let mut sweep = Sweep { model, chunk, asked, sites, reader, clean, measured, targets, cancel, found: Vec::new() };
    let mut largest = vec![0f64; rows.len()];
    sweep.run(&state, &observed, &mut largest)?;
    sweep.finish(rows, &largest)
}

/// What the clean run keeps at the kept rows.
fn points(model: &Transformer) -> BTreeSet<HookPoint> {
    use BlockPoint::*;
    let outside = [HookPoint::Embed, HookPoint::PosEmbed, HookPoint::FinalScale];
    let of_block = |l| [ResidPre, Z, Ln1PostScale, AttnOut, MlpOut].map(|point| HookPoint::Block(l, point));
    let all = outside.into_iter().chain((0..model.config.n_layers).flat_map(of_block));
    all.filter(|point| point.absent(&model.config).is_none()).collect()
}

/// What a run after a change keeps.
fn branch_points(model: &Transformer) -> BTreeSet<HookPoint> {
    use BlockPoint::*;
    points(model).into_iter().filter(|point| !matches!(point, HookPoint::Block(_, ResidPre | AttnOut))).collect()
}

/// Some rows of what came out.
pub(crate) fn at_rows(output: &Output, rows: &[u32]) -> Result<Output> {
    let rows = Tensor::new(rows, output.stream.device())?;
    let of = |all: &Tensor| all.index_select(&rows, 0);
    Ok(Output { stream: of(&output.stream)?, normed: of(&output.normed)? })
}

/// A sweep over the components of a chunk.
struct Sweep<'a> {
    model: &'a Transformer,
    chunk: Chunk<'a>,
    asked: &'a Ablating,
    sites: Vec<Site>,
    reader: Reader<'a>,
    /// `c·ũ/s` of every fine component of the clean run, [rows, fine].
    clean: Vec<f64>,
    measured: Vec<f64>,
    targets: Vec<Resolved>,
    cancel: &'a Cancel,
    /// Of every ablated component and row, component after component.
    found: Vec<Found>,
}

/// What one component's ablation did at one row.
struct Found {
    row: usize,
    direct: f64,
    total: f64,
    norm: f64,
    /// by unit
    mediators: Vec<f64>,
    tolerance_at: f64,
}

impl Sweep<'_> {
    /// Every component: what changes where it writes, and, where it is asked for, everything behind. `largest`: the
    /// largest |D| of every row, over all components.
    fn run(&mut self, state: &Clean, observed: &Observed, largest: &mut [f64]) -> Result<()> {
        let components = Component::all(self.asked.unit, &self.model.config);
        let per_component: usize = self.sites.iter().map(|site| site.positions.len()).sum();
        let at_once = (branch_rows(&self.model.device) / per_component.max(1)).max(1);
        let pasts = plan::pasts(self.model, observed, &self.sites, self.chunk)?;
        let mut waiting: Vec<(usize, Change)> = Vec::new();
        for (column, component) in components.iter().enumerate() {
            let change = state.change(component)?;
            for (row, direct) in self.direct(column, &change)? {
                largest[row] = largest[row].max(direct.abs());
            }
            if self.asked.columns.binary_search(&column).is_ok() {
                waiting.push((column, change));
            }
            if waiting.len() == at_once || (column + 1 == components.len() && !waiting.is_empty()) {
                self.branch(&std::mem::take(&mut waiting), &pasts)?;
            }
        }
        Ok(())
    }

    /// `(c − c′)·ũ/s` at every row that a change reaches.
    fn direct(&self, column: usize, change: &Change) -> Result<Vec<(usize, f64)>> {
        let columns = fine_columns(self.asked.unit, &self.model.config);
        let of_row = |(row, kept): (usize, usize)| {
            let primed = self.primed(row, kept, change);
            let clean = &self.clean[row * columns.len()..];
            let moved = clean.iter().zip(&primed).zip(&columns).filter(|(_, c)| **c == column);
            (row, moved.map(|((a, b), _)| a - b).sum())
        };
        Ok(self.sites.iter().flat_map(|site| &site.wanted).map(|(row, kept)| of_row((*row, *kept))).collect())
    }

    /// The fine components of a row where only the sublayer of a change writes something else.
    fn primed(&self, row: usize, kept: usize, change: &Change) -> Vec<f64> {
        let n = self.reader.n_fine();
        let mut primed = self.clean[row * n..(row + 1) * n].to_vec();
        self.reader.overwrite(row, kept, &change.own, &mut primed);
        primed
    }

    /// Runs what lies behind some changes, all together.
    fn branch(&mut self, changes: &[(usize, Change)], pasts: &[plan::SitePast]) -> Result<()> {
        let (mut segments, mut keys, mut rows, mut start) = (Vec::new(), Vec::new(), Vec::new(), 0);
        for (i, (_, change)) in changes.iter().enumerate() {
            for (site, past) in self.sites.iter().zip(pasts) {
                let resume = change.resume(site)?;
                segments.push(Segment { ids: past.ids.clone(), past: Some(past.past.clone()), resume: Some(resume) });
                for (row, kept) in &site.wanted {
                    keys.push((i, *row, *kept));
                    rows.push((start + kept - site.kept) as u32);
                }
                start += site.positions.len();
            }
        }
        if rows.is_empty() {
            return Ok(());
        }
        let batch = Batch::new(segments, &self.model.config)?;
        let capture = Capture { points: branch_points(self.model), rows, everywhere: BTreeSet::new() };
        let mut tap = Tap::new(&capture, self.cancel);
        let named = |segment: usize| self.chunk.first + self.sites[segment % self.sites.len()].prompt;
        let output = self.model.forward(&batch, &mut tap).map_err(|error| match error {
            PrismError::NotFinite { first, prompt } => PrismError::NotFinite { first, prompt: named(prompt) },
            other => other,
        })?;
        self.read(changes, &keys, &tap.finish(), &output)
    }

    /// What the runs behind some changes did; `keys`: which change, row and kept row each of their rows is.
    fn read(
        &mut self,
        changes: &[(usize, Change)],
        keys: &[(usize, usize, usize)],
        activations: &Activations,
        output: &Output,
    ) -> Result<()> {
        let n = self.reader.n_fine();
        let mut primed: Vec<f64> = Vec::with_capacity(keys.len() * n);
        for (change, row, kept) in keys {
            primed.extend(self.primed(*row, *kept, &changes[*change].1));
        }
        let rows: Vec<usize> = keys.iter().map(|(_, row, _)| *row).collect();
        self.reader.read_into(activations, &rows, &mut primed)?;
        let norms = self.reader.norms(activations, &rows, &output.stream)?;
        let targets: Vec<Resolved> = rows.iter().map(|row| self.targets[*row].clone()).collect();
        let measured = measure(&targets, output, &self.model.unembed)?;

        let columns = fine_columns(self.asked.unit, &self.model.config);
        let n_columns = columns.iter().max().map_or(0, |last| last + 1);
        for (k, (change, row, _)) in keys.iter().enumerate() {
            let (clean, primed) = (&self.clean[row * n..(row + 1) * n], &primed[k * n..(k + 1) * n]);
            let mut moved = vec![0.0; n_columns];
            for ((a, b), column) in clean.iter().zip(primed).zip(&columns) {
                moved[*column] += a - b;
            }
            let direct = std::mem::take(&mut moved[changes[*change].0]);
            self.found.push(Found {
                row: *row,
                direct,
                total: self.measured[*row] - measured[k].value,
                norm: norms[k],
                mediators: moved,
                tolerance_at: clean.iter().chain(primed).map(|a| a.abs()).sum(),
            });
        }
        Ok(())
    }

    /// The result, row by row.
    fn finish(self, rows: Vec<Row>, largest: &[f64]) -> Result<Causal> {
        let config = &self.model.config;
        let (n, n_ablated) = (Component::count(self.asked.unit, config), self.asked.columns.len());
        let columns = fine_columns(self.asked.unit, config);
        let attributions = crate::attribution::sum_columns(&self.clean, &columns);
        let mut all = Causal {
            direct: vec![0.0; rows.len() * n_ablated],
            total: vec![0.0; rows.len() * n_ablated],
            norm: vec![0.0; rows.len() * n_ablated],
            mediators: vec![0.0; rows.len() * n_ablated * n],
            verdicts: vec![Verdict::Silent; rows.len() * n_ablated],
            certificates: Vec::new(),
            attributions,
            rows,
            targets: self.targets,
            measured: self.measured,
        };
        // a row that no change reaches stays as it was
        let untouched = Certificate { total: 0.0, measured: 0.0, tolerance: 0.0 };
        all.certificates = vec![untouched; all.direct.len()];
        let mut next = vec![0; all.rows.len()];
        for found in &self.found {
            let at = found.row * n_ablated + next[found.row];
            next[found.row] += 1;
            (all.direct[at], all.total[at], all.norm[at]) =
                (found.direct as f32, found.total as f32, found.norm as f32);
            let sum = found.direct + found.mediators.iter().sum::<f64>() + found.norm;
            all.certificates[at] = certify_sums(self.model.dtype(), sum, found.total, found.tolerance_at);
            let clean = &all.attributions[found.row * n..(found.row + 1) * n];
            let effects = [found.direct, found.total];
            let rounding = all.certificates[at].tolerance;
            all.verdicts[at] = verdict::of(effects, largest[found.row], clean, &found.mediators, rounding);
            let mediators = found.mediators.iter().map(|m| *m as f32);
            all.mediators[at * n..(at + 1) * n].iter_mut().zip(mediators).for_each(|(to, m)| *to = m);
        }
        all.check(n_ablated, self.asked.on_violation)?;
        Ok(all)
    }
}

impl Causal {
    /// That every number is finite and, if asked for, every certificate holds.
    fn check(&self, n_ablated: usize, on_violation: OnViolation) -> Result<()> {
        let rows: Vec<Row> = self.rows.iter().flat_map(|row| std::iter::repeat_n(*row, n_ablated)).collect();
        let finite = |c: &Certificate| c.total.is_finite() && c.measured.is_finite();
        if let Some(i) = self.certificates.iter().position(|c| !finite(c)) {
            return Err(PrismError::NotFinite { first: "the ablation".into(), prompt: rows[i].prompt });
        }
        if on_violation == OnViolation::Throw {
            crate::attribution::check_certificates(&self.certificates, &rows)?;
        }
        Ok(())
    }
}
