//! What the files beside tokenizer.json say: which class of `transformers` opens it, its special tokens, its options.
//!
//! `add_bos_token` and `add_eos_token` are not among them: `transformers` 5 ignores both where there is a tokenizer.json,
//! whose post-processor says what is put around a text.

use super::class::{Class, default_bos};
use super::file::File;
use super::invalid;
use crate::checkpoint::read_small;
use crate::error::Result;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tokenizers::{AddedToken, ModelWrapper};

const MAX_FILE: u64 = 1 << 20;

/// The tokens that `transformers` names (`SPECIAL_TOKENS_ATTRIBUTES`).
const NAMES: [&str; 7] = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// tokenizer_config.json, special_tokens_map.json, and what config.json says of the tokenizer.
pub struct Names {
    path: PathBuf,
    config: Map<String, Value>,
    /// The class of `transformers` that puts parts of its own in place of tokenizer.json's, if it is one of those.
    pub class: Option<Class>,
    /// The id that the family's configuration class takes where config.json does not name a BOS token.
    pub default_bos: Option<u32>,
}

impl Names {
    /// Reads what there is beside a tokenizer.json.
    ///
    /// # Errors
    /// `TOKENIZER_INVALID` where tokenizer_config.json or special_tokens_map.json is no JSON object of at most 1 MiB, or
    /// one of its values is of another type; `IO_ERROR`, `CHECKPOINT_INVALID`.
    pub fn read(dir: &Path, file: &File) -> Result<Self> {
        let path = dir.join("tokenizer_config.json");
        let mut config = object(&path)?.unwrap_or_default();
        // transformers reads the older file only where the newer one does not list the added tokens itself
        if !config.contains_key("added_tokens_decoder") {
            config.extend(object(&dir.join("special_tokens_map.json"))?.unwrap_or_default());
        }
        // whoever loads a model has read this file, and refused what is wrong with it
        let model = object(&dir.join("config.json")).ok().flatten().unwrap_or_default();
        let family = model.get("model_type").and_then(Value::as_str).unwrap_or_default();
        let default_bos = default_bos(family).filter(|_| !model.contains_key("bos_token_id"));
        let mut names = Names { path, config, class: None, default_bos };
        names.check()?;
        let declared = names.text("tokenizer_class")?.or(model.get("tokenizer_class").and_then(Value::as_str));
        // all of these classes are for BPE, and would make another model's vocabulary one without merges
        if let ModelWrapper::BPE(_) = file.inner.get_model() {
            names.class = Class::of(family, declared, file.byte_level);
        }
        Ok(names)
    }

    /// Types of what is used, and of what would be used were it not for tokenizer.json.
    fn check(&self) -> Result<()> {
        for flag in ["add_bos_token", "add_eos_token", "add_prefix_space", "legacy", "split_special_tokens"] {
            self.flag(flag)?;
        }
        self.listed()?;
        self.special().map(drop)
    }

    /// A named token: as the files say it, else by the class's default.
    ///
    /// # Errors
    /// `TOKENIZER_INVALID` where it is neither a text, nor an object with one, nor null.
    pub fn named(&self, name: &str) -> Result<Option<AddedToken>> {
        match self.config.get(name) {
            Some(value) => self.token(name, value),
            None => Ok(self.class.and_then(|class| class.named(name)).map(|token| AddedToken::from(token, true))),
        }
    }

    /// Every special token that the files name; `transformers` adds them to those of tokenizer.json.
    ///
    /// # Errors
    /// `TOKENIZER_INVALID` as for [`Self::named`], and for the lists of extra ones.
    pub fn special(&self) -> Result<Vec<AddedToken>> {
        let mut tokens = Vec::new();
        for name in NAMES {
            tokens.extend(self.named(name)?);
        }
        for name in ["extra_special_tokens", "additional_special_tokens"] {
            let list: Vec<&Value> = match self.config.get(name) {
                None | Some(Value::Null) => continue,
                Some(Value::Array(list)) => list.iter().collect(),
                Some(Value::Object(map)) => map.values().collect(),
                Some(other) => return Err(self.wrong(name, other, "a list of tokens")),
            };
            for token in &list {
                tokens.extend(self.token(name, token)?);
            }
            if !list.is_empty() {
                break; // the older key counts only where the newer one says nothing
            }
        }
        Ok(tokens)
    }

    /// The tokens that tokenizer_config.json lists by their id: `transformers` adds those that tokenizer.json does not
    /// have, and its flags win over that file's.
    ///
    /// # Errors
    /// `TOKENIZER_INVALID` where it is no such list.
    pub fn listed(&self) -> Result<Vec<AddedToken>> {
        const NAME: &str = "added_tokens_decoder";
        let Some(list) = self.config.get(NAME) else { return Ok(Vec::new()) };
        let wrong = |found| self.wrong(NAME, found, "an object of ids and tokens");
        let mut tokens = BTreeMap::new();
        for (id, token) in list.as_object().ok_or_else(|| wrong(list))? {
            let (Ok(id), Some(content)) = (id.parse::<u32>(), token["content"].as_str()) else {
                return Err(wrong(token));
            };
            let flag = |name: &str| token[name].as_bool();
            let special = flag("special").unwrap_or(false);
            let token = AddedToken::from(content, special).normalized(flag("normalized").unwrap_or(!special));
            let [left, right, single] = ["lstrip", "rstrip", "single_word"].map(|name| flag(name).unwrap_or(false));
            tokens.insert(id, token.lstrip(left).rstrip(right).single_word(single));
        }
        Ok(tokens.into_values().collect())
    }

    /// An option that is on, off, or not given.
    ///
    /// # Errors
    /// `TOKENIZER_INVALID` where it is no such thing.
    pub fn flag(&self, name: &str) -> Result<Option<bool>> {
        match self.config.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(other) => Err(self.wrong(name, other, "true, false or null")),
        }
    }

    fn text(&self, name: &str) -> Result<Option<&str>> {
        match self.config.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(self.wrong(name, other, "a text")),
        }
    }

    fn token(&self, name: &str, value: &Value) -> Result<Option<AddedToken>> {
        let flag = |name: &str| value[name].as_bool().unwrap_or(false);
        let content = match (value, &value["content"]) {
            (Value::Null, _) => return Ok(None),
            (Value::String(content), _) | (Value::Object(_), Value::String(content)) => content.as_str(),
            _ => return Err(self.wrong(name, value, "a text, or an object with a content")),
        };
        let token = AddedToken::from(content, true).lstrip(flag("lstrip")).rstrip(flag("rstrip"));
        Ok(Some(token.single_word(flag("single_word")).normalized(flag("normalized"))))
    }

    fn wrong(&self, name: &str, found: &Value, expected: &str) -> crate::error::PrismError {
        let shown: String = found.to_string().chars().take(80).collect();
        invalid(&self.path, format!("{name} is {shown}"), expected)
    }
}

/// A file's JSON object, or `None` where there is no file.
fn object(path: &Path) -> Result<Option<Map<String, Value>>> {
    if std::fs::symlink_metadata(path).is_err() {
        return Ok(None);
    }
    let bytes = read_small(path, MAX_FILE, |found| invalid(path, found, "at most 1 MiB"))?;
    let object = serde_json::from_slice(&bytes);
    object.map(Some).map_err(|e| invalid(path, format!("not readable as JSON ({e})"), "a JSON object"))
}
