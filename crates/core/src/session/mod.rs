//! A loaded model and all that belongs to it: weights, tokenizer, threads, and the files it came from.

mod asked;
mod attention;
mod calls;
mod causes;
mod circuits;
mod declared;
mod interventions;
mod patches;
mod remaining;

pub use asked::{Asked, Call, LensCall, ProbeCall, Ran, RunCall, SourcesCall, TopTokensCall};
pub use attention::{AttentionCall, DetectCall, Detected};
pub use causes::{AblateAt, AblateCall, Ablated, SetTo};
pub use circuits::Spectrum;
pub use interventions::{Intervention, Interventions, Lists, Reference, Set};
pub use patches::{PairsCall, PatchCall, PathsCall, Swept};
pub use remaining::WithoutCall;

use crate::batch::check_ids;
use crate::checkpoint::{Checkpoint, check_format};
use crate::config::{ModelConfig, RawConfig, check_not_quantised};
use crate::device::{self, DeviceName, WeightDtype};
use crate::engine::Engine;
use crate::error::{PrismError, Result};
use crate::fence::fenced;
use crate::memory::{self, Holdings};
use crate::model::{self, Transformer};
use crate::ops::Kernels;
use crate::run::{self, Job};
use crate::tokenizer::{Prompt, Token, Tokenizer};
use rayon::ThreadPool;
use std::path::Path;
use std::sync::Mutex;

/// How to load.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// Where to compute.
    pub device: DeviceName,
    /// What weights are held and multiplied in.
    pub dtype: WeightDtype,
    /// Threads to compute on; all that the machine has, if not given.
    pub threads: Option<usize>,
    /// Bytes that weights and runs may take together.
    pub memory_limit: Option<u64>,
    /// Accept pre-tokenizer patterns that are not on the list of known ones.
    pub allow_custom_regex: bool,
    /// Accept config keys that nobody knows.
    pub allow_unknown_config: bool,
    /// Which bodies of the operations the CPU runs; a GPU has the plain ones only.
    pub kernels: Kernels,
}

/// A loaded model.
pub struct Session {
    /// Where it computes.
    pub device: DeviceName,
    /// The weights and their forward pass.
    pub transformer: Transformer,
    /// The checkpoint's tokenizer, if it has one.
    pub tokenizer: Option<Tokenizer>,
    /// Numbers of the weights.
    pub parameters: u64,
    /// Bytes of the weights as they are held.
    pub weight_bytes: u64,
    checkpoint: Checkpoint,
    config_bytes: Vec<u8>,
    pool: ThreadPool,
    memory_limit: Option<u64>,
    holdings: Holdings,
    poisoned: Mutex<Option<String>>,
    /// The last field: dropped when the weights are free.
    _unused: device::Unused,
}

const CONFIG: &str = "config.json";

impl Session {
    /// Loads a checkpoint from a directory in Hugging Face format onto a device. Progress counts layers.
    ///
    /// # Errors
    /// `DEVICE_UNAVAILABLE`, `IO_ERROR`, `CHECKPOINT_…`, `CONFIG_…`, `TENSOR_…`, `TOKENIZER_INVALID`, `PICKLE_REFUSED`, `MEMORY`, `ABORTED`,
    /// `INVALID_ARGUMENT`.
    pub fn load(dir: &Path, options: &LoadOptions, job: &Job) -> Result<Self> {
        options.dtype.check(options.device)?;
        let device = options.device.open()?;
        let pool = run::pool(options.threads)?;
        std::fs::read_dir(dir).map_err(PrismError::io(dir, "read the directory"))?;
        check_format(dir)?;
        let config_path = dir.join(CONFIG);
        let config_bytes = RawConfig::read(&config_path)?;
        let raw = RawConfig::parse(&config_path.display().to_string(), &config_bytes)?;
        let config = ModelConfig::resolve(raw, options.allow_unknown_config)?;
        check_not_quantised(dir)?;
        let checkpoint = Checkpoint::open(dir)?;
        let planned = model::plan(&config, &checkpoint, options.dtype)?;
        let weight_bytes = planned.bytes;
        let transient = planned.transient_bytes(&device, pool.current_num_threads());
        // the caller's limit is for weights and runs; what the machine has must do for reading as well
        memory::check_on(&device, "loading the weights", weight_bytes, options.memory_limit)?;
        let on_host = if device.is_cpu() { weight_bytes + transient } else { transient };
        memory::check("loading the weights", on_host, None)?;
        let tokenizer = Tokenizer::load(dir, config.bos_token, options.allow_custom_regex)?;

        let n_layers = config.n_layers;
        let progress = |layers| {
            job.cancel.check()?; // while this layer was read, another one may have been the last
            (job.progress)(layers, n_layers);
            job.cancel.check()
        };
        let mut transformer = pool.install(|| model::load(config, &checkpoint, &device, options.dtype, progress))?;
        if transformer.kernels != Kernels::Plain {
            transformer.run_on(options.kernels);
        }
        let memory_limit = options.memory_limit.map(|limit| limit - weight_bytes);
        let (holdings, poisoned) = (Holdings::default(), Mutex::new(None));
        Ok(Session {
            device: options.device,
            transformer,
            tokenizer,
            parameters: planned.numbers,
            weight_bytes,
            checkpoint,
            config_bytes,
            pool,
            memory_limit,
            holdings,
            poisoned,
            _unused: device::Unused::of(&device),
        })
    }

