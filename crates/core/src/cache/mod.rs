//! What a run kept: hook points and logits, prompt by prompt, outside the JavaScript heap; and what can still be
//! computed from it without running the model again.

mod file;
mod intervened;
mod reference;

pub use file::{load, save};
pub use reference::Axis;
pub(crate) use reference::{Means, Taken, cells_of};

use crate::attribution::{
    self, Attribution, Component, Depth, Options, Target, Unit, component_points, residual_stack, resolve_targets,
};
use crate::cancel::Cancel;
use crate::chunk::{Chunk, Prompted, Row, n_rows};
use crate::config::ModelConfig;
use crate::device::moved;
use crate::error::{PrismError, Result};
use crate::hook::{BlockPoint, HookPoint};
use crate::intervene::{Edits, Record};
use crate::memory::{self, Held, Holdings};
use crate::model::{Output, Transformer, check_finite};
use crate::run::{Job, Place, Work, over_chunks};
use crate::tap::{Activations, Capture, Tap};
use candle_core::{Device, Tensor};
use std::collections::BTreeSet;
use std::ops::Range;

/// Which logits a run keeps, after the model's cap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Logits {
    /// Of the last position of every prompt.
    Last,
    /// Of every position.
    All,
    /// None.
    None,
}

impl Logits {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Logits::Last => "last",
            Logits::All => "all",
            Logits::None => "none",
        }
    }

    fn rows(self, length: usize) -> Range<usize> {
        match self {
            Logits::Last => length - 1..length,
            Logits::All => 0..length,
            Logits::None => 0..0,
        }
    }
}

/// What a run keeps.
pub struct Wanted {
    /// Hook points, at the wanted positions.
    pub points: BTreeSet<HookPoint>,
    /// Logits.
    pub logits: Logits,
}

/// What a run kept.
pub struct Cache {
    /// Prompts and the positions that were kept of them.
    pub prompts: Vec<Prompted>,
    /// The texts of prompts that were given as text, where a token is to be resolved behind them; a file does not keep them.
    pub texts: Vec<Option<String>>,
    /// The points that were asked for.
    pub points: BTreeSet<HookPoint>,
    /// The logits that were asked for.
    pub logits: Logits,
    /// What was changed in it.
    pub interventions: Vec<Record>,
    parts: Vec<Part>,
    /// Counts it among what a session holds, until it is dropped.
    _held: Option<Held>,
}

/// What a chunk kept.
struct Part {
    first: usize,
    n_prompts: usize,
    activations: Activations,
    /// At the wanted positions.
    output: Output,
    /// Logits of each prompt of the chunk.
    logits: Vec<Tensor>,
}

impl Part {
    /// Activations and output where the weights are.
    fn on(&self, device: &Device) -> Result<(Activations, Output)> {
        Ok((self.activations.to_device(device)?, self.output.to_device(device)?))
    }
}

/// The vectors that components wrote.
pub struct Stack {
    /// What each row is.
    pub rows: Vec<Row>,
    /// [rows, components, d_model], row-major
    pub vectors: Vec<f32>,
}

/// Runs the prompts and keeps what is wanted.
///
/// # Errors
/// `MEMORY` before anything is run, `ABORTED`, and those of the forward pass.
pub fn run(place: &Place, mut prompts: Vec<Prompted>, wanted: Wanted, chunk_tokens: usize, job: &Job) -> Result<Cache> {
    let model = place.model;
    let bytes = |prompts: &[Prompted]| kept_bytes(&model.config, prompts, &wanted);
    let work = Work {
        prompts: &prompts,
        chunk_tokens,
        purpose: "the forward pass and what it keeps",
        result_bytes: bytes(&prompts),
        is_merged: false,
        // cut out of the chunk's own before that is freed; and the stream that logits are read from
        chunk_bytes: &|chunk| {
            let tokens: usize = chunk.iter().map(|p| p.ids.len()).sum();
            let stream = if wanted.logits == Logits::None { 0 } else { tokens * model.config.d_model };
            bytes(chunk) + 4 * stream as u64 + chunk.iter().map(|p| memory::changed(&model.config, p)).sum::<u64>()
        },
    };
    let parts = over_chunks(place, &work, job, |chunk| part(model, chunk, &wanted, job.cancel))?;
    let texts = vec![None; prompts.len()];
    prompts.iter_mut().for_each(|prompt| prompt.edits.clear()); // they may hold other runs' values
    let (points, logits, interventions) = (wanted.points, wanted.logits, Vec::new());
    Ok(Cache { prompts, texts, points, logits, interventions, parts, _held: None })
}

