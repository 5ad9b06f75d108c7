//! tokenizer.json files that are refused, and hostile ones: any of them ends in a tokenizer or in an error.

mod common;

use common::tokenizers::*;
use common::*;
use logit_prism_core::tokenizer::Tokenizer;
use serde_json::{Value, json as object};
use std::fs::File;
use std::time::{Duration, Instant};

#[track_caller]
fn refused(json: impl AsRef<[u8]>, problem: &str) {
    let error = error(read_with(json.as_ref(), None, false, None).map(drop));
    assert_eq!(error.code(), "TOKENIZER_INVALID", "{error}");
    let details = error.details();
    assert!(details["problem"].as_str().unwrap().contains(problem), "expected {problem:?} in {error}");
    assert!(details["file"].as_str().unwrap().ends_with("tokenizer.json"));
}

fn changed_words(change: impl FnOnce(&mut Value)) -> String {
    words(&LIST, change).to_string()
}

#[test]
fn a_directory_may_have_no_tokenizer() {
    assert!(Tokenizer::load(&TempDir::new().0, Some(0), false).unwrap().is_none());
}

#[test]
fn what_is_no_tokenizer_is_refused() {
    for json in ["", "{", "[]", "null", "{}", r#"{"model": null}"#, r#"{"model": 3}"#, "\u{feff}{}"] {
        refused(json, "not readable");
    }
    refused(b"\xff\xfe", "not readable");
    refused("[".repeat(1 << 20), "not readable");
    refused(changed_words(|json| drop(json.as_object_mut().unwrap().remove("model"))), "not readable");
    refused(changed_words(|json| json["model"] = object!({})), "not usable");
    refused(changed_words(|json| json["model"]["type"] = "Markov".into()), "not usable");
    refused(changed_words(|json| json["pre_tokenizer"] = object!({ "type": "Unheard" })), "not usable");
}

#[test]
fn a_file_has_at_most_64_mib() {
    let dir = TempDir::new();
    File::create(dir.join("tokenizer.json")).unwrap().set_len((64 << 20) + 1).unwrap(); // a hole: no disk, no time
    let error = error(Tokenizer::load(&dir.0, None, false).map(drop));
    assert_eq!(error.code(), "TOKENIZER_INVALID");
    assert_eq!(error.details()["problem"], "larger than 67108864 bytes");
}

// ---- patterns ----

fn split(pattern: &str) -> Value {
    object!({ "type": "Split", "pattern": { "Regex": pattern }, "behavior": "Isolated", "invert": false })
}

#[test]
fn unknown_patterns_are_refused_wherever_they_stand() {
    let pattern = object!({ "Regex": "(a+)+$" });
    let replace = object!({ "type": "Replace", "pattern": pattern, "content": "" });
    for (part, value) in [
        ("pre_tokenizer", split("(a+)+$")),
        (
            "pre_tokenizer",
            object!({ "type": "Sequence", "pretokenizers": [{ "type": "Whitespace" }, split("(a+)+$")] }),
        ),
        ("normalizer", replace.clone()),
        ("normalizer", object!({ "type": "Sequence", "normalizers": [{ "type": "NFC" }, replace.clone()] })),
        ("decoder", replace),
    ] {
        let json = changed_words(|json| json[part] = value);
        refused(&json, "the unknown pattern \"(a+)+$\"");
        read_with(json.as_bytes(), None, true, None).unwrap();
    }
    let long = changed_words(|json| json["pre_tokenizer"] = split(&"x".repeat(100_000)));
    assert!(error(read_with(long.as_bytes(), None, false, None).map(drop)).to_string().len() < 500);
}

#[test]
fn known_patterns_split_as_their_models_do() {
    // GPT-2's, from its own repository; Llama 3's and Qwen 2's from their tokenizer.json
    let gpt2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
    let llama3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
    let qwen2 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
    let list = ["<unk>", "a", " a", "1", "12", "123", "1234", "4", " 1234", " ", "'S", "'", "S", "'s"];
    for (pattern, text, expected) in [
        (gpt2, "a a1234 1234", &[1, 2, 6, 8][..]),
        (gpt2, "a'S", &[1, 11, 12]),        // only small letters contract
        (llama3, "a a1234", &[1, 2, 5, 7]), // digits by three
        (llama3, "a'S", &[1, 10]),
        (qwen2, "a a14", &[1, 2, 3, 7]), // digits alone
        (r"\s+", "a 1234", &[1, 9, 6]),
    ] {
        let json = words(&list, |json| json["pre_tokenizer"] = split(pattern));
        assert_eq!(read(&json).unwrap().encode(text, None).unwrap(), expected, "{text:?} by {pattern}");
    }
}