    /// Tokens that are computed together, unless a prompt alone is longer or the caller says otherwise.
    pub fn chunk_tokens(&self) -> usize {
        run::chunk_tokens(self.device)
    }

    /// Peak bytes of the forward pass over a prompt of this many tokens, attributed at its last position.
    pub fn forward_bytes(&self, tokens: usize) -> u64 {
        memory::forward_of(&self.transformer, &[tokens], 1)
    }

    /// The thread that its calls run on.
    pub fn engine(&self) -> &'static Engine {
        Engine::of(self.device)
    }

    /// SHA-256 over config and weights as they lie on disk.
    ///
    /// # Errors
    /// `CHECKPOINT_INVALID` where a file has changed since it was loaded, `IO_ERROR`.
    pub fn fingerprint(&self) -> Result<String> {
        self.guarded(|| self.checkpoint.fingerprint(&self.config_bytes))
    }

    /// The ids of prompt number `index`.
    ///
    /// # Errors
    /// `PROMPT_EMPTY`, `PROMPT_TOO_LONG`, `TOKEN_RANGE`, `TOKENIZER_MISSING`, `TOKENIZER_INVALID`, `INVALID_ARGUMENT`.
    pub fn ids(&self, prompt: &Prompt, index: usize, prepend_bos: Option<bool>) -> Result<Vec<u32>> {
        let ids = match prompt {
            Prompt::Ids(_) if prepend_bos.is_some() => {
                return Err(PrismError::argument(
                    "prependBos",
                    "given with token ids",
                    "no prependBos: ids run verbatim",
                ));
            }
            Prompt::Ids(ids) => ids.clone(),
            Prompt::Text(text) if text.is_empty() => return Err(PrismError::PromptEmpty { prompt: index }),
            Prompt::Text(text) => self.tokenizer("a text prompt")?.encode(text, prepend_bos)?,
        };
        check_ids(&ids, index, 0, &self.transformer.config)?;
        Ok(ids)
    }

    /// The tokenizer; `needed_for` is for the message.
    ///
    /// # Errors
    /// `TOKENIZER_MISSING`.
    pub fn tokenizer(&self, needed_for: &str) -> Result<&Tokenizer> {
        self.tokenizer.as_ref().ok_or_else(|| PrismError::TokenizerMissing { needed_for: needed_for.into() })
    }

    fn token(&self, token: &Token, prompt: &Prompt) -> Result<u32> {
        match token {
            Token::Id(id) => Ok(*id),
            Token::Text(text) => self.tokenizer("a token given as text")?.token(text, prompt),
        }
    }

    /// Runs `f`; a panic inside it, or on one of its threads, leaves the model unusable but the process alive.
    ///
    /// # Errors
    /// Those of `f`; `POISONED` from a panic on.
    pub fn guarded<T>(&self, f: impl FnOnce() -> Result<T>) -> Result<T> {
        let mut poisoned = self.poisoned.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(panic) = poisoned.clone() {
            return Err(PrismError::Poisoned { panic });
        }
        let result = fenced(f).unwrap_or_else(|panic| Err(PrismError::Poisoned { panic }));
        if let Err(PrismError::Poisoned { panic }) = &result {
            *poisoned = Some(panic.clone());
        }
        result
    }
}
