//! Classes of `transformers` 5 that keep only vocabulary, merges and post-processor of a tokenizer.json, and build its
//! other parts themselves (`models/*/tokenization_*.py`). `AutoTokenizer` opens most files as they are; these rules say
//! for which it takes one of these classes (`models/auto/tokenization_auto.py`).

use serde_json::{Value, json};
use tokenizers::models::bpe::BPE;

/// A class that builds its own parts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Class {
    /// `CohereTokenizer`
    Cohere,
    /// `GemmaTokenizer`
    Gemma,
    /// `GPT2Tokenizer`
    Gpt2,
    /// `GPTNeoXTokenizer`
    GptNeoX,
    /// `LlamaTokenizer`
    Llama,
    /// `Qwen2Tokenizer`
    Qwen2,
}

const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// What a class puts in place of the file's parts.
pub struct Parts {
    /// `null`: none.
    pub normalizer: Value,
    /// `null`: none.
    pub pre_tokenizer: Value,
    /// The decoder.
    pub decoder: Value,
}

impl Class {
    /// The class that `AutoTokenizer` takes for a family whose files declare a class, or none; `None` where it opens
    /// tokenizer.json as it is.
    pub fn of(family: &str, declared: Option<&str>, byte_level: bool) -> Option<Self> {
        let declared = declared.map(|name| name.strip_suffix("Fast").unwrap_or(name));
        // files of Llama 3's kind that declare the class of Llama 2's
        let misdeclared = declared == Some("LlamaTokenizer") && byte_level && family != "qwen2";
        match (registered(family), declared) {
            _ if misdeclared => None,
            (Some("TokenizersBackend"), _) => None,
            // declared classes are known to be wrong there
            (Some(registered), Some(_)) if family == "qwen2" => Class::named_so(registered),
            (_, Some(declared)) => Class::named_so(declared),
            (Some(registered), None) => Class::named_so(registered),
            (None, None) => None,
        }
    }

    fn named_so(name: &str) -> Option<Self> {
        Some(match name {
            "CohereTokenizer" => Class::Cohere,
            "GemmaTokenizer" => Class::Gemma,
            "GPT2Tokenizer" | "CodeGenTokenizer" => Class::Gpt2,
            "GPTNeoXTokenizer" => Class::GptNeoX,
            "LlamaTokenizer" => Class::Llama,
            "Qwen2Tokenizer" => Class::Qwen2,
            _ => return None,
        })
    }

    /// A named token where the files do not say.
    pub fn named(self, name: &str) -> Option<&'static str> {
        let [bos, eos, unk, pad] = match self {
            Class::Cohere => [Some("<BOS_TOKEN>"), Some("<|END_OF_TURN_TOKEN|>"), Some("<UNK>"), Some("<PAD>")],
            Class::Gemma => [Some("<bos>"), Some("<eos>"), Some("<unk>"), Some("<pad>")],
            Class::Gpt2 => [Some("<|endoftext|>"), Some("<|endoftext|>"), Some("<|endoftext|>"), None],
            Class::GptNeoX => {
                [Some("<|endoftext|>"), Some("<|endoftext|>"), Some("<|endoftext|>"), Some("<|padding|>")]
            }
            Class::Llama => [Some("<s>"), Some("</s>"), Some("<unk>"), None],
            Class::Qwen2 => [None, Some("<|endoftext|>"), Some("<|endoftext|>"), Some("<|endoftext|>")],
        };
        match (name, self) {
            ("bos_token", _) => bos,
            ("eos_token", _) => eos,
            ("unk_token", _) => unk,
            ("pad_token", _) => pad,
            ("mask_token", Class::Gemma) => Some("<mask>"),
            ("mask_token", Class::Cohere) => Some("<MASK_TOKEN>"),
            ("cls_token", Class::Cohere) => Some("<CLS>"),
            ("sep_token", Class::Cohere) => Some("<SEP>"),
            _ => None,
        }
    }

    /// Whether the class drops the file's post-processor, so that nothing is put around a text.
    pub fn drops_template(self) -> bool {
        self == Class::GptNeoX
    }

    /// The parts, with the options of tokenizer_config.json.
    pub fn parts(self, add_prefix_space: Option<bool>, legacy: bool) -> Parts {
        let blank = add_prefix_space.unwrap_or(self == Class::Llama);
        let bytes = |use_regex: bool| json!({ "type": "ByteLevel", "add_prefix_space": blank, "trim_offsets": true, "use_regex": use_regex });
        let nfc = json!({ "type": "NFC" });
        let (normalizer, pre_tokenizer) = match self {
            Class::Gpt2 => (Value::Null, bytes(true)),
            Class::GptNeoX => (nfc, bytes(true)),
            Class::Cohere => (nfc, sequence([json!({ "type": "Digits", "individual_digits": true }), bytes(true)])),
            Class::Qwen2 => (nfc, sequence([split("Regex", QWEN2, "Isolated"), bytes(false)])),
            Class::Gemma => (
                json!({ "type": "Replace", "pattern": { "String": " " }, "content": "▁" }),
                split("String", " ", "MergedWithPrevious"),
            ),
            Class::Llama => {
                let scheme = if !blank {
                    "never"
                } else if legacy {
                    "always"
                } else {
                    "first"
                };
                let space =
                    json!({ "type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": false });
                (Value::Null, space)
            }
        };
        let decoder = match self {
            Class::Llama | Class::Gemma => of_pieces(self == Class::Llama && blank),
            _ => bytes(true),
        };
        Parts { normalizer, pre_tokenizer, decoder }
    }

    /// The model with the class's options, if the file has others; `unknown` is the unknown token that is named.
    pub fn model(self, bpe: &BPE, unknown: Option<String>) -> Option<BPE> {
        let pieces = matches!(self, Class::Llama | Class::Gemma);
        let unknown = unknown.filter(|_| self == Class::Gemma);
        if (&bpe.unk_token, bpe.fuse_unk, bpe.byte_fallback, bpe.ignore_merges) == (&unknown, pieces, pieces, false) {
            return None;
        }
        let mut bpe = bpe.clone();
        (bpe.unk_token, bpe.fuse_unk, bpe.byte_fallback, bpe.ignore_merges) = (unknown, pieces, pieces, false);
        Some(bpe)
    }
}

