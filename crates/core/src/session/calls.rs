//! What a loaded model can be asked. Each call reads as: the prompts as ids, one call of the room that computes.

use super::Session;
use super::asked::{Call, LensCall, ProbeCall, Ran, RunCall, SourcesCall, TopTokensCall, check_count, check_top};
use super::interventions::Interventions;
use crate::attribution::lens::{self, Lens, Lensed};
use crate::attribution::probe::{self, Probed, Probing};
use crate::attribution::sources::{self, Heads, Sources};
use crate::attribution::top_tokens::{self, TopTokens};
use crate::attribution::{
    Attribution, Component, Convention, Depth, OnViolation, Options, Target, Unit, vocabulary_block,
};
use crate::cache::{self, Cache, Stack};
use crate::chunk::{Prompted, n_rows};
use crate::config::ModelConfig;
use crate::error::{PrismError, Result};
use crate::hook::HookPoint;
use crate::run::{self, Job, Place, Work};
use crate::tokenizer::{Prompt, Token};
use std::collections::BTreeSet;
use std::path::Path;

impl Session {
    /// Attributes; returns the ids that were run beside the result.
    ///
    /// # Errors
    /// Those of tokenising and of [`run::attribute`]; `POISONED` after a panic.
    pub fn attribute(&self, call: &Call, job: &Job) -> Result<(Vec<Vec<u32>>, Attribution)> {
        self.guarded(|| {
            check_top(&call.options)?;
            let prompts = self.prepare(&call.asked, job)?;
            let targets = self.targets(&call.targets, &call.asked.prompts)?;
            let chunk_tokens = call.asked.chunk_tokens(self.device);
            let result = run::attribute(&self.place(), &prompts, &targets, &call.options, chunk_tokens, job)?;
            Ok((ids_of(prompts), result))
        })
    }

    /// Runs the prompts and keeps what is asked for.
    ///
    /// # Errors
    /// `UNKNOWN_HOOK`, those of tokenising and of [`cache::run`]; `POISONED` after a panic.
    pub fn run(&self, call: &RunCall, job: &Job) -> Result<Cache> {
        self.run_with(call, &Interventions::default(), job)
    }

    /// The same with interventions: what is kept, and the logits, are what the rest of the model made of them.
    ///
    /// # Errors
    /// Those of [`Session::run`]; of the interventions `UNKNOWN_HOOK`, `INVALID_ARGUMENT`, `POSITION_RANGE`,
    /// `NOT_CACHED` with the points that a run would have had to keep, and those of running a reference.
    pub fn run_with(&self, call: &RunCall, interventions: &Interventions, job: &Job) -> Result<Cache> {
        self.guarded(|| {
            let points = HookPoint::matching(&call.points, &self.transformer.config)?;
            let mut prompts = self.prepare(&call.asked, job)?;
            let records = self.intervene(interventions, &call.asked, &mut prompts, job)?;
            let wanted = cache::Wanted { points, logits: call.logits };
            let mut cache = cache::run(&self.place(), prompts, wanted, call.asked.chunk_tokens(self.device), job)?;
            cache.texts = call.asked.prompts.iter().map(text_of).collect();
            cache.interventions = records;
            Ok(self.held(cache))
        })
    }

    /// Attributes at the rows of a run, from what it kept.
    ///
    /// # Errors
    /// `NOT_CACHED`, and those of [`Session::attribute`].
    pub fn attribute_run(
        &self,
        cache: &Cache,
        targets: &[Target<Token>],
        options: &Options,
        job: &Job,
    ) -> Result<Attribution> {
        self.guarded(|| {
            check_top(options)?;
            let prompt = |(p, text): (&Prompted, &Option<String>)| match text {
                Some(text) => Prompt::Text(text.clone()),
                None => Prompt::Ids(p.ids.clone()),
            };
            let prompts: Vec<Prompt> = cache.prompts.iter().zip(&cache.texts).map(prompt).collect();
            let targets = self.targets(targets, &prompts)?;
            cache.attribute(&self.transformer, &targets, options, self.limit(), job)
        })
    }

    /// The vectors that components wrote at the rows of a run, from what it kept.
    ///
    /// # Errors
    /// `NOT_CACHED`, `MEMORY`, `ABORTED`, `POISONED`.
    pub fn decompose_run(&self, cache: &Cache, unit: Unit, job: &Job) -> Result<Stack> {
        self.guarded(|| cache.decompose(&self.transformer, unit, self.limit(), job))
    }

    /// The hook points that [`Session::attribute_run`] needs.
    pub fn attribution_points(&self, unit: Unit, convention: Convention) -> BTreeSet<HookPoint> {
        let options = Options { unit, top: None, convention, norm: None, on_violation: OnViolation::Throw };
        options.points(&self.transformer)
    }

