//! The keys of a `config.json`, each read with its kind and limits; what was never read is known at the end.

use crate::error::{PrismError, Result};
use crate::strict_json::UniqueMap;
use serde_json::Value;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::rc::Rc;

/// Limit of a config file, in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// Keys of any family that say nothing about the forward pass: provenance, training, generation, classification.
pub(super) const HARMLESS: &[&str] = &[
    "_attn_implementation",
    "_attn_implementation_autoset",
    "_attn_implementation_internal",
    "_commit_hash",
    "_experts_implementation",
    "_flash_attn_2_enabled",
    "_name_or_path",
    "_num_labels",
    "activation_dropout",
    "architectures",
    "attention_dropout",
    "attention_probs_dropout_prob",
    "attn_implementation",
    "attn_pdrop",
    "auto_map",
    "bad_words_ids",
    "begin_suppress_tokens",
    "bos_token",
    "chunk_size_feed_forward",
    "classifier_dropout",
    "cls_token_id",
    "cross_attention_hidden_size",
    "decoder_start_token_id",
    "diversity_penalty",
    "do_sample",
    "dropout",
    "dtype",
    "early_stopping",
    "embd_dropout",
    "embd_pdrop",
    "embed_dropout",
    "embedding_dropout",
    "encoder_no_repeat_ngram_size",
    "eos_token",
    "eos_token_id",
    "exponential_decay_length_penalty",
    "finetuning_task",
    "flash_attn",
    "flash_rotary",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "fused_dense",
    "gradient_checkpointing",
    "hidden_dropout",
    "hidden_dropout_prob",
    "id2label",
    "init_std",
    "initializer_factor",
    "initializer_range",
    "is_decoder",
    "is_encoder_decoder", // read for the file itself; parts of a config repeat it
    "keys_to_ignore_at_inference",
    "label2id",
    "language",
    "layerdrop",
    "length_penalty",
    "license",
    "mask_token_id",
    "max_length",
    "max_new_tokens",
    "min_length",
    "model_max_length",
    "model_name",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_labels",
    "num_return_sequences",
    "onnx",
    "output_attentions",
    "output_hidden_states",
    "output_past",
    "output_router_logits",
    "output_scores",
    "pad_token",
    "pad_token_id",
    "prefix",
    "pretraining_tp", // how a matrix product is cut, not what it is
    "problem_type",
    "remove_invalid_values",
    "repetition_penalty",
    "resid_dropout",
    "resid_pdrop",
    "residual_dropout",
    "return_dict",
    "return_dict_in_generate",
    "router_aux_loss_coef",
    "sep_token_id",
    "seq_length",
    "summary_activation",
    "summary_first_dropout",
    "summary_proj_to_labels",
    "summary_type",
    "summary_use_proj",
    "suppress_tokens",
    "task_specific_params",
    "temperature",
    "tf_legacy_loss",
    "tie_encoder_decoder",
    "tokenizer_class",
    "top_k",
    "top_p",
    "torch_dtype",
    "torchscript",
    "transformers.js_config",
    "transformers_version",
    "typical_p",
    "unk_token",
    "unk_token_id",
    "unsloth_version",
    "use_bfloat16",
    "use_cache",
    "use_flash_attn",
    "use_return_dict",
];

/// A parsed `config.json` that remembers which keys were asked for. `null` is not the same as a missing key: in
/// transformers it replaces the default. A number that must be there is refused where it is `null`; an optional one is
/// none, and a switch is off.
pub struct RawConfig {
    file: String,
    map: BTreeMap<String, Value>,
    read: RefCell<BTreeSet<String>>,
    /// Objects that were asked for, by their keys: their own unread keys count too.
    objects: RefCell<BTreeMap<String, Rc<RawConfig>>>,
}

impl RawConfig {
    /// The bytes of a file of at most 1 MiB.
    ///
    /// # Errors
    /// `CHECKPOINT_MISSING`, `IO_ERROR`, `CONFIG_INVALID`.
    pub fn read(path: &Path) -> Result<Vec<u8>> {
        crate::checkpoint::read_small(path, MAX_BYTES, |found| PrismError::ConfigInvalid {
            file: path.display().to_string(),
            key: "the file".into(),
            found,
            expected: "at most 1 MiB".into(),
        })
    }

