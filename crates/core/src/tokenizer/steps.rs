//! Normalizers and pre-tokenizers, as the library has them, except where a pattern searches: the library takes a search
//! that was given up (after a million steps) for the end of all matches, and goes on with other ids. Here it is an error.

use fancy_regex::Regex;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokenizers::pattern::{Invert, Pattern};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{
    NormalizedString, Normalizer, NormalizerWrapper, PreTokenizedString, PreTokenizer, PreTokenizerWrapper, Result,
    SplitDelimiterBehavior,
};

/// GPT-2's pattern, which `ByteLevel` has built in.
const BYTE_LEVEL: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

/// What a text may grow to: the longest expansion in Unicode is 11 bytes for one.
fn longest(before: usize) -> usize {
    64 * before + 1024
}

/// The `normalizer` of a tokenizer.json.
#[derive(Debug, Deserialize)]
#[serde(try_from = "Value")]
pub struct Rewrites(Vec<Rewrite>);

#[derive(Debug)]
enum Rewrite {
    Library(NormalizerWrapper),
    Replace { pattern: Regex, content: String },
}

impl TryFrom<Value> for Rewrites {
    type Error = tokenizers::Error;

    fn try_from(value: Value) -> Result<Self> {
        let steps = flattened(value, "normalizers")?.into_iter().map(|step| {
            Ok(match kind(&step) {
                "Replace" => Rewrite::Replace { pattern: pattern(&step)?, content: field(&step, "content")? },
                _ => Rewrite::Library(serde_json::from_value(step)?),
            })
        });
        Ok(Rewrites(steps.collect::<Result<_>>()?))
    }
}

impl Rewrites {
    fn apply(&self, text: &mut NormalizedString) -> Result<()> {
        let longest = longest(text.get().len());
        for step in &self.0 {
            match step {
                Rewrite::Library(normalizer) => normalizer.normalize(text)?,
                Rewrite::Replace { pattern, content } => {
                    let matches = pattern.find_matches(text.get())?.iter().filter(|(_, matched)| *matched).count();
                    check_length(text.get().len() + matches * content.len(), longest)?;
                    text.replace(pattern, content)?;
                }
            }
            check_length(text.get().len(), longest)?;
        }
        Ok(())
    }
}

fn check_length(length: usize, longest: usize) -> Result<()> {
    if length > longest {
        Err(format!("the normalizer makes more than {longest} bytes of a text").into())
    } else {
        Ok(())
    }
}

impl Normalizer for Rewrites {
    /// Panics where a step fails: the library drops a normalizer's error and goes on with the text as it then is. Every
    /// call into the library stands behind a fence, which makes the panic an error again.
    fn normalize(&self, text: &mut NormalizedString) -> Result<()> {
        self.apply(text).map_err(|error| panic!("{error}"))
    }
}

/// The `pre_tokenizer` of a tokenizer.json.
#[derive(Debug, Deserialize)]
#[serde(try_from = "Value")]
pub struct Splits(Vec<Split>);

#[derive(Debug)]
enum Split {
    Library(PreTokenizerWrapper),
    /// A blank in front of every piece that has none.
    Blank,
    At {
        pattern: Regex,
        behavior: SplitDelimiterBehavior,
        invert: bool,
    },
}

impl TryFrom<Value> for Splits {
    type Error = tokenizers::Error;

    fn try_from(value: Value) -> Result<Self> {
        let mut steps = Vec::new();
        for step in flattened(value, "pretokenizers")? {
            match kind(&step) {
                "Split" => steps.push(Split::At {
                    pattern: pattern(&step)?,
                    behavior: field(&step, "behavior")?,
                    invert: field(&step, "invert")?,
                }),
                "ByteLevel" => {
                    let whole: ByteLevel = serde_json::from_value(step)?;
                    if whole.add_prefix_space {
                        steps.push(Split::Blank);
                    }
                    if whole.use_regex {
                        let behavior = SplitDelimiterBehavior::Isolated;
                        steps.push(Split::At { pattern: Regex::new(BYTE_LEVEL)?, behavior, invert: false });
                    }
                    let bytes = ByteLevel::new(false, whole.trim_offsets, false);
                    steps.push(Split::Library(PreTokenizerWrapper::ByteLevel(bytes)));
                }
                _ => steps.push(Split::Library(serde_json::from_value(step)?)),
            }
        }
        Ok(Splits(steps))
    }
}

impl PreTokenizer for Splits {
    fn pre_tokenize(&self, text: &mut PreTokenizedString) -> Result<()> {
        self.0.iter().try_for_each(|step| match step {
            Split::Library(splitter) => splitter.pre_tokenize(text),
            Split::Blank => text.split(|_, mut piece| {
                if !piece.get().starts_with(' ') {
                    piece.prepend(" ");
                }
                Ok([piece])
            }),
            Split::At { pattern, behavior, invert: false } => text.split(|_, piece| piece.split(pattern, *behavior)),
            Split::At { pattern, behavior, invert: true } => {
                text.split(|_, piece| piece.split(Invert(pattern), *behavior))
            }
        })
    }
}

/// A step, or those of a sequence, of a sequence in it, …
fn flattened(step: Value, inner: &str) -> Result<Vec<Value>> {
    if kind(&step) != "Sequence" {
        return Ok(vec![step]);
    }
    let steps: Vec<Value> = field(&step, inner)?;
    Ok(steps.into_iter().map(|step| flattened(step, inner)).collect::<Result<Vec<_>>>()?.concat())
}

fn kind(step: &Value) -> &str {
    step["type"].as_str().unwrap_or_default()
}

fn field<T: DeserializeOwned>(step: &Value, name: &str) -> Result<T> {
    serde_json::from_value(step[name].clone()).map_err(|e| format!("{name} of {}: {e}", kind(step)).into())
}

/// `{"Regex": …}` or `{"String": …}`.
fn pattern(step: &Value) -> Result<Regex> {
    match (&step["pattern"]["Regex"], &step["pattern"]["String"]) {
        (Value::String(pattern), Value::Null) => Ok(Regex::new(pattern)?),
        (Value::Null, Value::String(text)) => Ok(Regex::new(&fancy_regex::escape(text))?),
        _ => Err(format!("{} without a pattern", kind(step)).into()),
    }
}
