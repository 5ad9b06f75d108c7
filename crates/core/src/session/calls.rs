//! What can be asked of a loaded model. Each call reads as: the prompts as ids, one call of the room that computes.

use super::Session;
use crate::attribution::{Attribution, Options, Target};
use crate::chunk::Prompted;
use crate::error::{PrismError, Result};
use crate::rows::Positions;
use crate::run::{self, Job, Place};
use crate::tokenizer::{Prompt, Token};

/// What every call says: prompts, which rows of them, and how they are run.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Prompts, of any lengths.
    pub prompts: Vec<Prompt>,
    /// Which positions.
    pub positions: Positions,
    /// Put a BOS token in front of texts, or leave it out, whatever the tokenizer does.
    pub prepend_bos: Option<bool>,
    /// Tokens per chunk; [`run::CHUNK_TOKENS`] if not given.
    pub chunk_tokens: Option<usize>,
}

/// A call of [`Session::attribute`].
#[derive(Debug, Clone)]
pub struct Call {
    /// Prompts and rows.
    pub asked: Asked,
    /// One target for all prompts, or one per prompt.
    pub targets: Vec<Target<Token>>,
    /// Columns, norm and certificate.
    pub options: Options,
}

impl Session {
    /// Attributes; returns the ids that were run beside the result.
    ///
    /// # Errors
    /// Those of tokenising and of [`run::attribute`]; `POISONED` after a panic.
    pub fn attribute(&self, call: &Call, job: &Job) -> Result<(Vec<Vec<u32>>, Attribution)> {
        self.guarded(|| {
            let prompts = self.prepare(&call.asked, job)?;
            let targets = self.targets(&call.targets, &call.asked.prompts)?;
            let chunk_tokens = call.asked.chunk_tokens();
            let result = run::attribute(&self.place(), &prompts, &targets, &call.options, chunk_tokens, job)?;
            Ok((ids_of(prompts), result))
        })
    }

    fn place(&self) -> Place<'_> {
        Place { model: &self.transformer, pool: &self.pool, memory_limit: self.memory_limit }
    }

    /// The prompts as ids, and their wanted positions.
    fn prepare(&self, asked: &Asked, job: &Job) -> Result<Vec<Prompted>> {
        let n_prompts = asked.prompts.len();
        if n_prompts == 0 {
            return Err(PrismError::argument("prompts", "an empty list", "at least one prompt"));
        }
        if asked.chunk_tokens == Some(0) {
            return Err(PrismError::argument("batchTokens", 0, "a whole number from 1 on"));
        }
        asked.positions.check(n_prompts)?;
        let prepare = |(index, prompt)| {
            job.cancel.check()?;
            let ids = self.ids(prompt, index, asked.prepend_bos)?;
            Ok(Prompted { positions: asked.positions.of(index, ids.len())?, ids })
        };
        asked.prompts.iter().enumerate().map(prepare).collect()
    }

    /// The target of every prompt, its tokens as ids.
    fn targets(&self, targets: &[Target<Token>], prompts: &[Prompt]) -> Result<Vec<Target>> {
        let config = &self.transformer.config;
        if targets.len() != 1 && targets.len() != prompts.len() {
            let found = format!("{} targets for {} prompts", targets.len(), prompts.len());
            return Err(PrismError::argument("targets", found, "one target, or one per prompt"));
        }
        let of = |(index, prompt): (usize, &Prompt)| {
            let target = targets[index.min(targets.len() - 1)].try_map(|token| self.token(token, prompt))?;
            target.check(config.d_vocab, config.d_model)?;
            Ok(target)
        };
        prompts.iter().enumerate().map(of).collect()
    }
}

impl Asked {
    fn chunk_tokens(&self) -> usize {
        self.chunk_tokens.unwrap_or(run::CHUNK_TOKENS)
    }
}

fn ids_of(prompts: Vec<Prompted>) -> Vec<Vec<u32>> {
    prompts.into_iter().map(|p| p.ids).collect()
}
