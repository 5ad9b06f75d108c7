//! Text and ids: the demo model's tokenizer and small ones written here, whose ids are known by hand.

mod common;

use common::tokenizers::*;
use common::*;
use logit_prism_core::Result;
use logit_prism_core::tokenizer::{Prompt, Tokenizer};
use serde_json::{Value, json as object};
use std::path::{Path, PathBuf};

fn demo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/demo")
}

fn text(text: &str) -> Prompt {
    Prompt::Text(text.into())
}

// ---- encoding ----

#[test]
fn the_demo_tokenizer_puts_its_bos_in_front() {
    let vocab = json(&demo().join("tokenizer.json"))["model"]["vocab"].clone();
    let id = |word: &str| vocab[word].as_u64().unwrap() as u32;
    let tokenizer = Tokenizer::load(&demo(), None, false).unwrap().unwrap();
    let plain = ["John", "gave", "Mary", "."].map(id);
    let with_bos = [&[0], &plain[..]].concat();
    assert_eq!(tokenizer.encode("John gave Mary.", None).unwrap(), with_bos);
    assert_eq!(tokenizer.encode("John gave Mary.", Some(true)).unwrap(), with_bos);
    assert_eq!(tokenizer.encode("John gave Mary.", Some(false)).unwrap(), plain);
    assert_eq!(tokenizer.encode("John zxqv", Some(false)).unwrap(), [id("John"), 1]); // <unk>
    assert_eq!(tokenizer.unknown(), Some(1));
    assert_eq!(tokenizer.token_to_id("Mary"), Some(id("Mary")));
    assert_eq!(tokenizer.token_to_id("zxqv"), None);
    assert_eq!(tokenizer.id_to_token(id("Mary")).as_deref(), Some("Mary"));
    assert_eq!(tokenizer.id_to_token(1_000_000), None);
}

#[test]
fn a_tokenizer_without_a_template_adds_nothing_unless_told() {
    let tokenizer = read_with(words(&LIST, |_| {}).to_string().as_bytes(), Some(0), false, None).unwrap();
    assert_eq!(tokenizer.encode("John gave", None).unwrap(), [3, 5]);
    assert_eq!(tokenizer.encode("John gave", Some(true)).unwrap(), [0, 3, 5]);
    assert_eq!(tokenizer.encode("John gave", Some(false)).unwrap(), [3, 5]);
    assert_eq!(tokenizer.encode("", Some(true)).unwrap(), [0]);
}

#[test]
fn what_a_template_appends_is_left_out() {
    let ids = [("<bos>", 0), ("<eos>", 2)];
    for (parts, expected) in [
        (&["<bos>", "A", "<eos>"][..], &[0, 3, 5][..]),
        (&["A", "<eos>"], &[3, 5]),
        (&["A", "<eos>", "<eos>"], &[3, 5]),
        (&["<bos>", "<eos>", "A"], &[0, 2, 3, 5]),
        (&["<bos>", "A"], &[0, 3, 5]),
    ] {
        let json = words(&LIST, |json| json["post_processor"] = template(parts, &ids));
        let tokenizer = read_with(json.to_string().as_bytes(), Some(0), false, None).unwrap();
        assert_eq!(tokenizer.encode("John gave", None).unwrap(), expected, "{parts:?}");
        assert_eq!(tokenizer.encode("John gave", Some(false)).unwrap(), [3, 5], "{parts:?}");
        assert_eq!(tokenizer.encode("John gave", Some(true)).unwrap(), [0, 3, 5], "{parts:?}");
    }
}

