//! Text ↔ token ids, by the checkpoint's own `tokenizer.json`, behind a fence: the file is checked before it is parsed,
//! and a panic of the tokenizer becomes an error.

use crate::checkpoint::read_small;
use crate::error::{PrismError, Result};
use crate::fence::fenced;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

const MAX_FILE: u64 = 64 << 20;
const MAX_CONFIG: u64 = 1 << 20;
const MAX_ADDED: usize = 65_536;
const MAX_TEXT: usize = 1 << 20;

/// Patterns of pre-tokenizers that are known to be harmless; a hostile one can take exponential time.
const KNOWN_PATTERNS: &[&str] = &[
    // GPT-2
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    // Llama 3
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    // Qwen 2
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    // gpt-oss (o200k)
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    // BLOOM
    r" ?[^(\s|[.,!?…。，、।۔،])]+",
    // Falcon
    r"[0-9][0-9][0-9]",
    r"\s+",
];

/// A checkpoint's tokenizer.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    path: PathBuf,
    bos: Option<u32>,
    unknown: Option<u32>,
}

/// A prompt, as text or as ids.
#[derive(Debug, Clone, PartialEq)]
pub enum Prompt {
    /// To be tokenised.
    Text(String),
    /// To be run verbatim.
    Ids(Vec<u32>),
}

/// A token, by its id or by its text.
#[derive(Debug, Clone, PartialEq)]
pub enum Token {
    /// An id.
    Id(u32),
    /// A text that must be one token where it stands.
    Text(String),
}

/// The parts of tokenizer.json that are looked at before the tokenizer's own parser sees it.
#[derive(Deserialize)]
struct RawTokenizer {
    #[serde(default)]
    added_tokens: Vec<RawAdded>,
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
struct RawAdded {
    id: u32,
    content: String,
}

#[derive(Deserialize)]
struct RawModel {
    #[serde(default)]
    unk_token: Value,
    #[serde(default)]
    unk_id: Value,
}

impl Tokenizer {
    /// The tokenizer of a directory, or `None` where it has no tokenizer.json. `bos` is the config's BOS token, used
    /// where tokenizer_config.json names none.
    ///
    /// # Errors
    /// `TOKENIZER_INVALID`, `IO_ERROR`, `CHECKPOINT_INVALID` where the file is not a regular one.
    pub fn load(dir: &Path, bos: Option<u32>, allow_custom_regex: bool) -> Result<Option<Self>> {
        let path = dir.join("tokenizer.json");
        if std::fs::symlink_metadata(&path).is_err() {
            return Ok(None);
        }
        let bytes = read_small(&path, MAX_FILE, |found| invalid(&path, found, "at most 64 MiB"))?;
        let raw: RawTokenizer = serde_json::from_slice(&bytes)
            .map_err(|e| invalid(&path, format!("not readable ({e})"), "a tokenizer.json of the tokenizers library"))?;
        check(&path, &raw, allow_custom_regex)?;
        let parsed = fenced(|| tokenizers::Tokenizer::from_bytes(&bytes)).unwrap_or_else(|panic| Err(panic.into()));
        let mut inner = parsed
            .map_err(|e| invalid(&path, format!("not usable ({e})"), "a tokenizer.json of the tokenizers library"))?;
        check_unique_ids(&path, &inner)?;
        check_added_ids(&path, &raw.added_tokens, &inner)?;
        // files may carry the lengths of somebody's training run
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|e| invalid(&path, e.to_string(), "a tokenizer without truncation"))?;

        let unknown = match (&raw.model.unk_token, &raw.model.unk_id) {
            (Value::String(token), _) => inner.token_to_id(token),
            (_, id) => id.as_u64().and_then(|id| u32::try_from(id).ok()),
        };
        let bos = named_bos(dir)?.and_then(|token| inner.token_to_id(&token)).or(bos);
        Ok(Some(Tokenizer { inner, path, bos, unknown }))
    }

    /// The ids of a text: as the tokenizer does it, or with (`Some(true)`) or without (`Some(false)`) a BOS token in
    /// front. A token that the tokenizer would append at the end is left out.
    ///
    /// # Errors
    /// `TOKENIZER_INVALID` where the tokenizer fails, `INVALID_ARGUMENT` where the text is over 1 MiB or a BOS token is
    /// asked for and there is none.
    pub fn encode(&self, text: &str, prepend_bos: Option<bool>) -> Result<Vec<u32>> {
        let plain = self.encode_plain(text)?;
        let mut ids =
            match prepend_bos {
                Some(false) => Vec::new(),
                Some(true) => {
                    let expected = "a checkpoint whose config or tokenizer names a BOS token";
                    vec![self.bos.ok_or_else(|| {
                        PrismError::argument("prependBos", "true, but there is no BOS token", expected)
                    })?]
                }
                None => self.prefix(text, plain.len())?,
            };
        ids.extend(plain);
        Ok(ids)
    }

