//! The one error of the crate: what was found, what was expected, and a code that does not change.

use serde::Serialize;

/// Result with the crate's error.
pub type Result<T> = std::result::Result<T, PrismError>;

/// Everything that can go wrong, as data. The message says what was found, what was expected and what to do;
/// [`PrismError::code`] is stable and [`PrismError::details`] holds the fields.
#[derive(Debug, Clone, thiserror::Error, Serialize)]
#[serde(untagged, rename_all_fields = "camelCase")]
#[allow(missing_docs)] // the message of a variant is its documentation
pub enum PrismError {
    #[error("cannot {operation} {path}: {reason}")]
    Io { path: String, operation: &'static str, reason: String },

    #[error("{file}: {key} is {found}; expected {expected}")]
    ConfigInvalid { file: String, key: String, found: String, expected: String },
    #[error("{file}: {key} = {value} is not supported: {reason}")]
    ConfigUnsupported { file: String, key: String, value: String, reason: String },

    #[error("{file}: {found}; expected {expected}")]
    CheckpointInvalid { file: String, found: String, expected: String },
    #[error(
        "{path}: {missing} not found; expected a directory with config.json and model.safetensors (or model.safetensors.index.json and its shards)"
    )]
    CheckpointMissing { path: String, missing: String },
    #[error("tensor {tensor} of shape {expected:?} is not in the checkpoint")]
    TensorMissing { tensor: String, expected: Vec<usize> },
    #[error("the checkpoint holds {} that the model does not use: {}; leaving weights out would change the numbers", count(.tensors, "tensor"), preview(.tensors))]
    TensorUnexpected { tensors: Vec<String> },
    #[error("tensor {tensor} has shape {found:?}; the config asks for {expected:?}")]
    TensorShape { tensor: String, found: Vec<usize>, expected: Vec<usize> },
    #[error("tensor {tensor} is stored as {found}; expected F32, F16 or BF16{}", quantised(.found))]
    TensorDtype { tensor: String, found: String },
    #[error(
        "{file} is a pickle, which can run code when it is read, and is never opened; convert the checkpoint to model.safetensors (transformers: save_pretrained)"
    )]
    PickleRefused { file: String },

    #[error("{file}: {problem}; expected {expected}")]
    TokenizerInvalid { file: String, problem: String, expected: String },
    #[error("the checkpoint has no tokenizer.json, which {needed_for} needs; give token ids instead")]
    TokenizerMissing { needed_for: String },
    #[error("{text:?} is not one token {place}: it becomes {pieces:?}{}", .hint.as_deref().map(|h| format!("; {h}")).unwrap_or_default())]
    NotOneToken { text: String, place: String, pieces: Vec<String>, hint: Option<String> },
    #[error("token id {id} is outside the vocabulary of {d_vocab} tokens (0 to {})", .d_vocab.saturating_sub(1))]
    TokenRange { id: u64, d_vocab: usize },

    #[error("prompt {prompt} has no tokens; give at least one (a BOS token alone counts if it is given as an id)")]
    PromptEmpty { prompt: usize },
    #[error("prompt {prompt} has {length} tokens; the model's context is {n_context}")]
    PromptTooLong { prompt: usize, length: usize, n_context: usize },
    #[error("position {position} of prompt {prompt} is {problem}; the prompt has {length} tokens: 0 to {}, or -{length} to -1 from its end", .length - 1)]
    PositionRange { prompt: usize, position: i64, length: usize, problem: &'static str },
    #[error("hook point {name:?}: {reason}{}", nearest_names(.nearest))]
    UnknownHook { name: String, reason: String, nearest: Vec<String> },
    #[error("{argument} is {found}; expected {expected}")]
    InvalidArgument { argument: String, found: String, expected: String },

    #[error("{purpose} needs {} that {} not cached: {}; name {} in the run's cache option", count(.missing, "hook point"), if .missing.len() == 1 { "is" } else { "are" }, preview(.missing), if .missing.len() == 1 { "it" } else { "them" })]
    NotCached { purpose: String, missing: Vec<String> },
    #[error("device {device} is not available: {reason}")]
    DeviceUnavailable { device: String, reason: String },
    #[error("{purpose} needs about {} of memory; {} can be used", mebibytes(.needed), mebibytes(.available))]
    Memory { purpose: String, needed: u64, available: u64 },
    #[error(
        "the forward pass is not finite from {first} on (prompt {prompt}): the weights, or what an intervention sets, overflow or hold NaN"
    )]
    NotFinite { first: String, prompt: usize },
    #[error(
        "the components add up to {total}, the forward pass computed {measured}, beyond the tolerance of {tolerance:e} (prompt {prompt}, position {position}; {rows} such rows); set onViolation to 'warn' to look at the numbers"
    )]
    Incomplete { prompt: usize, position: usize, total: f64, measured: f64, tolerance: f64, rows: usize },

    #[error("aborted")]
    Aborted {},
    #[error("the {what} is closed")]
    Closed { what: &'static str },
    #[error("an earlier call on this model panicked ({panic}); load it again")]
    Poisoned { panic: String },
    #[error("internal error in {place}: {problem}; please report it")]
    Internal { place: String, problem: String },
}

