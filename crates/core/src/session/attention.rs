//! Where heads look, asked of a loaded model.

use super::Session;
use crate::attribution::sources;
use crate::circuit::detect::{Detection, Sequences, Test};
use crate::circuit::pattern::{self, HeadPattern, Patterns};
use crate::error::{PrismError, Result};
use crate::run::{Job, chunk_tokens};
use crate::tokenizer::Prompt;
use std::collections::{BTreeMap, BTreeSet};

/// A call of [`Session::attention`].
#[derive(Debug, Clone)]
pub struct AttentionCall {
    /// Prompts, of any lengths.
    pub prompts: Vec<Prompt>,
    /// Labels of heads; all without.
    pub heads: Option<Vec<String>>,
    /// Put a BOS token in front of texts, or leave it out, whatever the tokenizer does.
    pub prepend_bos: Option<bool>,
}

/// A call of [`Session::detect_heads`].
#[derive(Debug, Clone)]
pub struct DetectCall {
    /// Labels of heads; all without.
    pub heads: Option<Vec<String>>,
    /// Sequences of each kind.
    pub sequences: usize,
    /// Random tokens of a sequence before it repeats.
    pub length: usize,
    /// Seed of the tokens.
    pub seed: u64,
}

/// A head and its tests.
#[derive(Debug, Clone)]
pub struct Detected {
    /// Layer and head.
    pub head: (usize, usize),
    /// Attention to the token behind an earlier occurrence.
    pub induction: Detection,
    /// Attention to an earlier occurrence.
    pub duplicate_token: Detection,
    /// Attention to the token before.
    pub previous_token: Detection,
}

/// Sequences of each kind whose patterns are held at once.
const DETECT_BLOCK: usize = 32;
const TESTS: [Test; 3] = [Test::Induction, Test::DuplicateToken, Test::PreviousToken];

impl Session {
    /// Runs prompts and keeps the patterns of heads.
    ///
    /// # Errors
    /// `MEMORY` before anything is run, those of tokenising and of the forward pass; `INVALID_ARGUMENT` for labels that
    /// name no head.
    pub fn attention(&self, call: &AttentionCall, job: &Job) -> Result<Patterns> {
        self.guarded(|| {
            let heads = sources::heads(call.heads.as_deref(), &self.transformer)?;
            if call.prompts.is_empty() {
                return Err(PrismError::argument("prompts", "an empty list", "at least one prompt"));
            }
            let ids = |(i, prompt)| self.ids(prompt, i, call.prepend_bos);
            let prompts = call.prompts.iter().enumerate().map(ids).collect::<Result<_>>()?;
            pattern::observe(&self.place(), prompts, heads, chunk_tokens(self.device), job)
        })
    }

    /// Names for where every head of some patterns looks.
    ///
    /// # Errors
    /// `INTERNAL`, `POISONED`.
    pub fn classify(&self, patterns: &Patterns) -> Result<Vec<HeadPattern>> {
        let classes = self.token_classes(&patterns.prompts);
        self.guarded(|| pattern::classify(patterns, &self.transformer.config.windows, &classes))
    }

    /// Tests heads on random tokens.
    ///
    /// # Errors
    /// As [`Session::attention`]; `INVALID_ARGUMENT` for sequences that are too long for the context or the vocabulary.
    pub fn detect_heads(&self, call: &DetectCall, job: &Job) -> Result<Vec<Detected>> {
        self.guarded(|| {
            let config = &self.transformer.config;
            let heads = sources::heads(call.heads.as_deref(), &self.transformer)?;
            let special: BTreeSet<u32> = self.special_tokens().into_iter().collect();
            let tokens: Vec<u32> = (0..config.d_vocab as u32)
                .filter(|id| !special.contains(id) && config.bos_token != Some(*id))
                .collect();
            let longest = (config.n_context - usize::from(config.bos_token.is_some())) / 2;
            if call.length > longest {
                return Err(PrismError::argument(
                    "length",
                    call.length,
                    format!("at most {longest}: twice that is the context"),
                ));
            }
            if call.sequences < 2 {
                return Err(PrismError::argument("sequences", call.sequences, "at least 2"));
            }
            // block by block, of each only what is measured: patterns of all sequences would not fit
            let mut samples = vec![None; 3 * heads.len()];
            for before in (0..call.sequences).step_by(DETECT_BLOCK) {
                let n = DETECT_BLOCK.min(call.sequences - before);
                let seed = call.seed.wrapping_add((before as u64) << 32);
                let sequences = Sequences::draw(&tokens, config.bos_token, n, call.length, seed)?;
                let silent = Job { cancel: job.cancel, progress: &|_, _| {} };
                let observe = |prompts: &[Vec<u32>]| {
                    pattern::observe(&self.place(), prompts.to_vec(), heads.clone(), chunk_tokens(self.device), &silent)
                };
                let (repeated, unrepeated) = (observe(&sequences.repeated)?, observe(&sequences.unrepeated)?);
                for (i, (l, _)) in heads.iter().enumerate() {
                    for (t, test) in TESTS.into_iter().enumerate() {
                        let patterns = [&repeated, &unrepeated];
                        let found = sequences.samples(test, i, patterns, config.windows[*l], before)?;
                        let Some([scores, nulls]) = found else { continue };
                        let [all, all_nulls] = samples[3 * i + t].get_or_insert_with(|| [Vec::new(), Vec::new()]);
                        all.extend(scores);
                        all_nulls.extend(nulls);
                    }
                }
                (job.progress)(before + n, call.sequences);
            }
            let of = |(i, head): (usize, &(usize, usize))| {
                let detection = |t: usize| Detection::of(samples[3 * i + t].as_ref(), heads.len());
                let [induction, duplicate_token, previous_token] = [0, 1, 2].map(detection);
                Detected { head: *head, induction, duplicate_token, previous_token }
            };
            Ok(heads.iter().enumerate().map(of).collect())
        })
    }

    /// Tokens of some prompts that belong together: punctuation, and what separates (white space, special tokens).
    fn token_classes(&self, prompts: &[Vec<u32>]) -> BTreeMap<String, BTreeSet<u32>> {
        let Some(tokenizer) = &self.tokenizer else { return BTreeMap::new() };
        let special: BTreeSet<u32> = self.special_tokens().into_iter().collect();
        let distinct: BTreeSet<u32> = prompts.iter().flatten().copied().collect();
        let mut classes = BTreeMap::<String, BTreeSet<u32>>::new();
        for id in distinct {
            let text = tokenizer.decode(&[id]).unwrap_or_default();
            let class = if special.contains(&id) || text.trim().is_empty() {
                "separators"
            } else if text.trim().chars().all(|c| !c.is_alphanumeric()) {
                "punctuation"
            } else {
                continue;
            };
            classes.entry(class.into()).or_default().insert(id);
        }
        classes.retain(|_, tokens| tokens.len() > 1); // one token alone is a column of its own
        classes
    }
}
