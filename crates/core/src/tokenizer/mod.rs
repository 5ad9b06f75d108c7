//! Text ↔ token ids, by the checkpoint's own `tokenizer.json`, behind a fence: the file is checked before it is parsed,
//! and a panic of the tokenizer becomes an error.

mod charsmap;
mod class;
mod file;
mod names;
mod patterns;
mod steps;

use crate::error::{PrismError, Result};
use crate::fence::fenced;
use names::Names;
use std::path::{Path, PathBuf};
use steps::{Rewrites, Splits};
use tokenizers::{DecoderWrapper, Encoding, ModelWrapper, PostProcessorWrapper, TokenizerImpl};

const MAX_TEXT: usize = 1 << 20;

/// The library's tokenizer, with the normalizers and pre-tokenizers of [`steps`].
type Inner = TokenizerImpl<ModelWrapper, Rewrites, Splits, PostProcessorWrapper, DecoderWrapper>;

/// A checkpoint's tokenizer.
pub struct Tokenizer {
    inner: Inner,
    path: PathBuf,
    /// What the tokenizer puts in front of every text.
    front: Vec<u32>,
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

impl Prompt {
    /// The text, or an empty one for ids.
    fn text(&self) -> &str {
        match self {
            Prompt::Text(text) => text,
            Prompt::Ids(_) => "",
        }
    }
}

/// A token, by its id or by its text.
#[derive(Debug, Clone, PartialEq)]
pub enum Token {
    /// An id.
    Id(u32),
    /// A text that must be one token where it stands.
    Text(String),
}

impl Tokenizer {
    /// The tokenizer of a directory, or `None` where it has no tokenizer.json: as `AutoTokenizer` of `transformers` opens
    /// it, save that nothing cuts or fills up. `bos` is the config's BOS token, used where the tokenizer's own files name
    /// none that the vocabulary has; after it the default of the family's class, if that is a special token here.
    ///
    /// # Errors
    /// `TOKENIZER_INVALID`, `IO_ERROR`, `CHECKPOINT_INVALID` where the file is not a regular one.
    pub fn load(dir: &Path, bos: Option<u32>, allow_custom_regex: bool) -> Result<Option<Self>> {
        let path = dir.join("tokenizer.json");
        if std::fs::symlink_metadata(&path).is_err() {
            return Ok(None);
        }
        let file = file::read(&path, allow_custom_regex)?;
        let names = Names::read(dir, &file)?;
        let mut inner = file.inner;
        let named = names.named("bos_token")?.and_then(|token| inner.token_to_id(&token.content));
        let expected = "files that agree with each other";
        fenced(|| apply(&names, &mut inner))
            .unwrap_or_else(|panic| Err(panic.into()))
            .map_err(|e| invalid(&path, format!("not usable ({e})"), expected))?;

        let front = front(&path, &inner)?;
        let unknown = file.unknown.or(file.unk_token.and_then(|token| inner.token_to_id(&token)));
        // a class's default is for its own vocabulary: in another one the id is some word
        let special =
            |id: &u32| inner.get_added_vocabulary().get_added_tokens_decoder().get(id).is_some_and(|t| t.special);
        let default = names.default_bos.filter(|id| special(id) && Some(*id) != unknown);
        let bos = named.or(bos).or(default);
        Ok(Some(Tokenizer { inner, path, front, bos, unknown }))
    }

    /// The ids of a text: as the tokenizer does it, or with (`Some(true)`) or without (`Some(false)`) a BOS token in
    /// front. A token that the tokenizer would append at the end is left out.
    ///
    /// # Errors
    /// `TOKENIZER_INVALID` where the tokenizer fails, `INVALID_ARGUMENT` where the text is over 1 MiB or a BOS token is
    /// asked for and there is none.
    pub fn encode(&self, text: &str, prepend_bos: Option<bool>) -> Result<Vec<u32>> {
        let front = match (prepend_bos, self.bos) {
            (None, _) => self.front.clone(),
            (Some(false), _) => Vec::new(),
            (Some(true), Some(bos)) => vec![bos],
            (Some(true), None) => {
                let expected = "a checkpoint whose config or tokenizer names a BOS token";
                return Err(PrismError::argument("prependBos", "true, but there is no BOS token", expected));
            }
        };
        Ok([front, self.encode_plain(text)?].concat())
    }

    /// The one id that `text` becomes: behind `prompt` where that is a text, alone where it is a list of ids.
    ///
    /// # Errors
    /// `NOT_ONE_TOKEN` with the pieces, `TOKENIZER_INVALID`, `INVALID_ARGUMENT`.
    pub fn token(&self, text: &str, prompt: &Prompt) -> Result<u32> {
        let (id, added) = self.resolve(text, prompt)?;
        if let Some(id) = id {
            return Ok(id);
        }
        let pieces = added.iter().map(|id| self.piece(*id)).collect();
        let place = if prompt.text().is_empty() { "by itself" } else { "behind the prompt" };
        let hint = self.hint(text, prompt, &added);
        Err(PrismError::NotOneToken { text: text.into(), place: place.into(), pieces, hint })
    }