    /// Parses the bytes of a file; `file` is for messages.
    ///
    /// # Errors
    /// `CONFIG_INVALID` unless it is one JSON object without repeated keys.
    pub fn parse(file: &str, bytes: &[u8]) -> Result<Self> {
        let parsed: std::result::Result<UniqueMap<Value>, _> = serde_json::from_slice(bytes);
        match parsed {
            Ok(UniqueMap(map)) => Ok(Self::of(file.into(), map)),
            Err(e) => Err(PrismError::ConfigInvalid {
                file: file.into(),
                key: "the file".into(),
                found: format!("not readable as JSON ({e})"),
                expected: "a JSON object".into(),
            }),
        }
    }

    fn of(file: String, map: BTreeMap<String, Value>) -> Self {
        RawConfig { file, map, read: RefCell::default(), objects: RefCell::default() }
    }

    /// Whether a key is there and not `null`.
    pub fn has(&self, key: &str) -> bool {
        self.map.get(key).is_some_and(|v| !v.is_null())
    }

    /// Whether a key is there and `null`, where a family takes that for something else than a missing key.
    pub fn is_null(&self, key: &str) -> bool {
        self.map.get(key).is_some_and(Value::is_null)
    }

    /// Whether it has no keys at all.
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// Marks keys as read that mean nothing beside what was read already.
    pub fn ignore(&self, keys: &[&str]) {
        self.read.borrow_mut().extend(keys.iter().map(|key| key.to_string()));
    }

    /// A value of any kind.
    pub fn value(&self, key: &str) -> Option<Value> {
        self.get(key).cloned()
    }

    /// An object below a key, read like the file itself: its own keys must be read or known, too.
    ///
    /// # Errors
    /// `CONFIG_INVALID`.
    pub fn object(&self, key: &str) -> Result<Option<Rc<RawConfig>>> {
        if let Some(known) = self.objects.borrow().get(key) {
            return Ok(Some(known.clone()));
        }
        let map = self.kind(key, "an object", |v| v.as_object().cloned())?;
        let child = map.map(|map| Rc::new(Self::of(format!("{}: {key}", self.file), map.into_iter().collect())));
        if let Some(child) = &child {
            self.objects.borrow_mut().insert(key.into(), child.clone());
        }
        Ok(child)
    }

    /// A list of texts.
    ///
    /// # Errors
    /// `CONFIG_INVALID`.
    pub fn texts(&self, key: &str) -> Result<Option<Vec<String>>> {
        self.kind(key, "a list of texts", |v| v.as_array()?.iter().map(|x| x.as_str().map(String::from)).collect())
    }

    /// A list of whole numbers from 0 on; `true` and `false` count as 1 and 0.
    ///
    /// # Errors
    /// `CONFIG_INVALID`.
    pub fn counts(&self, key: &str) -> Result<Option<Vec<usize>>> {
        let count = |x: &Value| x.as_u64().or(x.as_bool().map(u64::from)).and_then(|n| usize::try_from(n).ok());
        self.kind(key, "a list of whole numbers", |v| v.as_array()?.iter().map(count).collect())
    }

    /// A list of finite numbers above 0.
    ///
    /// # Errors
    /// `CONFIG_INVALID`.
    pub fn positives(&self, key: &str) -> Result<Option<Vec<f64>>> {
        let positive = |x: &Value| x.as_f64().filter(|x| x.is_finite() && *x > 0.0);
        self.kind(key, "a list of finite numbers above 0", |v| v.as_array()?.iter().map(positive).collect())
    }

    /// A list of finite numbers from 0 on.
    ///
    /// # Errors
    /// `CONFIG_INVALID`.
    pub fn not_negatives(&self, key: &str) -> Result<Option<Vec<f64>>> {
        let number = |x: &Value| x.as_f64().filter(|x| x.is_finite() && *x >= 0.0);
        self.kind(key, "a list of finite numbers from 0 on", |v| v.as_array()?.iter().map(number).collect())
    }