    /// The one id that `text` becomes: behind `prompt` where that is a text, alone where it is a list of ids.
    ///
    /// # Errors
    /// `NOT_ONE_TOKEN` with the pieces, `TOKENIZER_INVALID`, `INVALID_ARGUMENT`.
    pub fn token(&self, text: &str, prompt: &Prompt) -> Result<u32> {
        let before = match prompt {
            Prompt::Text(before) => before.as_str(),
            Prompt::Ids(_) => "",
        };
        let ids = self.encode_plain(before)?;
        let whole = self.encode_plain(&format!("{before}{text}"))?;
        let common = ids.iter().zip(&whole).take_while(|(a, b)| a == b).count();
        if let (true, [id]) = (common == ids.len(), &whole[common..])
            && (Some(*id) != self.unknown || self.inner.id_to_token(*id).as_deref() == Some(text))
        {
            return Ok(*id);
        }
        let pieces = whole[common..].iter().map(|id| self.piece(*id)).collect();
        let place = if before.is_empty() { "by itself" } else { "behind the prompt" };
        let hint = self.hint(text, prompt, &whole[common..]);
        Err(PrismError::NotOneToken { text: text.into(), place: place.into(), pieces, hint })
    }

    /// What to try instead of a text that is not one token: the same with a space in front, if that is one.
    fn hint(&self, text: &str, prompt: &Prompt, pieces: &[u32]) -> Option<String> {
        let spaced = format!(" {text}");
        if !text.is_empty() && !text.starts_with(' ') && self.token(&spaced, prompt).is_ok() {
            return Some(format!("{spaced:?}, with a space in front, is one token there"));
        }
        let unknown = self.unknown.filter(|unknown| pieces == [*unknown])?;
        Some(format!(
            "the vocabulary does not have it, and {:?} stands for whatever it does not have",
            self.piece(unknown)
        ))
    }

    /// Ids → text, special tokens included.
    ///
    /// # Errors
    /// `TOKEN_RANGE` for an id that the tokenizer does not have, `TOKENIZER_INVALID` where it fails.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        if let Some(id) = ids.iter().find(|id| self.inner.id_to_token(**id).is_none()) {
            let d_vocab = self.inner.get_vocab_size(true);
            return Err(PrismError::TokenRange { id: u64::from(*id), d_vocab });
        }
        let decoded = fenced(|| self.inner.decode(ids, false)).unwrap_or_else(|panic| Err(panic.into()));
        decoded.map_err(|e| invalid(&self.path, format!("decoding failed ({e})"), "a tokenizer that decodes its ids"))
    }

    /// The id of a token by its exact entry in the vocabulary.
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The entry of an id in the vocabulary.
    pub fn id_to_token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// Of the ids below `d_vocab` those that no text is made of: added tokens that are special, tokens reserved for later
    /// use, and ids that the tokenizer does not have.
    pub fn special(&self, d_vocab: u32) -> Vec<u32> {
        let added = self.inner.get_added_tokens_decoder();
        let is_special = |id: &u32| match self.inner.id_to_token(*id) {
            None => true,
            Some(token) => added.get(id).is_some_and(|a| a.special) || is_reserved(&token),
        };
        (0..d_vocab).filter(is_special).collect()
    }

    /// The id that stands for what the vocabulary does not have.
    pub fn unknown(&self) -> Option<u32> {
        self.unknown
    }

    fn piece(&self, id: u32) -> String {
        self.inner.id_to_token(id).unwrap_or_else(|| id.to_string())
    }

    fn encode_plain(&self, text: &str) -> Result<Vec<u32>> {
        Ok(self.encoding(text, false)?.get_ids().to_vec())
    }

    /// The special tokens that the tokenizer puts in front of a text of `plain` tokens.
    fn prefix(&self, text: &str, plain: usize) -> Result<Vec<u32>> {
        let whole = self.encoding(text, true)?;
        let added = whole.len().saturating_sub(plain);
        let front = whole.get_special_tokens_mask().iter().take(added).take_while(|m| **m == 1).count();
        Ok(whole.get_ids()[..front].to_vec())
    }

    fn encoding(&self, text: &str, special: bool) -> Result<tokenizers::Encoding> {
        if text.len() > MAX_TEXT {
            return Err(PrismError::argument("prompt", format!("a text of {} bytes", text.len()), "at most 1 MiB"));
        }
        let encoded = fenced(|| self.inner.encode_fast(text, special)).unwrap_or_else(|panic| Err(panic.into()));
        encoded.map_err(|e| invalid(&self.path, format!("encoding failed ({e})"), "a tokenizer that encodes any text"))
    }
}

