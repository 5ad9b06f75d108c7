//! What is left of a target when all heads and MLPs but a few are replaced, against float64 references of transformers.

mod common;

use common::*;
use logit_prism_core::attribution::{Component, Kind, Unit};
use logit_prism_core::session::{SetTo, WithoutCall};
use logit_prism_core::tokenizer::Prompt;
use serde_json::from_value;

#[test]
fn what_a_circuit_leaves_is_what_transformers_computes() {
    for family in ["gpt2", "llama", "gemma2"] {
        let dir = fixture(&format!("parity/{family}"));
        let reference = json(&dir.join("circuits.json"));
        let ids = |key: &str| from_value::<Vec<Vec<u32>>>(reference[key].clone()).unwrap();
        let prompts = |key: &str| ids(key).into_iter().map(Prompt::Ids).collect::<Vec<_>>();
        let target = pair(reference["answer"].as_u64().unwrap(), reference["against"].as_u64().unwrap());
        for session in load_both(&dir) {
            let session = session.unwrap();
            let components = Component::all(Unit::Head, &session.transformer.config);
            for circuit in reference["circuits"].as_array().unwrap() {
                let keep: Vec<String> = from_value(circuit["keep"].clone()).unwrap();
                let is_gone = |c: &Component| matches!(c.kind, Kind::Head | Kind::Mlp) && !keep.contains(&c.label());
                let gone = (0..components.len()).filter(|i| is_gone(&components[*i])).collect();
                let set = match circuit["set"].as_str().unwrap() {
                    "zero" => SetTo::Zero,
                    "from" => SetTo::From(prompts("source")),
                    mean => SetTo::Mean { reference: prompts("reference"), by_position: mean == "mean_by_position" },
                };
                // the circuit, and the whole model, in one call
                let sets = vec![gone, Vec::new()];
                let call = WithoutCall { asked: asked(ids("prompts")), targets: vec![target.clone()], sets, set };
                let found = with_job(|job| session.without(&call, job)).unwrap().1;
                let expected = (numbers(&circuit["left"]), numbers(&reference["full"]));
                for (i, (left, full)) in expected.0.iter().zip(&expected.1).enumerate() {
                    for (found, expected) in
                        [(found.left[2 * i], left), (found.left[2 * i + 1], full), (found.measured[i], full)]
                    {
                        let near = (found - expected).abs() <= 1e-4 * (1.0 + expected.abs());
                        assert!(near, "{family} {circuit}: {found}, expected {expected}");
                    }
                }
            }
        }
    }
}

#[test]
fn what_cannot_be_replaced_is_refused() {
    let session = load(&fixture("parity/gpt2")).unwrap();
    let components = Component::all(Unit::Head, &session.transformer.config);
    let bias = components.iter().position(|c| c.kind == Kind::AttnBias).unwrap();
    for column in [bias, components.len()] {
        let sets = vec![vec![column]];
        let call = WithoutCall { asked: asked(vec![vec![1, 2]]), targets: vec![pair(3, 4)], sets, set: SetTo::Zero };
        assert_eq!(error(with_job(|job| session.without(&call, job))).code(), "INVALID_ARGUMENT");
    }
}