/// Bytes of what is wanted of some prompts.
fn kept_bytes(config: &ModelConfig, prompts: &[Prompted], wanted: &Wanted) -> u64 {
    let of = |p: &Prompted| {
        let logits = 4 * (wanted.logits.rows(p.ids.len()).len() * config.d_vocab) as u64;
        let output = 8 * (p.positions.len() * config.d_model) as u64;
        memory::observed(config, &wanted.points, p.positions.len(), p.ids.len()) + logits + output
    };
    prompts.iter().map(of).sum()
}

fn part(model: &Transformer, chunk: Chunk, wanted: &Wanted, cancel: &Cancel) -> Result<Part> {
    let last = HookPoint::Block(model.config.n_layers - 1, BlockPoint::ResidPost);
    // logits may be wanted of positions that nothing else is: then the stream is kept at all of them
    let everywhere: BTreeSet<HookPoint> = (wanted.logits != Logits::None).then_some(last).into_iter().collect();
    let observed = chunk.run(model, wanted.points.clone(), everywhere.clone(), cancel)?;
    let mut activations = observed.activations;
    let mut logits = Vec::new();
    if !everywhere.is_empty() {
        let stream = activations.kept(last)?.clone();
        for (i, (prompt, span)) in chunk.prompts.iter().zip(&observed.spans).enumerate() {
            let rows = wanted.logits.rows(prompt.ids.len());
            let rows = span.start + rows.start..span.start + rows.end;
            let normed = final_norm(model, &stream, rows, &observed.edits, cancel)?;
            logits.push(capped_logits(model, &normed, chunk.first + i)?);
        }
        if wanted.points.contains(&last) {
            let positions = |(p, span): (&Prompted, &Range<usize>)| {
                p.positions.iter().map(|p| (span.start + p) as u32).collect::<Vec<_>>()
            };
            let rows: Vec<u32> = chunk.prompts.iter().zip(&observed.spans).flat_map(positions).collect();
            activations.keep_rows(last, &rows)?;
        } else {
            activations.forget(last);
        }
    }
    activations.let_go()?;
    let (first, n_prompts) = (chunk.first, chunk.prompts.len());
    // what is kept lies on the host, wherever it was computed
    let logits = logits.iter().map(|t| moved(t, &Device::Cpu)).collect::<Result<_>>()?;
    let (activations, output) = (activations.to_device(&Device::Cpu)?, observed.output.to_device(&Device::Cpu)?);
    Ok(Part { first, n_prompts, activations, output, logits })
}

/// Some rows of the final stream behind the final norm, with what is changed there: [rows, d_model].
fn final_norm(
    model: &Transformer,
    stream: &Tensor,
    rows: Range<usize>,
    edits: &Edits,
    cancel: &Cancel,
) -> Result<Tensor> {
    let stream = stream.narrow(0, rows.start, rows.len())?;
    let capture = Capture { rows: rows.map(|row| row as u32).collect(), ..Capture::default() };
    model.ln_final.forward_final(&stream, model.kernels, &mut Tap::new(&capture, cancel).editing(edits))
}

/// The logits of some rows of the normed stream, after the cap: [rows, d_vocab].
fn capped_logits(model: &Transformer, normed: &Tensor, prompt: usize) -> Result<Tensor> {
    let logits = model.unembed.logits(normed)?;
    check_finite(&logits, || "logits".into(), |_| prompt)?;
    Ok(match model.unembed.cap {
        Some(cap) => ((logits / cap)?.tanh()? * cap)?,
        None => logits,
    })
}

impl Cache {
    /// Bytes that it holds.
    pub fn bytes(&self, config: &ModelConfig) -> u64 {
        kept_bytes(config, &self.prompts, &Wanted { points: self.points.clone(), logits: self.logits })
    }

    /// Counts it among what a session holds.
    pub(crate) fn held_by(mut self, holdings: &Holdings, config: &ModelConfig) -> Self {
        self._held = Some(holdings.hold(self.bytes(config)));
        self
    }

    /// Shape and values, row-major, of a point of one prompt, at its kept positions.
    ///
    /// # Errors
    /// `NOT_CACHED` where the point was not asked for, `INVALID_ARGUMENT` where there is no such prompt.
    pub fn values(&self, point: HookPoint, prompt: usize) -> Result<(Vec<usize>, Vec<f32>)> {
        let tensor = self.tensor(point, prompt)?;
        Ok((tensor.dims().to_vec(), tensor.contiguous()?.flatten_all()?.to_vec1()?))
    }

    /// The logits of one prompt, after the model's cap: [pos, d_vocab].
    ///
    /// # Errors
    /// `NOT_CACHED` where none were asked for, `INVALID_ARGUMENT` where there is no such prompt.
    pub fn logits(&self, prompt: usize) -> Result<(Vec<usize>, Vec<f32>)> {
        let part = self.part(prompt)?;
        let logits = part.logits.get(prompt - part.first).ok_or_else(|| not_cached("logits", vec!["logits".into()]))?;
        Ok((logits.dims().to_vec(), logits.flatten_all()?.to_vec1()?))
    }

