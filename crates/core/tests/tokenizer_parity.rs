//! Ids and texts against those of `transformers`, for tokenizers of every kind that hubs hold
//! (`test/fixtures/tokenizers`).

mod common;

use common::*;
use logit_prism_core::tokenizer::Tokenizer;
use serde_json::Value;
use std::path::PathBuf;

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

fn case(name: &str) -> Value {
    json(&folder().join(format!("cases/{name}.json")))
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

#[test]
fn ids_and_texts_are_those_of_transformers() {
    let samples = json(&folder().join("samples.json"));
    let samples: Vec<&str> = samples.as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
    let mut names: Vec<PathBuf> =
        std::fs::read_dir(folder().join("cases")).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    let mut differences = Vec::new();
    for path in &names {
        let name = path.file_stem().unwrap().to_str().unwrap();
        let case = case(name);
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
                tokenizer.encode(text, Some(true)).ok(),
                tokenizer.decode(&whole).unwrap(),
            );
            let expected = (whole, plain, bos, row["decoded"].as_str().unwrap().to_string());
            if found != expected {
                differences.push(format!("{name} {text:?}\n   found {found:?}\nexpected {expected:?}"));
            }
        }
    }
    assert!(names.len() >= 30, "{} cases", names.len());
    assert!(
        differences.is_empty(),
        "{} differ:\n{}",
        differences.len(),
        differences[..20.min(differences.len())].join("\n")
    );
}
