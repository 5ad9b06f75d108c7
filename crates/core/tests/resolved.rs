//! Every family's config in both spellings, whole and with every key left out, against what the configuration classes of
//! transformers make of it (test/fixtures/resolved.py): the same numbers, or a refusal.

mod common;

use common::*;
use logit_prism_core::Result;
use logit_prism_core::config::{ModelConfig, RawConfig};
use serde_json::{Map, Value, json as object};
use std::collections::BTreeMap;

fn resolve(config: &Value) -> Result<ModelConfig> {
    ModelConfig::resolve(RawConfig::parse("config.json", config.to_string().as_bytes())?, false)
}

/// What we make of it, under the names of the fixture.
fn found(config: &ModelConfig) -> Value {
    let mut found = serde_json::to_value(config).unwrap();
    let rotary: Vec<_> = (0..config.n_layers).filter_map(|l| config.rotary(l)).collect();
    let mut thetas: Vec<f64> = rotary.iter().map(|r| r.theta).collect();
    thetas.sort_by(f64::total_cmp);
    thetas.dedup();
    let kind = |r: &&_| serde_json::to_value(r).unwrap()["scaling"]["kind"].as_str().unwrap().to_string();
    let mut kinds: Vec<String> = rotary.iter().map(kind).collect();
    kinds.sort();
    kinds.dedup();
    found["theta"] = object!(thetas);
    found["scaling"] = object!(kinds);
    found["rotaryDim"] = object!(rotary.first().map(|r| r.dim));
    found["eps"] = object!(config.norm.eps);
    for name in ["nExperts", "topK"] {
        found[name] = found["mlp"][name].clone();
    }
    found
}

/// How the configs fared.
#[derive(Default)]
struct Tally {
    agreed: usize,
    refused: Vec<String>,
    wrong: Vec<String>,
}

/// The config and what it must be: what differs from `whole` stands in `changed`.
fn agree(what: &str, config: &Value, whole: &Value, changed: &Value, tally: &mut Tally) {
    let Some(changed) = changed.as_object() else { return }; // the class refuses it itself
    let ours = match resolve(config) {
        Ok(config) => found(&config),
        Err(e) => {
            assert!(e.code().starts_with("CONFIG_"), "{what}: {e}");
            return tally.refused.push(format!("{what}: {e}"));
        }
    };
    let wrong = tally.wrong.len();
    for (name, value) in whole.as_object().unwrap() {
        let expected = changed.get(name).unwrap_or(value);
        // the class does not say which layers turn; where none does, nothing is left to compare
        let nothing_turns = ours["rotaryDim"].is_null() && ["theta", "scaling", "rotaryDim"].contains(&name.as_str());
        if expected.is_null() || nothing_turns {
            continue;
        }
        let same = match (ours[name].as_f64(), expected.as_f64()) {
            (Some(a), Some(b)) => (a - b).abs() <= 1e-12 * b.abs(),
            _ => &ours[name] == expected,
        };
        if !same {
            tally.wrong.push(format!("{what}: {name} is {}, expected {expected}", ours[name]));
        }
    }
    tally.agreed += usize::from(tally.wrong.len() == wrong);
}

fn without(config: &Value, key: &str) -> Value {
    let mut keys = config.as_object().unwrap().clone();
    keys.remove(key);
    Value::Object(keys)
}

/// What stays of a config without all that is no size.
fn bare(config: &Value) -> Value {
    let sizes = [
        "model_type",
        "vocab_size",
        "hidden_size",
        "n_embd",
        "d_model",
        "num_hidden_layers",
        "n_layer",
        "n_layers",
        "num_layers",
        "num_attention_heads",
        "n_head",
        "n_heads",
        "num_heads",
        "max_position_embeddings",
        "n_positions",
        "max_seq_len",
        "word_embed_proj_dim",
    ];
    let kept = config.as_object().unwrap().iter().filter(|(k, _)| sizes.contains(&k.as_str()));
    Value::Object(kept.map(|(k, v)| (k.clone(), v.clone())).collect::<Map<_, _>>())
}

#[test]
fn both_spellings_with_every_key_left_out() {
    let fixture: BTreeMap<String, Value> = serde_json::from_value(json(&fixture("resolved.json"))).unwrap();
    let mut tally = Tally::default();
    for (name, spellings) in fixture.iter().filter(|(name, _)| !name.starts_with("hub/")) {
        for (spelling, of) in spellings.as_object().unwrap() {
            let (config, whole) = (&of["config"], &of["resolved"]);
            let what = format!("{name}, {spelling}");
            agree(&what, config, whole, &object!({}), &mut tally);
            agree(&format!("{what}, bare"), &bare(config), whole, &of["bare"], &mut tally);
            for (key, changed) in of["without"].as_object().unwrap() {
                agree(&format!("{what} without {key}"), &without(config, key), whole, changed, &mut tally);
            }
        }
    }
    println!("{} agree, {} refused:\n{}", tally.agreed, tally.refused.len(), tally.refused.join("\n"));
    assert!(tally.wrong.is_empty(), "{}", tally.wrong.join("\n"));
    assert!(tally.agreed > 2000, "{} agree", tally.agreed);
}

#[test]
fn configs_as_they_lie_on_the_hubs() {
    let mut tally = Tally::default();
    let resolved = json(&fixture("resolved.json"));
    for (name, of) in resolved.as_object().unwrap().iter().filter(|(name, _)| name.starts_with("hub/")) {
        agree(name, &json(&fixture(&format!("{name}.json"))), &of["resolved"], &object!({}), &mut tally);
    }
    assert!(tally.wrong.is_empty(), "{}", tally.wrong.join("\n"));
    assert!(tally.agreed > 60, "{} agree; refused: {}", tally.agreed, tally.refused.join("\n"));
}