/// Every code that [`PrismError::code`] can return, and those that only the TypeScript facade raises.
pub const CODES: [&str; 29] = [
    "IO_ERROR",
    "CONFIG_INVALID",
    "CONFIG_UNSUPPORTED",
    "CHECKPOINT_INVALID",
    "CHECKPOINT_MISSING",
    "TENSOR_MISSING",
    "TENSOR_UNEXPECTED",
    "TENSOR_SHAPE",
    "TENSOR_DTYPE",
    "PICKLE_REFUSED",
    "TOKENIZER_INVALID",
    "TOKENIZER_MISSING",
    "NOT_ONE_TOKEN",
    "TOKEN_RANGE",
    "PROMPT_EMPTY",
    "PROMPT_TOO_LONG",
    "POSITION_RANGE",
    "UNKNOWN_HOOK",
    "UNKNOWN_OPTION",
    "INVALID_ARGUMENT",
    "NOT_CACHED",
    "DEVICE_UNAVAILABLE",
    "MEMORY",
    "NOT_FINITE",
    "INCOMPLETE",
    "ABORTED",
    "CLOSED",
    "POISONED",
    "INTERNAL",
];

impl PrismError {
    /// The stable code, one of [`CODES`].
    pub fn code(&self) -> &'static str {
        use PrismError::*;
        match self {
            Io { .. } => "IO_ERROR",
            ConfigInvalid { .. } => "CONFIG_INVALID",
            ConfigUnsupported { .. } => "CONFIG_UNSUPPORTED",
            CheckpointInvalid { .. } => "CHECKPOINT_INVALID",
            CheckpointMissing { .. } => "CHECKPOINT_MISSING",
            TensorMissing { .. } => "TENSOR_MISSING",
            TensorUnexpected { .. } => "TENSOR_UNEXPECTED",
            TensorShape { .. } => "TENSOR_SHAPE",
            TensorDtype { .. } => "TENSOR_DTYPE",
            PickleRefused { .. } => "PICKLE_REFUSED",
            TokenizerInvalid { .. } => "TOKENIZER_INVALID",
            TokenizerMissing { .. } => "TOKENIZER_MISSING",
            NotOneToken { .. } => "NOT_ONE_TOKEN",
            TokenRange { .. } => "TOKEN_RANGE",
            PromptEmpty { .. } => "PROMPT_EMPTY",
            PromptTooLong { .. } => "PROMPT_TOO_LONG",
            PositionRange { .. } => "POSITION_RANGE",
            UnknownHook { .. } => "UNKNOWN_HOOK",
            InvalidArgument { .. } => "INVALID_ARGUMENT",
            NotCached { .. } => "NOT_CACHED",
            DeviceUnavailable { .. } => "DEVICE_UNAVAILABLE",
            Memory { .. } => "MEMORY",
            NotFinite { .. } => "NOT_FINITE",
            Incomplete { .. } => "INCOMPLETE",
            Aborted {} => "ABORTED",
            Closed { .. } => "CLOSED",
            Poisoned { .. } => "POISONED",
            Internal { .. } => "INTERNAL",
        }
    }

    /// The fields of the error as a JSON object.
    pub fn details(&self) -> serde_json::Value {
        serde_json::to_value(self).unwrap_or_default()
    }

    /// An argument that is not what the function takes.
    pub fn argument(argument: impl Into<String>, found: impl ToString, expected: impl Into<String>) -> Self {
        PrismError::InvalidArgument { argument: argument.into(), found: found.to_string(), expected: expected.into() }
    }

    pub(crate) fn io(path: &std::path::Path, operation: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.display().to_string();
        move |e| PrismError::Io { path, operation, reason: e.to_string() }
    }
}