/// Names like `<unused12>`, `[unused12]`, `<|reserved_special_token_12|>`, `<reserved_12>`.
fn is_reserved(token: &str) -> bool {
    let inner = token.trim_matches(['<', '>', '[', ']', '|']);
    inner.len() + 2 <= token.len()
        && ["unused", "reserved_special_token", "reserved"].iter().any(|name| {
            let number = inner.strip_prefix(name).map(|rest| rest.trim_start_matches('_'));
            number.is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
        })
}

fn invalid(path: &Path, problem: impl Into<String>, expected: impl Into<String>) -> PrismError {
    PrismError::TokenizerInvalid {
        file: path.display().to_string(),
        problem: problem.into(),
        expected: expected.into(),
    }
}

fn check(path: &Path, raw: &RawTokenizer, allow_custom_regex: bool) -> Result<()> {
    if raw.added_tokens.len() > MAX_ADDED {
        return Err(invalid(path, format!("{} added tokens", raw.added_tokens.len()), format!("at most {MAX_ADDED}")));
    }
    let mut patterns = Vec::new();
    for part in [&raw.normalizer, &raw.pre_tokenizer, &raw.post_processor, &raw.decoder] {
        collect_patterns(part, &mut patterns);
    }
    match patterns.iter().find(|p| !allow_custom_regex && !KNOWN_PATTERNS.contains(p)) {
        Some(pattern) => {
            let shown: String = pattern.chars().take(80).collect();
            Err(invalid(
                path,
                format!("the unknown pattern {shown:?}"),
                "a known pattern (allowCustomRegex, --allow-custom-regex accept others)",
            ))
        }
        None => Ok(()),
    }
}

/// Every `{"Regex": pattern}` below a value.
fn collect_patterns<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(map) => {
            found.extend(map.get("Regex").and_then(Value::as_str));
            map.values().for_each(|v| collect_patterns(v, found));
        }
        Value::Array(list) => list.iter().for_each(|v| collect_patterns(v, found)),
        _ => {}
    }
}

fn check_unique_ids(path: &Path, tokenizer: &tokenizers::Tokenizer) -> Result<()> {
    let vocabulary = tokenizer.get_vocab(true);
    let mut seen = BTreeSet::new();
    match vocabulary.iter().find(|(_, id)| !seen.insert(**id)) {
        Some((token, id)) => {
            Err(invalid(path, format!("the id {id} of {token:?} stands for two tokens"), "unique ids"))
        }
        None => Ok(()),
    }
}

/// The library numbers added tokens itself, and only warns where the file says otherwise.
fn check_added_ids(path: &Path, added: &[RawAdded], tokenizer: &tokenizers::Tokenizer) -> Result<()> {
    let becomes = |token: &RawAdded| tokenizer.token_to_id(&token.content).filter(|id| *id != token.id);
    match added.iter().find_map(|token| Some((token, becomes(token)?))) {
        Some((RawAdded { id, content }, becomes)) => Err(invalid(
            path,
            format!("the added token {content:?} of id {id} becomes {becomes}"),
            "its id in the vocabulary, or the ones that follow it",
        )),
        None => Ok(()),
    }
}

/// `bos_token` of tokenizer_config.json: a text, or an object with a `content`.
fn named_bos(dir: &Path) -> Result<Option<String>> {
    let path = dir.join("tokenizer_config.json");
    if std::fs::symlink_metadata(&path).is_err() {
        return Ok(None);
    }
    let bytes = read_small(&path, MAX_CONFIG, |found| invalid(&path, found, "at most 1 MiB"))?;
    let config: Value = serde_json::from_slice(&bytes)
        .map_err(|e| invalid(&path, format!("not readable as JSON ({e})"), "a JSON object"))?;
    let bos = &config["bos_token"];
    Ok(bos.as_str().or_else(|| bos["content"].as_str()).map(String::from))
}