/// `TOKENIZER_MAPPING_NAMES`, of the families that are read here.
fn registered(family: &str) -> Option<&'static str> {
    Some(match family {
        "gemma" | "gemma2" | "gemma3_text" => "GemmaTokenizer",
        "cohere" | "cohere2" => "CohereTokenizer",
        "gpt2" | "gpt_neo" | "gptj" | "codegen" | "jais2" | "opt" | "phi" | "starcoder2" => "GPT2Tokenizer",
        "gpt_neox" | "mpt" | "olmo" | "olmoe" => "GPTNeoXTokenizer",
        "qwen2" | "qwen2_moe" | "qwen3" | "qwen3_moe" => "Qwen2Tokenizer",
        "ernie4_5" | "flex_olmo" | "glm" | "glm4" | "gpt_bigcode" | "granite" | "granitemoe" | "ministral"
        | "mistral" | "mixtral" | "nemotron" | "olmo2" | "olmo3" | "persimmon" | "phi3" | "stablelm" => {
            "TokenizersBackend"
        }
        _ => return None,
    })
}

/// `bos_token_id` of the family's configuration class, for a config.json that does not say.
pub fn default_bos(family: &str) -> Option<u32> {
    Some(match family {
        "exaone4" | "gpt_neox" | "jais2" | "seed_oss" | "stablelm" => 0,
        "bloom" | "ernie4_5" | "granite" | "granitemoe" | "helium" | "hunyuan_v1_dense" | "llama" | "ministral"
        | "mistral" | "mixtral" | "persimmon" | "phi" | "phi3" => 1,
        "gemma" | "gemma2" | "gemma3_text" | "nemotron" | "opt" | "vaultgemma" => 2,
        "cohere" | "cohere2" => 5,
        "falcon" => 11,
        "codegen" | "gpt2" | "gpt_bigcode" | "gpt_neo" | "gptj" | "starcoder2" => 50256,
        "arcee" | "smollm3" => 128_000,
        _ => return None,
    })
}

fn sequence(steps: [Value; 2]) -> Value {
    json!({ "type": "Sequence", "pretokenizers": steps })
}

fn split(kind: &str, pattern: &str, behavior: &str) -> Value {
    json!({ "type": "Split", "pattern": { kind: pattern }, "behavior": behavior, "invert": false })
}

/// SentencePiece's decoder.
fn of_pieces(strip: bool) -> Value {
    let mut steps = vec![
        json!({ "type": "Replace", "pattern": { "String": "▁" }, "content": " " }),
        json!({ "type": "ByteFallback" }),
        json!({ "type": "Fuse" }),
    ];
    if strip {
        steps.push(json!({ "type": "Strip", "content": " ", "start": 1, "stop": 0 }));
    }
    json!({ "type": "Sequence", "decoders": steps })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn name(class: Option<Class>) -> &'static str {
        match class {
            None => "TokenizersBackend",
            Some(Class::Cohere) => "CohereTokenizer",
            Some(Class::Gemma) => "GemmaTokenizer",
            Some(Class::Gpt2) => "GPT2Tokenizer",
            Some(Class::GptNeoX) => "GPTNeoXTokenizer",
            Some(Class::Llama) => "LlamaTokenizer",
            Some(Class::Qwen2) => "Qwen2Tokenizer",
        }
    }

    #[test]
    fn classes_are_those_that_auto_tokenizer_takes() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../test/fixtures/tokenizers/classes.json");
        let mut table: serde_json::Map<String, Value> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let declared = table.remove("declared").unwrap();
        for (family, row) in &table {
            for (file, byte_level) in [("gpt2", true), ("llama2_old", false)] {
                for (declared, expected) in declared.as_array().unwrap().iter().zip(row[file].as_array().unwrap()) {
                    let expected = expected.as_str().unwrap().replace("CodeGenTokenizer", "GPT2Tokenizer"); // the same
                    let found = name(Class::of(family, declared.as_str(), byte_level));
                    assert_eq!(found, expected, "{family} {declared} {file}");
                }
            }
            assert_eq!(default_bos(family).map(Value::from).unwrap_or_default(), row["bos"], "{family}");
        }
        assert!(table.len() >= 45);
    }
}