/// A tensor operation that candle refused: our shapes were wrong, so it is a defect of this crate.
impl From<candle_core::Error> for PrismError {
    fn from(e: candle_core::Error) -> Self {
        // the first line: with RUST_BACKTRACE set the others name files of the machine that built this
        let problem = e.to_string().lines().next().unwrap_or_default().to_string();
        PrismError::Internal { place: "tensor operation".into(), problem }
    }
}

fn count(items: &[String], noun: &str) -> String {
    format!("{} {noun}{}", items.len(), if items.len() == 1 { "" } else { "s" })
}

/// Whether numbers of a type may be codes of quantised weights: integers and the smallest floats.
pub(crate) fn is_code(dtype: &str) -> bool {
    ["I", "U", "F4", "F6", "F8"].iter().any(|start| dtype.starts_with(start))
}

fn quantised(dtype: &str) -> &'static str {
    if is_code(dtype) { ": quantised weights are not read; take the checkpoint that they were made from" } else { "" }
}

fn preview(items: &[String]) -> String {
    let mut text = items.iter().take(5).cloned().collect::<Vec<_>>().join(", ");
    if items.len() > 5 {
        text.push_str(", …");
    }
    text
}

fn nearest_names(names: &[String]) -> String {
    if names.is_empty() { String::new() } else { format!("; nearest: {}", names.join(", ")) }
}

fn mebibytes(bytes: &u64) -> String {
    format!("{:.1} MiB", *bytes as f64 / (1u64 << 20) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_errors_carry_their_fields() {
        let unique: std::collections::BTreeSet<_> = CODES.iter().collect();
        assert_eq!(unique.len(), CODES.len());
        let e = PrismError::PromptTooLong { prompt: 3, length: 70, n_context: 64 };
        assert_eq!(e.code(), "PROMPT_TOO_LONG");
        assert_eq!(e.details(), serde_json::json!({ "prompt": 3, "length": 70, "nContext": 64 }));
        assert_eq!(e.to_string(), "prompt 3 has 70 tokens; the model's context is 64");
        assert_eq!(PrismError::Aborted {}.details(), serde_json::json!({}));
    }

    #[test]
    fn long_lists_are_cut_and_sizes_are_readable() {
        let tensors: Vec<String> = (0..7).map(|i| format!("t{i}")).collect();
        let text = PrismError::TensorUnexpected { tensors }.to_string();
        assert!(text.contains("7 tensors") && text.contains("t4, …") && !text.contains("t5"), "{text}");
        let text = PrismError::Memory { purpose: "x".into(), needed: 3 << 20, available: 1 << 19 }.to_string();
        assert!(text.contains("3.0 MiB") && text.contains("0.5 MiB"), "{text}");
    }
}