    /// The tokens that no text is made of: special ones, reserved ones, and ids that the tokenizer does not have. Without
    /// a tokenizer there are none to tell.
    pub fn special_tokens(&self) -> Vec<u32> {
        let d_vocab = self.transformer.config.d_vocab as u32;
        self.tokenizer.as_ref().map_or(Vec::new(), |tokenizer| tokenizer.special(d_vocab))
    }

    /// Writes a run to a file, which appears whole or not at all.
    ///
    /// # Errors
    /// `IO_ERROR`, `INVALID_ARGUMENT`, `CHECKPOINT_INVALID` where the model's files have changed.
    pub fn save_run(&self, cache: &Cache, path: &Path) -> Result<()> {
        let fingerprint = self.fingerprint()?;
        self.guarded(|| cache::save(cache, path, &fingerprint, &self.transformer.config))
    }

    /// Reads a run that was saved for this model.
    ///
    /// # Errors
    /// `IO_ERROR`, `CHECKPOINT_INVALID`, `MEMORY`.
    pub fn load_run(&self, path: &Path) -> Result<Cache> {
        let fingerprint = self.fingerprint()?;
        self.guarded(|| Ok(self.held(cache::load(path, &self.transformer, &fingerprint, self.limit())?)))
    }

    /// Attributes and splits heads by source position; returns the heads as (layer, head) besides.
    ///
    /// # Errors
    /// Those of [`Session::attribute`]; `INVALID_ARGUMENT` for labels that name no head.
    pub fn sources(&self, call: &SourcesCall, job: &Job) -> Result<Ran<(Heads, Sources)>> {
        self.guarded(|| {
            let Call { asked, targets, options } = &call.call;
            let model = &self.transformer;
            let heads = sources::heads(call.heads.as_deref(), model)?;
            let prompts = self.prepare(asked, job)?;
            let targets = self.targets(targets, &asked.prompts)?;
            let values = |p: &Prompted| 4 * (p.positions.len() * p.ids.len() * heads.len()) as u64;
            let kept = |p: &Prompted| {
                let (squares, width) =
                    (model.config.n_heads * p.positions.len(), model.config.n_key_value_heads * model.config.d_head);
                4 * (p.ids.len() * model.config.n_layers * (squares + width)) as u64
            };
            let work = Work {
                prompts: &prompts,
                chunk_tokens: asked.chunk_tokens(self.device),
                purpose: "attribution by source position",
                result_bytes: prompts.iter().map(values).sum(),
                is_merged: true,
                chunk_bytes: &|chunk| chunk.iter().map(kept).sum(),
            };
            let parts = run::over_chunks(&self.place(), &work, job, |chunk| {
                sources::attribute_sources(model, chunk, chunk.part(&targets), &heads, options, job.cancel)
            })?;
            let all = run::merged(parts, Sources::append);
            Ok((ids_of(prompts), (heads, all)))
        })
    }

    /// The logit lens at the wanted rows.
    ///
    /// # Errors
    /// Those of tokenising, of targets and of [`lens::lens`]; `INVALID_ARGUMENT` where neither targets nor tokens are
    /// asked for.
    pub fn lens(&self, call: &LensCall, job: &Job) -> Result<Ran<Lensed>> {
        self.guarded(|| {
            let model = &self.transformer;
            let config = &model.config;
            if call.targets.is_empty() && call.top == 0 {
                return Err(PrismError::argument("logitLens", "neither targets nor top", "targets, top or both"));
            }
            check_count("top", call.top, 0, config.d_vocab)?;
            let prompts = self.prepare(&call.asked, job)?;
            let targets = match &call.targets[..] {
                [] => None,
                targets => Some(self.targets(targets, &call.asked.prompts)?),
            };
            let asked = Lens { norm: call.norm, top: call.top };
            let n_states = lens::states(config).len();
            let work = Work {
                prompts: &prompts,
                chunk_tokens: call.asked.chunk_tokens(self.device),
                purpose: "the logit lens",
                result_bytes: (n_rows(&prompts) * n_states * (12 * call.top + 40)) as u64,
                is_merged: true,
                chunk_bytes: &|chunk| scan_bytes(config, n_rows(chunk) * n_states, call.top),
            };
            let parts = run::over_chunks(&self.place(), &work, job, |chunk| {
                let targets = targets.as_ref().map(|targets| chunk.part(targets));
                lens::lens(model, chunk, targets, &asked, job.cancel)
            })?;
            let all = run::merged(parts, Lensed::append);
            Ok((ids_of(prompts), all))
        })
    }