#[test]
fn a_search_that_is_given_up_is_an_error() {
    // 2^40 ways to fail; the library gives up after a million steps, and would take the rest as one piece
    let hostile = r"^(?:(a+)+)+\1$";
    let replace = object!({ "type": "Replace", "pattern": { "Regex": hostile }, "content": "" });
    for (part, value) in [
        ("pre_tokenizer", split(hostile)),
        ("pre_tokenizer", object!({ "type": "Sequence", "pretokenizers": [{ "type": "Whitespace" }, split(hostile)] })),
        ("normalizer", replace.clone()),
        ("normalizer", object!({ "type": "Sequence", "normalizers": [{ "type": "NFC" }, replace] })),
    ] {
        let json = changed_words(|json| json[part] = value);
        let tokenizer = read_with(json.as_bytes(), None, true, None).unwrap();
        let start = Instant::now();
        let error = error(tokenizer.encode(&format!("{}b", "a".repeat(40)), None));
        assert_eq!(error.code(), "TOKENIZER_INVALID");
        assert!(error.to_string().contains("backtracking"), "{error}");
        assert!(start.elapsed() < Duration::from_secs(20));
        assert_eq!(tokenizer.encode("John", None).unwrap(), [3]);
    }
}

#[test]
fn more_blanks_than_a_search_remembers_are_an_error() {
    // GPT-2's pattern keeps one step for each of them, and has room for a million
    for pre_tokenizer in [
        object!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true }),
        split(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"),
    ] {
        let tokenizer = read(&words(&LIST, |json| json["pre_tokenizer"] = pre_tokenizer)).unwrap();
        let blanks = |n: usize| tokenizer.encode(&format!("John{}Mary", " ".repeat(n)), None);
        assert_eq!(blanks(900_000).unwrap(), [3, 1, 1]); // all but one, and " Mary"
        assert_eq!(error(blanks(1_040_000)).code(), "TOKENIZER_INVALID");
    }
}

// ---- added tokens and ids ----

#[test]
fn there_are_at_most_65536_added_tokens() {
    let many =
        |n: u32| changed_words(|json| json["added_tokens"] = (0..n).map(|i| added(6 + i, &format!("<{i}>"))).collect());
    refused(many(65_537), "65537 added tokens");
    let tokenizer = read_with(many(65_536).as_bytes(), None, false, None).unwrap();
    assert_eq!(tokenizer.token_to_id("<65535>"), Some(6 + 65_535));
}

#[test]
fn ids_are_unique() {
    refused(changed_words(|json| json["model"]["vocab"]["twin"] = 3.into()), "stands for two tokens");
}

#[test]
fn added_tokens_keep_their_ids_or_are_refused() {
    let with = |token: Value| changed_words(|json| json["added_tokens"] = object!([token]));
    let tokenizer = read_with(with(added(6, "<new>")).as_bytes(), None, false, None).unwrap();
    assert_eq!(tokenizer.encode("John <new>", None).unwrap(), [3, 6]);
    read_with(with(added(4, "Mary")).as_bytes(), None, false, None).unwrap();
    // the library would number these itself: the next free id, or the vocabulary's
    refused(with(added(100, "<new>")), "the added token \"<new>\" of id 100 becomes 6");
    refused(with(added(3, "<new>")), "the added token \"<new>\" of id 3 becomes 6");
    refused(with(added(5, "Mary")), "the added token \"Mary\" of id 5 becomes 4");
    refused(with(object!({ "content": "<new>" })), "not readable");
    refused(with(object!({ "id": -1, "content": "<new>" })), "not readable");
    refused(with(7.into()), "not readable");
}

// ---- hostile models ----