    fn get(&self, key: &str) -> Option<&Value> {
        self.read.borrow_mut().insert(key.into());
        self.map.get(key).filter(|v| !v.is_null())
    }

    fn kind<T>(&self, key: &str, expected: &str, parse: impl FnOnce(&Value) -> Option<T>) -> Result<Option<T>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        parse(value).map(Some).ok_or_else(|| self.invalid(key, value, expected))
    }

    /// A whole number in `1..=limit`; `default` is the value of the family's transformers class.
    ///
    /// # Errors
    /// `CONFIG_INVALID`.
    pub fn count(&self, key: &str, default: usize, limit: usize) -> Result<usize> {
        self.check_not_null(key, &format!("a whole number from 1 to {limit}"))?;
        Ok(self.optional_count(key, limit)?.unwrap_or(default))
    }

    /// As [`RawConfig::count`], for keys whose class may have no default.
    ///
    /// # Errors
    /// `CONFIG_INVALID` where there is neither a value nor a default.
    pub fn count_or(&self, key: &str, default: Option<usize>, limit: usize) -> Result<usize> {
        let expected = format!("a whole number from 1 to {limit}");
        self.check_not_null(key, &expected)?;
        self.optional_count(key, limit)?.or(default).ok_or_else(|| self.invalid(key, "missing", expected))
    }

    /// As [`RawConfig::count`], with `None` where the key is absent.
    ///
    /// # Errors
    /// `CONFIG_INVALID`.
    pub fn optional_count(&self, key: &str, limit: usize) -> Result<Option<usize>> {
        self.kind(key, &format!("a whole number from 1 to {limit}"), |v| {
            usize::try_from(v.as_u64()?).ok().filter(|n| (1..=limit).contains(n))
        })
    }

    /// As [`RawConfig::count`], with 0 allowed.
    ///
    /// # Errors
    /// `CONFIG_INVALID`.
    pub fn count_from_0(&self, key: &str, default: usize, limit: usize) -> Result<usize> {
        let number = |v: &Value| usize::try_from(v.as_u64()?).ok().filter(|n| *n <= limit);
        Ok(self.kind(key, &format!("a whole number from 0 to {limit}"), number)?.unwrap_or(default))
    }

    /// A finite number above 0, `None` where it is `null`, the default where it is missing.
    ///
    /// # Errors
    /// `CONFIG_INVALID`.
    pub fn optional_positive_or(&self, key: &str, default: f64) -> Result<Option<f64>> {
        let found = self.optional_positive(key)?;
        Ok(if self.map.contains_key(key) { found } else { Some(default) })
    }

    /// A finite number above 0.
    ///
    /// # Errors
    /// `CONFIG_INVALID`.
    pub fn positive(&self, key: &str, default: f64) -> Result<f64> {
        self.check_not_null(key, "a finite number above 0")?;
        Ok(self.optional_positive(key)?.unwrap_or(default))
    }

    /// As [`RawConfig::positive`], with `None` where the key is absent.
    ///
    /// # Errors
    /// `CONFIG_INVALID`.
    pub fn optional_positive(&self, key: &str) -> Result<Option<f64>> {
        self.kind(key, "a finite number above 0", |v| v.as_f64().filter(|x| x.is_finite() && *x > 0.0))
    }

    fn check_not_null(&self, key: &str, expected: &str) -> Result<()> {
        if self.is_null(key) { Err(self.invalid(key, "null", expected)) } else { Ok(()) }
    }

    /// Of two names of the same thing, the one that is there; the first, if none is.
    ///
    /// # Errors
    /// `CONFIG_UNSUPPORTED` where both are there and differ.
    pub fn either<'k>(&self, name: &'k str, other: &'k str) -> Result<&'k str> {
        self.ignore(&[name, other]); // whichever is not returned is the same or absent
        match (self.map.get(name), self.map.get(other)) {
            (Some(a), Some(b)) if a != b => {
                Err(self.unsupported(name, &format!("{other} is {b}: which of them holds?")))
            }
            (None, Some(_)) => Ok(other),
            _ => Ok(name),
        }
    }

    /// `true` or `false`; `null` is false.
    ///
    /// # Errors
    /// `CONFIG_INVALID`.
    pub fn flag(&self, key: &str, default: bool) -> Result<bool> {
        let default = default && !self.is_null(key);
        Ok(self.kind(key, "true or false", Value::as_bool)?.unwrap_or(default))
    }

    /// A text.
    ///
    /// # Errors
    /// `CONFIG_INVALID`.
    pub fn text(&self, key: &str) -> Result<Option<String>> {
        self.kind(key, "a text", |v| v.as_str().map(String::from))
    }

    /// A token id below `d_vocab`; a list of them counts as absent (generation uses such lists, the forward pass none).
    ///
    /// # Errors
    /// `CONFIG_INVALID`.
    pub fn token(&self, key: &str, d_vocab: usize) -> Result<Option<u32>> {
        let id =
            self.kind(key, "a token id", |v| if v.is_array() { Some(None) } else { v.as_i64().map(Some) })?.flatten();
        Ok(id.and_then(|id| u32::try_from(id).ok()).filter(|id| (*id as usize) < d_vocab))
    }

    /// A switch whose other setting is not implemented.
    ///
    /// # Errors
    /// `CONFIG_UNSUPPORTED` where it is set, `CONFIG_INVALID` where it is no switch.
    pub fn must_be_off(&self, key: &str, reason: &str) -> Result<()> {
        if self.flag(key, false)? { Err(self.unsupported(key, reason)) } else { Ok(()) }
    }

    /// A switch, on where it is missing, whose other setting is not implemented.
    ///
    /// # Errors
    /// `CONFIG_UNSUPPORTED` where it is off, `CONFIG_INVALID` where it is no switch.
    pub fn must_be_on(&self, key: &str, reason: &str) -> Result<()> {
        if self.flag(key, true)? { Ok(()) } else { Err(self.unsupported(key, reason)) }
    }

    /// A list or object that must be empty.
    ///
    /// # Errors
    /// `CONFIG_UNSUPPORTED` where it is not.
    pub fn must_be_empty(&self, key: &str, reason: &str) -> Result<()> {
        let empty = match self.get(key) {
            None => true,
            Some(Value::Array(list)) => list.is_empty(),
            Some(Value::Object(map)) => map.is_empty(),
            Some(_) => false,
        };
        if empty { Ok(()) } else { Err(self.unsupported(key, reason)) }
    }

    /// The keys that were never read, are not `null` and are not known to be harmless.
    pub fn unread(&self, harmless: &[&str]) -> Vec<String> {
        let read = self.read.borrow();
        let ignored = |key: &str| read.contains(key) || HARMLESS.contains(&key) || harmless.contains(&key);
        let own = self.map.iter().filter(|(k, v)| !v.is_null() && !ignored(k)).map(|(k, _)| k.clone());
        let objects = self.objects.borrow();
        let below =
            objects.iter().flat_map(|(k, object)| object.unread(harmless).into_iter().map(move |u| format!("{k}.{u}")));
        own.chain(below).collect()
    }

    /// The error for a value that is not of its kind.
    pub fn invalid(&self, key: &str, found: impl ToString, expected: impl Into<String>) -> PrismError {
        let (file, found) = (self.file.clone(), found.to_string());
        PrismError::ConfigInvalid { file, key: key.into(), found, expected: expected.into() }
    }

    /// The error for a value that is of its kind and not implemented.
    pub fn unsupported(&self, key: &str, reason: &str) -> PrismError {
        let pointer = format!("/{}", key.replace('.', "/"));
        let found = self.map.get(key).cloned().or_else(|| {
            let whole = Value::Object(self.map.clone().into_iter().collect());
            whole.pointer(&pointer).cloned()
        });
        let mut value = found.map_or_else(|| "absent".into(), |v| v.to_string());
        if value.len() > 80 {
            value = value.chars().take(79).collect::<String>() + "…";
        }
        PrismError::ConfigUnsupported { file: self.file.clone(), key: key.into(), value, reason: reason.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(json: &str) -> RawConfig {
        RawConfig::parse("config.json", json.as_bytes()).unwrap()
    }

    #[test]
    fn what_is_not_one_json_object_is_invalid() {
        for bytes in [&b""[..], b"[]", b"{", b"\xff", br#"{"a": 1, "a": 2}"#, br#"{"a": NaN}"#, br#"{"a": 1e400}"#] {
            assert_eq!(RawConfig::parse("c", bytes).err().map(|e| e.code()), Some("CONFIG_INVALID"));
        }
    }

    #[test]
    fn numbers_have_limits() {
        let c = raw(
            r#"{"n": 8, "zero": 0, "neg": -1, "half": 1.5, "text": "8", "null": null, "big": 18446744073709551615}"#,
        );
        assert_eq!(c.count("n", 1, 8).unwrap(), 8);
        assert_eq!(c.count("absent", 5, 8).unwrap(), 5);
        assert_eq!(c.count("null", 5, 8).unwrap_err().code(), "CONFIG_INVALID");
        assert_eq!(c.positive("null", 5.0).unwrap_err().code(), "CONFIG_INVALID");
        assert!(!c.flag("null", true).unwrap());
        assert_eq!(c.optional_count("null", 8).unwrap(), None);
        for key in ["zero", "neg", "half", "text", "big"] {
            assert_eq!(c.count(key, 1, 100).unwrap_err().code(), "CONFIG_INVALID", "{key}");
        }
        assert_eq!(c.count("n", 1, 7).unwrap_err().details()["expected"], "a whole number from 1 to 7");
    }

    #[test]
    fn floats_are_finite_and_positive() {
        let c = raw(r#"{"eps": 1e-5, "zero": 0, "neg": -1.0, "flag": 1}"#);
        assert_eq!(c.positive("eps", 1.0).unwrap(), 1e-5);
        assert_eq!(c.positive("absent", 2.5).unwrap(), 2.5);
        for key in ["zero", "neg"] {
            assert_eq!(c.positive(key, 1.0).unwrap_err().code(), "CONFIG_INVALID", "{key}");
        }
        assert_eq!(c.flag("flag", false).unwrap_err().code(), "CONFIG_INVALID");
        assert_eq!(c.text("eps").unwrap_err().code(), "CONFIG_INVALID");
    }

    #[test]
    fn what_is_set_and_not_implemented_is_unsupported() {
        let c = raw(r#"{"on": true, "off": false, "list": [1], "none": [], "map": {}}"#);
        assert_eq!(c.must_be_off("on", "no").unwrap_err().code(), "CONFIG_UNSUPPORTED");
        c.must_be_off("off", "no").unwrap();
        assert_eq!(c.must_be_on("off", "no").unwrap_err().code(), "CONFIG_UNSUPPORTED");
        c.must_be_on("on", "no").unwrap();
        c.must_be_on("absent", "no").unwrap();
        assert_eq!(c.must_be_empty("list", "no").unwrap_err().code(), "CONFIG_UNSUPPORTED");
        assert_eq!(c.must_be_empty("on", "no").unwrap_err().code(), "CONFIG_UNSUPPORTED");
        c.must_be_empty("none", "no").unwrap();
        c.must_be_empty("map", "no").unwrap();
    }

    #[test]
    fn tokens_outside_the_vocabulary_count_as_absent() {
        let c = raw(r#"{"bos": 3, "none": -1, "beyond": 10, "list": [1, 2], "text": "a"}"#);
        assert_eq!(c.token("bos", 10).unwrap(), Some(3));
        for key in ["none", "beyond", "list", "absent"] {
            assert_eq!(c.token(key, 10).unwrap(), None, "{key}");
        }
        assert_eq!(c.token("text", 10).unwrap_err().code(), "CONFIG_INVALID");
    }

    #[test]
    fn unread_keys_are_those_nobody_knows() {
        let c = raw(r#"{"n": 8, "architectures": [], "resid_pdrop": 0.1, "odd": 1, "nothing": null}"#);
        c.count("n", 1, 8).unwrap();
        assert_eq!(c.unread(&["resid_pdrop"]), ["odd"]);
    }

    #[test]
    fn long_values_are_cut_in_messages() {
        let c = raw(&format!(r#"{{"k": "{}"}}"#, "x".repeat(500)));
        assert!(c.unsupported("k", "no").to_string().len() < 400);
    }
}