    /// A point of one prompt, [kept positions, …] or [head, kept positions, key_pos].
    fn tensor(&self, point: HookPoint, prompt: usize) -> Result<Tensor> {
        if !self.points.contains(&point) {
            return Err(not_cached("this point", vec![point.to_string()]));
        }
        let part = self.part(prompt)?;
        if let Some(square) = part.activations.square(point, prompt - part.first) {
            return Ok(square.clone());
        }
        let start = n_rows(&self.prompts[part.first..prompt]);
        Ok(part.activations.kept(point)?.narrow(0, start, self.prompts[prompt].positions.len())?)
    }

    fn part(&self, prompt: usize) -> Result<&Part> {
        let n = self.prompts.len();
        if prompt >= n {
            return Err(PrismError::argument("prompt", prompt, format!("one of {n} prompts, from 0")));
        }
        let i = self.parts.partition_point(|part| part.first + part.n_prompts <= prompt);
        Ok(&self.parts[i])
    }

    fn chunk(&self, part: &Part) -> Chunk<'_> {
        Chunk { first: part.first, prompts: &self.prompts[part.first..part.first + part.n_prompts] }
    }

    /// That every point of `needed` is there.
    pub(crate) fn check_has(&self, needed: &BTreeSet<HookPoint>, purpose: &str) -> Result<()> {
        let missing: Vec<String> = needed.difference(&self.points).map(HookPoint::to_string).collect();
        if missing.is_empty() { Ok(()) } else { Err(not_cached(purpose, missing)) }
    }

    /// Attributes at the kept positions, from what was kept; one target per prompt.
    ///
    /// # Errors
    /// `NOT_CACHED` with the points that are missing, `MEMORY`, and those of [`attribution::attribute`].
    pub fn attribute(
        &self,
        model: &Transformer,
        targets: &[Target],
        options: &Options,
        limit: Option<u64>,
        job: &Job,
    ) -> Result<Attribution> {
        self.check_is_sum(model, options.unit, Some(options.convention))?;
        self.check_has(&options.points(model), "attribution")?;
        let of_part = |part| {
            let (config, rows) = (&model.config, n_rows(self.chunk(part).prompts));
            memory::attributing(config, options.unit, rows) + memory::reading(config, rows)
        };
        let largest = self.parts.iter().map(of_part).max().unwrap_or(0);
        let needed = memory::attributed(&model.config, options.unit, n_rows(&self.prompts)) + largest;
        memory::check("attribution from a run", needed, limit)?;
        let mut all = Attribution::default();
        for part in &self.parts {
            job.cancel.check()?;
            let chunk = self.chunk(part);
            let rows = chunk.rows();
            if rows.is_empty() {
                continue;
            }
            let (activations, output) = part.on(&model.device)?;
            let targets = resolve_targets(chunk, chunk.part(targets), &output, model)?;
            all.append(attribution::from_activations(model, rows, targets, &activations, &output, options)?);
        }
        all.keep_top(options, &model.config);
        Ok(all)
    }

    /// The vector that every component wrote at the kept positions.
    ///
    /// # Errors
    /// `NOT_CACHED` with the points that are missing, `MEMORY`, `ABORTED`.
    pub fn decompose(&self, model: &Transformer, unit: Unit, limit: Option<u64>, job: &Job) -> Result<Stack> {
        self.check_is_sum(model, unit, None)?;
        self.check_has(&component_points(model, unit), "the stack")?;
        let config = &model.config;
        let numbers = |prompts| n_rows(prompts) * Component::count(unit, config) * config.d_model;
        // of a part the writes, side by side, and what one layer's are formed from
        let of_part = |part| {
            let prompts = self.chunk(part).prompts;
            8 * numbers(prompts) as u64 + memory::reading(config, n_rows(prompts))
        };
        let largest = self.parts.iter().map(of_part).max().unwrap_or(0);
        let all = numbers(&self.prompts);
        memory::check("the stack of components", 4 * all as u64 + largest, limit)?;
        let mut stack = Stack { rows: Vec::new(), vectors: Vec::with_capacity(all) };
        for part in &self.parts {
            job.cancel.check()?;
            let rows = self.chunk(part).rows();
            if rows.is_empty() {
                continue;
            }
            stack.rows.extend(rows);
            let (activations, _) = part.on(&model.device)?;
            let vectors = residual_stack(model, &activations, unit, Depth::all(model))?;
            stack.vectors.extend(vectors.flatten_all()?.to_vec1::<f32>()?);
        }
        Ok(stack)
    }
}

fn not_cached(purpose: &str, missing: Vec<String>) -> PrismError {
    PrismError::NotCached { purpose: purpose.into(), missing }
}