#[test]
fn bos_is_named_by_the_tokenizer_config_before_the_model_config() {
    let json = words(&LIST, |_| {}).to_string();
    let first = |config: Option<&str>, bos| {
        let tokenizer = read_with(json.as_bytes(), bos, false, config).unwrap();
        tokenizer.encode("Mary", Some(true)).map(|ids| ids[0])
    };
    assert_eq!(first(Some(r#"{"bos_token": "<eos>"}"#), Some(0)).unwrap(), 2);
    assert_eq!(first(Some(r#"{"bos_token": {"content": "<eos>", "lstrip": false}}"#), Some(0)).unwrap(), 2);
    assert_eq!(first(Some(r#"{"bos_token": "<eos>"}"#), None).unwrap(), 2);
    for unnamed in [r#"{}"#, r#"{"bos_token": null}"#, r#"{"bos_token": "no such"}"#] {
        assert_eq!(first(Some(unnamed), Some(0)).unwrap(), 0, "{unnamed}");
    }
    let error = error(first(None, None));
    assert_eq!((error.code(), &error.details()["argument"]), ("INVALID_ARGUMENT", &"prependBos".into()));
}

#[test]
fn bos_is_named_by_the_special_tokens_map_where_it_is_read() {
    let map = r#"{"bos_token": {"content": "<eos>", "lstrip": false}}"#;
    for (config, expected) in [
        (None, 2),
        (Some(r#"{"bos_token": "Mary"}"#), 2), // transformers lets the older file win
        (Some(r#"{"bos_token": "Mary", "added_tokens_decoder": {}}"#), 4), // but does not read it behind this key
    ] {
        let dir = TempDir::new();
        dir.write("tokenizer.json", words(&LIST, |_| {}).to_string());
        dir.write("special_tokens_map.json", map);
        if let Some(config) = config {
            dir.write("tokenizer_config.json", config);
        }
        let tokenizer = Tokenizer::load(&dir.0, Some(0), false).unwrap().unwrap();
        assert_eq!(tokenizer.encode("John", Some(true)).unwrap(), [expected, 3], "{config:?}");
    }
}

#[test]
fn the_class_of_the_family_has_a_bos_where_its_files_name_none() {
    let special = |ids: &[u32]| -> Value { ids.iter().map(|id| added(*id, LIST[*id as usize])).collect() };
    for (config, marked, expected) in [
        (r#"{"model_type": "jais2"}"#, special(&[0]), Some(0)), // jais2's is 0
        (r#"{"model_type": "gemma"}"#, special(&[0, 2]), Some(2)),
        (r#"{"model_type": "gemma", "bos_token_id": null}"#, special(&[0, 2]), None),
        (r#"{"model_type": "gemma"}"#, special(&[0]), None), // in this vocabulary 2 is no special token
        (r#"{"model_type": "llama"}"#, special(&[1]), None), // 1 is <unk> here
        (r#"{"model_type": "olmo"}"#, special(&[0, 1, 2]), None),
        (r#"{"model_type": "gpt2"}"#, special(&[0, 1, 2]), None), // 50256
    ] {
        let dir = TempDir::new();
        dir.write("config.json", config);
        dir.write("tokenizer.json", words(&LIST, |json| json["added_tokens"] = marked).to_string());
        let tokenizer = Tokenizer::load(&dir.0, None, false).unwrap().unwrap();
        let front = tokenizer.encode("John", Some(true)).ok().map(|ids| ids[0]);
        assert_eq!(front, expected, "{config}");
    }
}

#[test]
fn types_of_a_tokenizer_config_are_checked() {
    let json = words(&LIST, |_| {}).to_string();
    for (config, key) in [
        (r#"{"bos_token": 7}"#, "bos_token"),
        (r#"{"eos_token": ["<eos>"]}"#, "eos_token"),
        (r#"{"unk_token": {"text": "<unk>"}}"#, "unk_token"),
        (r#"{"add_bos_token": "yes"}"#, "add_bos_token"),
        (r#"{"add_eos_token": 1}"#, "add_eos_token"),
        (r#"{"add_prefix_space": []}"#, "add_prefix_space"),
        (r#"{"legacy": "no"}"#, "legacy"),
        (r#"{"split_special_tokens": 0}"#, "split_special_tokens"),
        (r#"{"tokenizer_class": 3}"#, "tokenizer_class"),
        (r#"{"extra_special_tokens": "x"}"#, "extra_special_tokens"),
        (r#"{"additional_special_tokens": [7]}"#, "additional_special_tokens"),
        (r#"{"added_tokens_decoder": []}"#, "added_tokens_decoder"),
        (r#"{"added_tokens_decoder": {"x": {"content": "a"}}}"#, "added_tokens_decoder"),
        (r#"{"added_tokens_decoder": {"7": {"lstrip": true}}}"#, "added_tokens_decoder"),
        ("[]", "not readable as JSON"),
        ("null", "not readable as JSON"),
    ] {
        let error = error(read_with(json.as_bytes(), None, false, Some(config)).map(drop));
        assert_eq!(error.code(), "TOKENIZER_INVALID", "{config}");
        assert!(error.details()["problem"].as_str().unwrap().starts_with(key), "{error}");
    }
    let ignored = r#"{"chat_template": [{"name": "default", "template": "{{ nonsense"}], "model_max_length": 1e30,
                      "add_bos_token": true, "add_eos_token": true, "auto_map": {"AutoTokenizer": ["x", null]}}"#;
    assert_eq!(read_with(json.as_bytes(), None, false, Some(ignored)).unwrap().encode("John", None).unwrap(), [3]);
}

#[test]
fn a_tokenizer_config_is_json_of_at_most_1_mib() {
    let json = words(&LIST, |_| {}).to_string();
    let large = " ".repeat((1 << 20) + 1);
    for (config, problem) in [("{", "not readable as JSON"), (&large, "larger than 1048576 bytes")] {
        let error = error(read_with(json.as_bytes(), None, false, Some(config)).map(drop));
        assert_eq!(error.code(), "TOKENIZER_INVALID");
        assert!(error.details()["problem"].as_str().unwrap().contains(problem), "{error}");
        assert!(error.details()["file"].as_str().unwrap().ends_with("tokenizer_config.json"));
    }
}

#[test]
fn lengths_of_somebodys_training_are_ignored() {
    let json = words(&LIST, |json| {
        json["truncation"] =
            object!({ "direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0 });
        json["padding"] = object!({ "strategy": { "Fixed": 8 }, "direction": "Right", "pad_to_multiple_of": null,
                                    "pad_id": 2, "pad_type_id": 0, "pad_token": "<eos>" });
    });
    assert_eq!(read(&json).unwrap().encode("John gave John Mary", None).unwrap(), [3, 5, 3, 4]);
}

#[test]
fn texts_have_at_most_1_mib() {
    let tokenizer = read(&words(&LIST, |_| {})).unwrap();
    let longest = "Mary ".repeat((1 << 20) / 5) + "J"; // 1,048,575 + 1 bytes
    assert_eq!(longest.len(), 1 << 20);
    assert_eq!(tokenizer.encode(&longest, None).unwrap().len(), (1 << 20) / 5 + 1);
    for outcome in
        [tokenizer.encode(&format!("{longest} "), None).map(drop), tokenizer.token("Mary", &text(&longest)).map(drop)]
    {
        assert_eq!(error(outcome).code(), "INVALID_ARGUMENT");
    }
}

#[test]
fn ids_become_text_special_tokens_included() {
    let tokenizer = Tokenizer::load(&demo(), None, false).unwrap().unwrap();
    let ids = tokenizer.encode("John gave Mary", None).unwrap();
    assert_eq!(tokenizer.decode(&ids).unwrap(), "<bos> John gave Mary");
    assert_eq!(tokenizer.decode(&[]).unwrap(), "");
    // the library would leave out ids that the vocabulary does not have
    let error = tokenizer.decode(&[ids[1], 1_000_000, u32::MAX]).unwrap_err();
    assert_eq!((error.code(), error.details()["id"].as_u64()), ("TOKEN_RANGE", Some(1_000_000)));
}

// ---- tokens in their place ----

/// Fails with `NOT_ONE_TOKEN` and these fields.
#[track_caller]
fn not_one(outcome: Result<u32>, place: &str, pieces: &[&str], hint: Option<&str>) {
    let error = error(outcome);
    assert_eq!(error.code(), "NOT_ONE_TOKEN", "{error}");
    let details = error.details();
    assert_eq!((&details["place"], &details["pieces"]), (&place.into(), &object!(pieces)));
    assert_eq!(details["hint"].as_str().map(|h| h.split(',').next().unwrap()), hint);
}

#[test]
fn a_token_is_what_the_text_becomes_behind_the_prompt() {
    let tokenizer = read(&words(&LIST, |_| {})).unwrap();
    let prompt = text("John gave");
    assert_eq!(tokenizer.token(" Mary", &prompt).unwrap(), 4);
    assert_eq!(tokenizer.token("Mary", &text("John gave ")).unwrap(), 4);
    // without the blank the prompt's last word would become another: "gaveMary"
    not_one(tokenizer.token("Mary", &prompt), "behind the prompt", &["<unk>"], Some("\" Mary\""));
    not_one(tokenizer.token(" Mary gave", &prompt), "behind the prompt", &["Mary", "gave"], None);
    not_one(tokenizer.token("Mary gave", &prompt), "behind the prompt", &["<unk>", "gave"], None);
    not_one(
        tokenizer.token(" zxqv", &prompt),
        "behind the prompt",
        &["<unk>"],
        Some("the vocabulary does not have it"),
    );
    not_one(tokenizer.token("", &prompt), "behind the prompt", &[], None);
    // the unknown token itself may be meant
    let special = read(&words(&LIST, |json| json["added_tokens"] = object!([added(1, "<unk>")]))).unwrap();
    assert_eq!(special.token("<unk>", &prompt).unwrap(), 1);
}

#[test]
fn behind_ids_a_token_stands_alone() {
    let tokenizer = read(&words(&LIST, |_| {})).unwrap();
    let ids = Prompt::Ids(vec![3, 5]);
    assert_eq!(tokenizer.token("Mary", &ids).unwrap(), 4);
    not_one(tokenizer.token("zxqv", &ids), "by itself", &["<unk>"], Some("the vocabulary does not have it"));
    not_one(tokenizer.token("John Mary", &ids), "by itself", &["John", "Mary"], None);
}

#[test]
fn the_unknown_token_may_be_named_by_its_id() {
    // a Unigram model: pieces with scores, and the index of the unknown one
    let json = object!({
        "version": "1.0", "added_tokens": [], "normalizer": null, "pre_tokenizer": { "type": "WhitespaceSplit" },
        "post_processor": null, "decoder": null,
        "model": { "type": "Unigram", "unk_id": 1, "vocab": [["ab", -1.0], ["<unk>", -9.0], ["c", -1.0]] },
    });
    let tokenizer = read(&json).unwrap();
    assert_eq!(tokenizer.unknown(), Some(1));
    assert_eq!(tokenizer.token("c", &text("ab ")).unwrap(), 2);
    not_one(
        tokenizer.token("z", &text("ab ")),
        "behind the prompt",
        &["<unk>"],
        Some("the vocabulary does not have it"),
    );
}

#[test]
fn calls_take_texts_and_say_which_ids_were_run() {
    let session = load(&demo()).unwrap();
    let mut call = call(Vec::new(), vec![pair(3, 2)]);
    call.asked.prompts = vec![text("John gave"), Prompt::Ids(vec![5])];
    let (ids, _) = with_job(|job| session.attribute(&call, job)).unwrap();
    let tokenizer = session.tokenizer("this test").unwrap();
    assert_eq!(ids, [tokenizer.encode("John gave", None).unwrap(), vec![5]]);
    call.asked.prompts.truncate(1);
    call.asked.prepend_bos = Some(false);
    let (ids, _) = with_job(|job| session.attribute(&call, job)).unwrap();
    assert_eq!(ids, [tokenizer.encode("John gave", Some(false)).unwrap()]);
}

#[test]
fn an_id_beyond_the_models_vocabulary_is_refused_when_it_is_used() {
    let dir = TempDir::copy_of("gpt2"); // 101 tokens
    let gap = words(&LIST, |json| json["model"]["vocab"]["extra"] = 101.into());
    dir.write("tokenizer.json", gap.to_string());
    let session = load(&dir.0).unwrap();
    let mut call = call(Vec::new(), vec![pair(3, 2)]);
    call.asked.prompts = vec![text("John")];
    attribute(&session, &call).unwrap();
    call.asked.prompts = vec![text("John extra")];
    let error = error(attribute(&session, &call));
    assert_eq!((error.code(), error.details()), ("TOKEN_RANGE", object!({ "id": 101, "dVocab": 101 })));
}

#[test]
fn a_text_without_tokens_is_an_empty_prompt() {
    let dir = TempDir::copy_of("gpt2");
    dir.write("tokenizer.json", words(&LIST, |_| {}).to_string());
    let mut call = call(Vec::new(), vec![pair(3, 2)]);
    call.asked.prompts = vec![text("John"), text("  ")];
    let error = error(attribute(&load(&dir.0).unwrap(), &call));
    assert_eq!((error.code(), error.details()), ("PROMPT_EMPTY", object!({ "prompt": 1 })));
}