    /// The id that `text` becomes, if it is one and the prompt's stay as they are; and what comes behind the ids that stay.
    fn resolve(&self, text: &str, prompt: &Prompt) -> Result<(Option<u32>, Vec<u32>)> {
        let before = prompt.text();
        let ids = self.encode_plain(before)?;
        let mut whole = self.encode_plain(&format!("{before}{text}"))?;
        let common = ids.iter().zip(&whole).take_while(|(a, b)| a == b).count();
        let added = whole.split_off(common);
        let known = |id: u32| Some(id) != self.unknown || self.inner.id_to_token(id).as_deref() == Some(text);
        let one = match added[..] {
            [id] if common == ids.len() && known(id) => Some(id),
            _ => None,
        };
        Ok((one, added))
    }

    /// What to try instead of a text that is not one token: the same with a space in front, or without, if that is one.
    fn hint(&self, text: &str, prompt: &Prompt, pieces: &[u32]) -> Option<String> {
        let (other, where_to) = match text.strip_prefix(' ') {
            Some(bare) => (bare.to_string(), "without the space in front"),
            None => (format!(" {text}"), "with a space in front"),
        };
        if !text.trim().is_empty() && matches!(self.resolve(&other, prompt), Ok((Some(_), _))) {
            return Some(format!("{other:?}, {where_to}, is one token there"));
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

    /// The ids of a text, and nothing around them.
    fn encode_plain(&self, text: &str) -> Result<Vec<u32>> {
        if text.len() > MAX_TEXT {
            return Err(PrismError::argument("prompt", format!("a text of {} bytes", text.len()), "at most 1 MiB"));
        }
        let encoded = fenced(|| self.inner.encode_fast(text, false)).unwrap_or_else(|panic| Err(panic.into()));
        let encoded = encoded
            .map_err(|e| invalid(&self.path, format!("encoding failed ({e})"), "a tokenizer that encodes any text"))?;
        Ok(encoded.get_ids().to_vec())
    }
}

/// The special tokens that the post-processor puts in front of a text, seen on a text of one token.
fn front(path: &Path, inner: &Inner) -> Result<Vec<u32>> {
    let text = || Encoding::from_tokens(vec![tokenizers::Token::new(0, String::new(), (0, 0))], 0);
    let whole = fenced(|| inner.post_process(text(), None, true)).unwrap_or_else(|panic| Err(panic.into()));
    let whole =
        whole.map_err(|e| invalid(path, format!("its post-processor failed ({e})"), "one that takes any text"))?;
    let mask = whole.get_special_tokens_mask();
    match mask.iter().filter(|special| **special == 0).count() {
        1 => Ok(whole.get_ids()[..mask.iter().take_while(|special| **special == 1).count()].to_vec()),
        times => {
            let problem = format!("a post-processor that holds the text {times} times");
            Err(invalid(path, problem, "one that holds it once"))
        }
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

/// Makes of the file's tokenizer what `transformers` makes of it: the parts that the class builds itself, and the special
/// tokens that the files name. One that the vocabulary does not have gets the next id, beyond it.
fn apply(names: &Names, inner: &mut Inner) -> std::result::Result<(), Box<dyn std::error::Error + Send + Sync>> {
    if let Some(class) = names.class {
        let parts = class.parts(names.flag("add_prefix_space")?, names.flag("legacy")?.unwrap_or(false));
        inner.with_normalizer(serde_json::from_value::<Option<Rewrites>>(parts.normalizer)?)?;
        inner.with_pre_tokenizer(serde_json::from_value::<Option<Splits>>(parts.pre_tokenizer)?);
        inner.with_decoder(serde_json::from_value::<Option<DecoderWrapper>>(parts.decoder)?);
        if class.drops_template() {
            inner.with_post_processor(None::<PostProcessorWrapper>);
        }
        let unknown = names.named("unk_token")?.map(|token| token.content);
        if let ModelWrapper::BPE(bpe) = inner.get_model()
            && let Some(bpe) = class.model(bpe, unknown)
        {
            inner.with_model(bpe);
        }
    }
    inner.add_tokens(names.listed()?)?;
    let added = |inner: &Inner, token: &str| inner.get_added_vocabulary().get_vocab().contains_key(token);
    for token in names.special()? {
        if !added(inner, &token.content) {
            inner.add_tokens([token])?;
        }
    }
    inner.set_encode_special_tokens(names.flag("split_special_tokens")?.unwrap_or(false));
    Ok(())
}
