//! tokenizer.json: what is looked at before the library's own parser sees it, and after.

use super::{Inner, charsmap, invalid, patterns};
use crate::checkpoint::read_small;
use crate::error::Result;
use crate::fence::fenced;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;
use tokenizers::{Model, ModelWrapper};

const MAX_FILE: u64 = 64 << 20;
const MAX_ADDED: usize = 65_536;
/// Bytes of a text that a normalizer or decoder puts in; those of published files have a few.
const MAX_CONTENT: usize = 256;
/// Pieces of a word are searched in quadratic time.
const MAX_WORD: u64 = 1000;
/// Sums of a million scores stay finite.
const MAX_SCORE: f64 = 1e30;

/// A tokenizer.json that passed.
pub struct File {
    pub inner: Inner,
    /// The unknown token's id, where the file says it.
    pub unknown: Option<u32>,
    /// The unknown token, where the file names it.
    pub unk_token: Option<String>,
    /// Whether a pre-tokenizer or decoder works on bytes.
    pub byte_level: bool,
}

#[derive(Deserialize)]
struct Raw {
    #[serde(default)]
    added_tokens: Vec<Added>,
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    pre_tokenizer: Value,
    #[serde(default)]
    post_processor: Value,
    #[serde(default)]
    decoder: Value,
    model: RawModel,
}

#[derive(Deserialize)]
struct Added {
    id: u32,
    content: String,
}

#[derive(Deserialize)]
struct RawModel {
    #[serde(default)]
    unk_token: Option<String>,
    #[serde(default)]
    unk_id: Option<u32>,
    #[serde(default)]
    dropout: Option<f64>,
    #[serde(default)]
    max_input_chars_per_word: Option<u64>,
}

/// Reads and checks a file.
///
/// # Errors
/// `TOKENIZER_INVALID`, `IO_ERROR`, `CHECKPOINT_INVALID`.
pub fn read(path: &Path, allow_custom_regex: bool) -> Result<File> {
    const KIND: &str = "a tokenizer.json of the tokenizers library";
    let bytes = read_small(path, MAX_FILE, |found| invalid(path, found, "at most 64 MiB"))?;
    let raw: Raw = serde_json::from_slice(&bytes).map_err(|e| invalid(path, format!("not readable ({e})"), KIND))?;
    check(path, &raw, allow_custom_regex)?;
    let parsed = fenced(|| Inner::from_bytes(&bytes)).unwrap_or_else(|panic| Err(panic.into()));
    let mut inner = parsed.map_err(|e| invalid(path, format!("not usable ({e})"), KIND))?;
    check_model(path, &inner)?;
    check_added_ids(path, &raw.added_tokens, &inner)?;
    // files may carry the lengths of somebody's training run
    inner.with_padding(None);
    inner.with_truncation(None).map_err(|e| invalid(path, e.to_string(), "a tokenizer without truncation"))?;
    let byte_level = has_type(&raw.pre_tokenizer, "ByteLevel") || has_type(&raw.decoder, "ByteLevel");
    Ok(File { inner, unknown: raw.model.unk_id, unk_token: raw.model.unk_token, byte_level })
}

fn check(path: &Path, raw: &Raw, allow_custom_regex: bool) -> Result<()> {
    if raw.added_tokens.len() > MAX_ADDED {
        return Err(invalid(path, format!("{} added tokens", raw.added_tokens.len()), format!("at most {MAX_ADDED}")));
    }
    let parts = [&raw.normalizer, &raw.pre_tokenizer, &raw.post_processor, &raw.decoder];
    if let Some(pattern) = patterns::unknown(parts).filter(|_| !allow_custom_regex) {
        let shown: String = pattern.chars().take(80).collect();
        let expected = "a known pattern (allowCustomRegex, --allow-custom-regex accept others)";
        return Err(invalid(path, format!("the unknown pattern {shown:?}"), expected));
    }
    parts.into_iter().try_for_each(|part| check_steps(path, part))?;
    if raw.model.dropout.is_some_and(|share| share != 0.0) {
        return Err(invalid(path, "a dropout: ids would come at random", "a model without dropout"));
    }
    match raw.model.max_input_chars_per_word {
        Some(n) if n > MAX_WORD => {
            Err(invalid(path, format!("words of {n} characters"), format!("at most {MAX_WORD}")))
        }
        _ => Ok(()),
    }
}

/// Steps whose memory a file could make as large as it likes, wherever they stand.
fn check_steps(path: &Path, part: &Value) -> Result<()> {
    match part {
        Value::Object(step) => {
            for key in ["content", "prepend"] {
                if let Some(length) = step.get(key).and_then(Value::as_str).map(str::len).filter(|n| *n > MAX_CONTENT) {
                    let expected = format!("at most {MAX_CONTENT}");
                    return Err(invalid(path, format!("{key} of {length} bytes"), expected));
                }
            }
            if let Some(map) = step.get("precompiled_charsmap") {
                charsmap::check(map).map_err(|problem| invalid(path, problem, "a charsmap of SentencePiece"))?;
            }
            step.values().try_for_each(|value| check_steps(path, value))
        }
        Value::Array(list) => list.iter().try_for_each(|value| check_steps(path, value)),
        _ => Ok(()),
    }
}

fn has_type(part: &Value, name: &str) -> bool {
    match part {
        Value::Object(step) => step.get("type").is_some_and(|t| t == name) || step.values().any(|v| has_type(v, name)),
        Value::Array(list) => list.iter().any(|v| has_type(v, name)),
        _ => false,
    }
}

/// Every id stands for one token, every token has one id, and a search among scores has an end.
fn check_model(path: &Path, inner: &Inner) -> Result<()> {
    if let ModelWrapper::Unigram(model) = inner.get_model() {
        if let Some((token, score)) = model.iter().find(|(_, score)| score.is_nan() || score.abs() > MAX_SCORE) {
            let problem = format!("the score {score} of {token:?}");
            return Err(invalid(path, problem, format!("scores of at most {MAX_SCORE:e}")));
        }
        let (pieces, tokens) = (model.iter().count(), model.get_vocab().len());
        if pieces != tokens {
            return Err(invalid(path, format!("{pieces} pieces, of which {tokens} differ"), "unique tokens"));
        }
    }
    let mut seen = BTreeSet::new();
    match inner.get_vocab(true).iter().find(|(_, id)| !seen.insert(**id)) {
        Some((token, id)) => {
            Err(invalid(path, format!("the id {id} of {token:?} stands for two tokens"), "unique ids"))
        }
        None => Ok(()),
    }
}

/// The library numbers added tokens itself, and only warns where the file says otherwise.
fn check_added_ids(path: &Path, added: &[Added], inner: &Inner) -> Result<()> {
    let becomes = |token: &Added| inner.token_to_id(&token.content).filter(|id| *id != token.id);
    match added.iter().find_map(|token| Some((token, becomes(token)?))) {
        Some((Added { id, content }, becomes)) => Err(invalid(
            path,
            format!("the added token {content:?} of id {id} becomes {becomes}"),
            "its id in the vocabulary, or the ones that follow it",
        )),
        None => Ok(()),
    }
}
