//! Ids and texts against those of `transformers`, for tokenizers of every kind that hubs hold
//! (`test/fixtures/tokenizers`).

mod common;

use common::*;
use logit_prism_core::tokenizer::{Prompt, Tokenizer};
use serde_json::Value;
use std::path::PathBuf;
use std::time::{Duration, Instant};

fn folder() -> PathBuf {
    fixture("tokenizers")
}

/// A case's directory, as it was opened for the reference.
fn opened(case: &Value) -> Tokenizer {
    let dir = TempDir::new();
    let file = format!("files/{}.json", case["kind"].as_str().unwrap());
    dir.write("tokenizer.json", std::fs::read(folder().join(file)).unwrap());
    for (name, content) in case["files"].as_object().unwrap() {
        dir.write(name, content.to_string());
    }
    Tokenizer::load(&dir.0, None, false).unwrap().unwrap()
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

fn cases() -> Vec<(String, Value)> {
    let entries = std::fs::read_dir(folder().join("cases")).unwrap().map(|entry| entry.unwrap().path());
    let mut names: Vec<String> = entries.map(|path| path.file_stem().unwrap().to_str().unwrap().into()).collect();
    names.sort();
    assert!(names.len() >= 40, "{} cases", names.len());
    names.into_iter().map(|name| (name.clone(), json(&folder().join(format!("cases/{name}.json"))))).collect()
}

#[test]
fn ids_and_texts_are_those_of_transformers() {
    let samples = json(&folder().join("samples.json"));
    let samples: Vec<&str> = samples.as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
    let mut differences = Vec::new();
    for (name, case) in cases() {
        let tokenizer = opened(&case);
        let rows = case["rows"].as_array().unwrap();
        assert_eq!(rows.len(), samples.len(), "{name}");
        for (text, row) in samples.iter().zip(rows) {
            let plain = ids(&row["ids"]);
            let whole = [ids(&row["front"]), plain.clone()].concat();
            let bos = case["bos"].as_u64().map(|bos| [&[bos as u32], &plain[..]].concat());
            let found = (
                tokenizer.encode(text, None).unwrap(),
                tokenizer.encode(text, Some(false)).unwrap(),
                // where the tokenizer names none, the model's configuration may: see tokenizer.rs
                bos.as_ref().map(|_| tokenizer.encode(text, Some(true)).unwrap()),
                tokenizer.decode(&whole).unwrap(),
            );
            let expected = (whole, plain, bos, row["decoded"].as_str().unwrap().to_string());
            if found != expected {
                differences.push(format!("{name} {text:?}\n   found {found:?}\nexpected {expected:?}"));
            }
        }
    }
    assert!(
        differences.is_empty(),
        "{} differ:\n{}",
        differences.len(),
        differences[..20.min(differences.len())].join("\n")
    );
}

#[test]
fn an_answer_is_one_token_where_it_stands_or_is_refused() {
    let (mut one, mut refused) = (0, 0);
    for (name, case) in cases() {
        let tokenizer = opened(&case);
        let kind = case["kind"].as_str().unwrap();
        let file = json(&folder().join(format!("files/{kind}.json")));
        let unknown = file["model"]["unk_token"].as_str().or(Some("<unk>").filter(|_| kind.starts_with("unigram")));
        for answer in case["answers"].as_array().unwrap() {
            let [before, text] = ["before", "text"].map(|key| answer[key].as_str().unwrap());
            let (prompt, whole) = (ids(&answer["prompt"]), ids(&answer["ids"]));
            let tokens: Vec<&str> = answer["tokens"].as_array().unwrap().iter().map(|t| t.as_str().unwrap()).collect();
            let prompt_given = if before.is_empty() { Prompt::Ids(vec![1]) } else { Prompt::Text(before.into()) };
            let found = tokenizer.token(text, &prompt_given);
            if whole.len() == prompt.len() + 1 && whole.starts_with(&prompt) && tokens.last().copied() != unknown {
                one += 1;
                assert_eq!(found.unwrap(), whole[prompt.len()], "{name} {before:?} {text:?}");
            } else {
                refused += 1;
                let error = error(found);
                assert_eq!(error.code(), "NOT_ONE_TOKEN", "{name} {before:?} {text:?}");
                let common = prompt.iter().zip(&whole).take_while(|(a, b)| a == b).count();
                assert_eq!(error.details()["pieces"], Value::from(&tokens[common..]), "{name} {before:?} {text:?}");
            }
        }
    }
    assert!(one > 150 && refused > 100, "{one} {refused}");
}

#[test]
fn the_space_in_front_is_hinted_at() {
    let prompt = Prompt::Text("John gave a drink to".into());
    let alone = Prompt::Ids(vec![1]);
    for (name, text, prompt, hint) in [
        // "toMary": the piece would be another
        ("gpt2", "Mary", &prompt, Some("\" Mary\", with a space in front, is one token there")),
        ("llama2_new", "Mary", &prompt, Some("\" Mary\", with a space in front, is one token there")),
        ("unigram", "Mary", &prompt, Some("\" Mary\", with a space in front, is one token there")),
        ("wordpiece", "Mary", &prompt, Some("\" Mary\", with a space in front, is one token there")),
        ("wordlevel", "Mary", &prompt, Some("\" Mary\", with a space in front, is one token there")),
        // SentencePiece puts a space in front of a text by itself, so that this one would be the second
        ("llama2_old", " Mary", &alone, Some("\"Mary\", without the space in front, is one token there")),
        ("llama2_old", " Mary John", &alone, None),
        ("gpt2", " ", &alone, None),
    ] {
        let case = json(&folder().join(format!("cases/{name}.json")));
        let found = match opened(&case).token(text, prompt) {
            Ok(_) => None,
            Err(error) => error.details()["hint"].as_str().map(String::from),
        };
        assert_eq!(found.as_deref(), hint, "{name} {text:?}");
    }
}

#[test]
fn the_longest_texts_end_in_bounded_time() {
    let texts = ["a", "a "].map(|unit| unit.repeat((1 << 20) / unit.len()));
    for name in ["gpt2", "llama2_old", "gemma", "unigram_charsmap", "wordpiece"] {
        let tokenizer = opened(&json(&folder().join(format!("cases/{name}.json"))));
        for text in &texts {
            let start = Instant::now();
            assert!(!tokenizer.encode(text, None).unwrap().is_empty());
            assert!(start.elapsed() < Duration::from_secs(60), "{name}: {:?}", start.elapsed());
        }
    }
}