#[test]
fn hostile_files_end_in_a_tokenizer_or_in_an_error() {
    let bpe = |vocab: Value, merges: Value| object!({ "type": "BPE", "vocab": vocab, "merges": merges });
    let unigram = |vocab: Value, unk: Value| object!({ "type": "Unigram", "vocab": vocab, "unk_id": unk });
    let wide = "x".repeat(100_000);
    for (part, value) in [
        ("model", bpe(object!({}), object!([]))),
        ("model", bpe(object!({ "a": 0 }), object!(["a b"]))),
        ("model", bpe(object!({ "a": 0, "b": 1 }), object!([["a", "b"]]))),
        ("model", bpe(object!({ "a": 4294967295u32 }), object!([]))),
        ("model", bpe(object!({ "a": 0 }), object!(["", " ", "a", "a a a"]))),
        ("model", unigram(object!([]), object!(0))),
        ("model", unigram(object!([["a", -1.0]]), object!(7))),
        ("model", unigram(object!([["", 0.0], ["a", 1e308], ["b", -1e308]]), object!(null))),
        (
            "model",
            object!({ "type": "WordPiece", "vocab": {}, "unk_token": "u", "continuing_subword_prefix": "", "max_input_chars_per_word": 0 }),
        ),
        ("model", object!({ "type": "WordLevel", "vocab": {}, "unk_token": "<unk>" })),
        ("normalizer", object!({ "type": "Precompiled", "precompiled_charsmap": "" })),
        ("normalizer", object!({ "type": "Precompiled", "precompiled_charsmap": "/////w==" })),
        ("normalizer", object!({ "type": "Precompiled", "precompiled_charsmap": "AAAAAA==" })),
        ("normalizer", object!({ "type": "Replace", "pattern": { "String": "" }, "content": wide })),
        ("normalizer", object!({ "type": "Prepend", "prepend": "" })),
        ("normalizer", object!({ "type": "Prepend", "prepend": "a" })),
        ("pre_tokenizer", object!({ "type": "FixedLength", "length": 0 })),
        (
            "pre_tokenizer",
            object!({ "type": "Split", "pattern": { "String": "" }, "behavior": "Removed", "invert": true }),
        ),
        (
            "pre_tokenizer",
            object!({ "type": "Metaspace", "replacement": "", "prepend_scheme": "always", "split": true }),
        ),
        ("post_processor", object!({ "type": "TemplateProcessing", "single": [], "pair": [], "special_tokens": {} })),
        ("post_processor", template(&["<none>", "A"], &[])),
        ("post_processor", template(&["<none>", "A"], &[("<none>", 4_000_000_000)])),
        ("post_processor", object!({ "type": "BertProcessing", "sep": ["x", 9], "cls": ["y", 4294967295u32] })),
        (
            "post_processor",
            object!({ "type": "RobertaProcessing", "sep": ["x", 9], "cls": ["y", 9], "trim_offsets": true, "add_prefix_space": true }),
        ),
        ("decoder", object!({ "type": "CTC", "pad_token": "", "word_delimiter_token": "", "cleanup": true })),
        ("decoder", object!({ "type": "Strip", "content": "J", "start": 4_000_000_000u32, "stop": 4_000_000_000u32 })),
        ("decoder", object!({ "type": "WordPiece", "prefix": "", "cleanup": true })),
    ] {
        let shown = format!("{part}: {}", value.to_string().chars().take(100).collect::<String>());
        let json = changed_words(|json| json[part] = value);
        let check = |outcome: logit_prism_core::Result<()>| {
            if let Err(error) = outcome {
                assert!(["TOKENIZER_INVALID", "TOKEN_RANGE"].contains(&error.code()), "{shown}: {error}");
            }
        };
        let tokenizer = match read_with(json.as_bytes(), Some(0), false, None) {
            Ok(tokenizer) => tokenizer,
            Err(error) => {
                check(Err(error));
                continue;
            }
        };
        for text in ["", "John", " a b \u{1F600} ß\u{0301}", "<bos>"] {
            check(tokenizer.encode(text, None).map(drop));
            check(tokenizer.encode(text, Some(true)).map(drop));
        }
        check(tokenizer.decode(&[0, 1, 3, 4_000_000_000]).map(drop));
    }
}

#[test]
fn a_tokenizer_without_an_unknown_token_fails_on_what_it_does_not_know() {
    let json = changed_words(|json| json["model"]["unk_token"] = "<absent>".into());
    let tokenizer = read_with(json.as_bytes(), None, false, None).unwrap();
    assert_eq!(tokenizer.encode("John", None).unwrap(), [3]);
    assert_eq!(error(tokenizer.encode("zxqv", None)).code(), "TOKENIZER_INVALID");
    assert_eq!(tokenizer.unknown(), None);
}
