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
fn a_split_may_be_turned_round_and_nested() {
    let list = ["<unk>", "a", " ", "b", " b"];
    let step = |behavior: &str, invert: bool| object!({ "type": "Split", "pattern": { "String": " " }, "behavior": behavior, "invert": invert });
    for (pre_tokenizer, expected) in [
        (step("Removed", false), &[1, 3][..]),
        (step("Removed", true), &[2]), // what is no blank goes
        (step("Isolated", true), &[1, 2, 3]),
        (step("MergedWithNext", false), &[1, 4]),
        (
            object!({ "type": "Sequence", "pretokenizers": [{ "type": "Sequence", "pretokenizers": [step("Removed", true)] }] }),
            &[2],
        ),
    ] {
        let tokenizer = read(&words(&list, |json| json["pre_tokenizer"] = pre_tokenizer.clone())).unwrap();
        assert_eq!(tokenizer.encode("a b", None).unwrap(), expected, "{pre_tokenizer}");
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

// ---- one refusal each ----

fn bpe(vocab: Value, merges: Value) -> Value {
    object!({ "type": "BPE", "vocab": vocab, "merges": merges })
}

fn unigram(vocab: Value, unk_id: Value) -> Value {
    object!({ "type": "Unigram", "vocab": vocab, "unk_id": unk_id })
}

#[test]
fn models_that_contradict_themselves_are_refused() {
    for (model, problem) in [
        (bpe(object!({ "a": 0, "b": 1 }), object!([["a", "b"]])), "not usable"),
        (bpe(object!({ "a": 0 }), object!(["a c"])), "not usable"),
        (bpe(object!({ "a": 0 }), object!(["a"])), "not usable"),
        (bpe(object!({ "a": 0, "ä": 1 }), object!(["a", "a ä b"])), "not usable"),
        (bpe(object!({ "a": -1 }), object!([])), "not usable"),
        (bpe(object!({ "a": 4294967296u64 }), object!([])), "not usable"),
        (bpe(object!({ "a": 0, "b": 0 }), object!([])), "stands for two tokens"),
        (
            // the second part is cut where the prefix would end, inside a character
            object!({ "type": "BPE", "vocab": { "a": 0, "é": 1, "aé": 2 }, "merges": [["a", "é"]],
                      "continuing_subword_prefix": "#" }),
            "not usable",
        ),
        (object!({ "type": "BPE", "vocab": { "a": 0 }, "merges": [], "dropout": 0.1 }), "a dropout"),
        (object!({ "type": "BPE", "vocab": { "a": 0 }, "merges": [], "dropout": 7 }), "a dropout"),
        (unigram(object!([]), object!(0)), "not usable"),
        (unigram(object!([["a", -1.0]]), object!(7)), "not usable"),
        (unigram(object!([["a", -1.0]]), object!(-1)), "not readable"),
        (unigram(object!([["a", null]]), object!(0)), "not usable"),
        (unigram(object!([["a", "NaN"]]), object!(0)), "not usable"),
        (unigram(object!([["a", -1.0], ["b", 1e31]]), object!(0)), "the score"),
        (unigram(object!([["a", -1.0], ["b", -1e300]]), object!(0)), "the score"),
        (unigram(object!([["a", -1.0], ["a", -2.0]]), object!(0)), "2 pieces, of which 1 differ"),
        (
            object!({ "type": "WordPiece", "vocab": { "a": 0 }, "unk_token": "a", "continuing_subword_prefix": "##",
                      "max_input_chars_per_word": 1001 }),
            "words of 1001 characters",
        ),
        (object!({ "type": "WordLevel", "vocab": ["a"], "unk_token": "a" }), "not usable"),
        (object!({ "type": "WordLevel", "vocab": { "a": 0 }, "unk_token": 3 }), "not readable"),
    ] {
        refused(changed_words(|json| json["model"] = model), problem);
    }
    refused(
        changed_words(|json| json["model"] = bpe(object!({ "a": 0 }), object!([]))).replace(":0", ":NaN"),
        "not readable",
    );
    let unreadable = changed_words(|json| json["model"] = unigram(object!([["a", 7.5]]), object!(0)));
    refused(unreadable.replace("7.5", "1e999"), "not");
}

#[test]
fn charsmaps_are_checked() {
    let map = |map: &str| {
        let normalizer = object!({ "type": "Precompiled", "precompiled_charsmap": map });
        changed_words(|json| json["normalizer"] = object!({ "type": "Sequence", "normalizers": [normalizer] }))
    };
    for (text, problem) in [
        ("not base64!", "not base64"),
        ("", "of no length"),
        ("AAA=", "of no length"),
        ("AAAAAA==", "has 0 of 0 bytes"),
        ("/////w==", "has 4294967295 of 0 bytes"),
        ("BgAAAAAAAAAAAA==", "has 6 of"),
        ("CAAAAAAAAAA=", "has 8 of 4 bytes"),
    ] {
        refused(map(text), problem);
    }
    refused(changed_words(|json| json["normalizer"] = object!({ "type": "Precompiled" })), "not usable");
    refused(
        changed_words(|json| json["normalizer"] = object!({ "type": "Precompiled", "precompiled_charsmap": 3 })),
        "",
    );
    // a trie of one unit, whose leaf is 65 bytes of text; then the same with 64
    let long = |n: usize| base64(&[&[4, 0, 0, 0, 0, 0, 0, 0][..], &b"x".repeat(n)].concat());
    refused(map(&long(65)), "makes 65 bytes of one character");
    read_with(map(&long(64)).as_bytes(), None, false, None).unwrap();
    // units that lead out of the trie, and texts cut inside a character
    for units in [[0xffff_ffffu32, 0xffff_ffff], [0x0000_0400, 0x0000_0161]] {
        let bytes: Vec<u8> = [8].into_iter().chain(units).flat_map(u32::to_le_bytes).chain("é\0".bytes()).collect();
        match read_with(map(&base64(&bytes)).as_bytes(), None, false, None) {
            Ok(tokenizer) => {
                for text in ["a", "ab", "John \u{301}"] {
                    if let Err(error) = tokenizer.encode(text, None) {
                        assert_eq!(error.code(), "TOKENIZER_INVALID");
                    }
                }
            }
            Err(error) => assert_eq!(error.code(), "TOKENIZER_INVALID"),
        }
    }
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        let digit = |i: usize| if i > chunk.len() { '=' } else { DIGITS[(bits >> (18 - 6 * i) & 63) as usize] as char };
        text.extend((0..4).map(digit));
    }
    text
}

#[test]
fn steps_that_make_much_of_little_are_refused() {
    let wide = "x".repeat(257);
    for (part, step, problem) in [
        ("normalizer", object!({ "type": "Prepend", "prepend": wide }), "prepend of 257 bytes"),
        (
            "normalizer",
            object!({ "type": "Replace", "pattern": { "String": "a" }, "content": wide }),
            "content of 257 bytes",
        ),
        (
            "decoder",
            object!({ "type": "Replace", "pattern": { "String": "a" }, "content": wide }),
            "content of 257 bytes",
        ),
    ] {
        refused(changed_words(|json| json[part] = step), problem);
    }
    // eight times ten letters for one
    let tenfold = object!({ "type": "Replace", "pattern": { "String": "a" }, "content": "aaaaaaaaaa" });
    let steps = vec![tenfold; 8];
    let json = words(&LIST, |json| json["normalizer"] = object!({ "type": "Sequence", "normalizers": steps }));
    let tokenizer = read(&json).unwrap();
    assert_eq!(tokenizer.encode("John", None).unwrap(), [3]);
    let error = error(tokenizer.encode("a", None));
    assert_eq!(error.code(), "TOKENIZER_INVALID");
    assert!(error.to_string().contains("makes more than 1088 bytes of a text"), "{error}");
}

#[test]
fn steps_without_a_stride_or_a_text_are_refused_when_they_are_used() {
    let fixed = object!({ "type": "FixedLength", "length": 0 });
    match read(&words(&LIST, |json| json["pre_tokenizer"] = fixed)) {
        Ok(tokenizer) => assert_eq!(error(tokenizer.encode("John", None)).code(), "TOKENIZER_INVALID"),
        Err(error) => assert_eq!(error.code(), "TOKENIZER_INVALID"),
    }
    for step in [
        object!({ "type": "Split", "pattern": {}, "behavior": "Removed", "invert": false }),
        object!({ "type": "Split", "pattern": { "String": "a" }, "behavior": "Lost", "invert": false }),
        object!({ "type": "Split", "pattern": { "String": "a" }, "behavior": "Removed" }),
        object!({ "type": "Split", "pattern": { "String": "a", "Regex": "\\s+" }, "behavior": "Removed", "invert": false }),
        object!({ "type": "Sequence", "pretokenizers": 3 }),
        object!({ "type": "Metaspace", "replacement": "", "prepend_scheme": "always", "split": true }),
        object!({ "type": "Metaspace", "replacement": "__", "prepend_scheme": "always", "split": true }),
    ] {
        refused(changed_words(|json| json["pre_tokenizer"] = step), "not usable");
    }
    refused(changed_words(|json| json["normalizer"] = object!({ "type": "Replace", "content": "" })), "not usable");
}

#[test]
fn a_post_processor_holds_the_text_once() {
    for (parts, problem) in [
        (&["<bos>"][..], "holds the text 0 times"),
        (&["A", "<bos>", "A"], "holds the text 2 times"),
        (&[], "holds the text 0 times"),
    ] {
        refused(changed_words(|json| json["post_processor"] = template(parts, &[("<bos>", 0)])), problem);
    }
    refused(
        changed_words(|json| json["post_processor"] = template(&["<none>", "A"], &[])),
        "its post-processor failed",
    );
}

#[test]
fn deep_and_wide_files_end_in_bounded_time() {
    let start = Instant::now();
    let nest = |step: &str, inner: &str, depth: usize| {
        let open = format!(r#"{{"type":"Sequence","{inner}":["#).repeat(depth);
        changed_words(|json| json[step] = "HERE".into()).replace("\"HERE\"", &format!("{open}{}", "]}".repeat(depth)))
    };
    for (step, inner) in [("normalizer", "normalizers"), ("pre_tokenizer", "pretokenizers"), ("decoder", "decoders")] {
        refused(nest(step, inner, 100_000), "not readable");
        // as deep as the parser goes
        let json = nest(step, inner, 55);
        if let Err(error) = read_with(json.as_bytes(), None, false, None) {
            assert_eq!(error.code(), "TOKENIZER_INVALID");
        }
    }
    let many = vec![object!({ "type": "NFC" }); 100_000];
    let json = words(&LIST, |json| json["normalizer"] = object!({ "type": "Sequence", "normalizers": many }));
    assert_eq!(read(&json).unwrap().encode("John", None).unwrap(), [3]);
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
}

#[test]
fn lengths_of_a_file_neither_cut_nor_fill_nor_stop_a_text() {
    let strategy = |max: u64, stride: u64, direction: &str| object!({ "direction": direction, "max_length": max, "strategy": "OnlyFirst", "stride": stride });
    let fill = |to: u64| {
        object!({ "strategy": { "Fixed": to }, "direction": "Left", "pad_to_multiple_of": 0, "pad_id": 2, "pad_type_id": 0,
                  "pad_token": "<eos>" })
    };
    for (part, value) in [
        ("truncation", strategy(2, 0, "Left")),
        ("truncation", strategy(0, 0, "Right")),
        ("truncation", strategy(1, 5, "Right")), // a stride beyond the length
        ("truncation", strategy(u64::MAX, u64::MAX, "Left")),
        ("padding", fill(8)),
        ("padding", fill(u64::MAX)),
    ] {
        let json = words(&LIST, |json| {
            json[part] = value.clone();
            json["post_processor"] = template(&["<bos>", "A"], &[("<bos>", 0)]);
        });
        assert_eq!(
            read(&json).unwrap().encode("John gave John Mary", None).unwrap(),
            [0, 3, 5, 3, 4],
            "{part} {value}"
        );
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