    /// For each component the tokens that it raises and lowers most; returns the components besides.
    ///
    /// # Errors
    /// Those of tokenising and of the forward pass; `INVALID_ARGUMENT` for labels that name no component, `TOKEN_RANGE`.
    pub fn top_tokens(&self, call: &TopTokensCall, job: &Job) -> Result<Ran<(Vec<Component>, TopTokens)>> {
        self.guarded(|| {
            let model = &self.transformer;
            let config = &model.config;
            let masked: BTreeSet<u32> = call.masked.iter().copied().collect();
            if let Some(id) = masked.iter().find(|id| **id as usize >= config.d_vocab) {
                return Err(PrismError::TokenRange { id: u64::from(*id), d_vocab: config.d_vocab });
            }
            check_count("k", call.k, 1, config.d_vocab - masked.len())?;
            let columns =
                call.components.as_ref().map(|labels| top_tokens::columns(labels, call.unit, model)).transpose()?;
            let all = Component::all(call.unit, config);
            let components = match &columns {
                Some(columns) => columns.iter().map(|c| all[*c]).collect(),
                None => all,
            };
            let wanted = top_tokens::Wanted { unit: call.unit, columns, k: call.k, masked };
            let prompts = self.prepare(&call.asked, job)?;
            let stack = (12 * Component::count(call.unit, config) * config.d_model) as u64;
            let work = Work {
                prompts: &prompts,
                chunk_tokens: call.asked.chunk_tokens(self.device),
                purpose: "the tokens of every component",
                result_bytes: (n_rows(&prompts) * components.len() * 16 * call.k) as u64,
                is_merged: true,
                chunk_bytes: &|chunk| {
                    n_rows(chunk) as u64 * stack + scan_bytes(config, n_rows(chunk) * components.len(), 2 * call.k)
                },
            };
            let parts = run::over_chunks(&self.place(), &work, job, |chunk| {
                top_tokens::top_tokens(model, chunk, &wanted, job.cancel)
            })?;
            let tokens = run::merged(parts, TopTokens::append);
            Ok((ids_of(prompts), (components, tokens)))
        })
    }

    /// Many directions at a point of the residual stream; returns the components up to there besides.
    ///
    /// # Errors
    /// Those of tokenising and of the forward pass; `UNKNOWN_HOOK`, `INVALID_ARGUMENT` for points outside the stream and
    /// directions of another length, `INCOMPLETE`.
    pub fn probe(&self, call: &ProbeCall, job: &Job) -> Result<Ran<(Vec<Component>, Probed)>> {
        self.guarded(|| {
            let model = &self.transformer;
            let config = &model.config;
            let at = HookPoint::parse(&call.at, config)?;
            let Some(depth) = Depth::of(at) else {
                let expected =
                    "a point of the residual stream: hook_resid_pre, hook_resid_mid or hook_resid_post of a block";
                return Err(PrismError::argument("at", format!("'{at}'"), expected));
            };
            let directions = probe::directions(&call.directions, config.d_model, &model.device)?;
            let n = directions.dim(0)?;
            let components = probe::components(config, call.unit, depth);
            let probing = self.pool.install(|| Probing::new(directions, at, call.unit, model.kernels))?;
            let prompts = self.prepare(&call.asked, job)?;
            let values = 4 * n * Component::count(Unit::Head, config);
            let work = Work {
                prompts: &prompts,
                chunk_tokens: call.asked.chunk_tokens(self.device),
                purpose: "the directions",
                result_bytes: (n_rows(&prompts) * 4 * n * (components.len() + 8)) as u64,
                is_merged: false,
                chunk_bytes: &|chunk| {
                    // the directions in f64, twice, and through an output matrix
                    let folded = n * (16 * config.d_model + 12 * config.n_heads * config.d_head);
                    let stack = 12 * Component::count(Unit::Head, config) * config.d_model;
                    (n_rows(chunk) * (5 * values + stack) + folded) as u64
                },
            };
            let width = n * components.len();
            let (parts, values) = run::over_chunks_with_places(&self.place(), &work, job, width, |chunk, places| {
                probe::probe(model, chunk, &probing, depth, job.cancel, places)
            })?;
            let probed = Probed { values, ..run::merged(parts, Probed::append) };
            if call.on_violation == OnViolation::Throw {
                probed.check()?;
            }
            Ok((ids_of(prompts), (components, probed)))
        })
    }

    pub(super) fn place(&self) -> Place<'_> {
        Place { model: &self.transformer, pool: &self.pool, memory_limit: self.limit() }
    }

    /// Bytes that a call may take, if there is a limit: what weights and kept runs leave of it.
    pub(super) fn limit(&self) -> Option<u64> {
        self.memory_limit.map(|limit| limit.saturating_sub(self.holdings.bytes()))
    }

    fn held(&self, cache: Cache) -> Cache {
        cache.held_by(&self.holdings, &self.transformer.config)
    }
}

fn text_of(prompt: &Prompt) -> Option<String> {
    if let Prompt::Text(text) = prompt { Some(text.clone()) } else { None }
}

/// Bytes of a scan of the vocabulary for `n` vectors that keeps `k` tokens of each.
fn scan_bytes(config: &ModelConfig, n: usize, k: usize) -> u64 {
    (n * (16 * config.d_model + 8 * vocabulary_block(config) + 16 * k)) as u64
}

pub(super) fn ids_of(prompts: Vec<Prompted>) -> Vec<Vec<u32>> {
    prompts.into_iter().map(|p| p.ids).collect()
}
