//! Every kind of target against the float64 components of `gpt2/targets.json`, and the targets that are refused.

mod common;

use common::*;
use logit_prism_core::attribution::{
    Against, Answer, Attribution, NormTreatment, OnViolation, Resolved, Target, TokenWeights, Unit,
};
use logit_prism_core::rows::Positions;
use logit_prism_core::session::{Call, Session};
use logit_prism_core::tokenizer::Token;
use serde_json::{Value, json as object};
use std::collections::BTreeMap;

const TOLERANCE: f64 = 1e-5;

fn tokens(value: &Value) -> Vec<Token> {
    let ids = value.as_array().cloned().unwrap_or_else(|| vec![value.clone()]);
    ids.iter().map(|id| Token::Id(id.as_u64().unwrap() as u32)).collect()
}

/// The target that a `spec` of targets.json says.
fn target(spec: &Value) -> Target<Token> {
    if let Some(direction) = spec.get("direction") {
        return Target::Direction(numbers(direction).into_iter().map(|v| v as f32).collect());
    }
    if let Some(weights) = spec.get("weights") {
        let pairs: Vec<(u32, f64)> = serde_json::from_value(weights.clone()).unwrap();
        return Target::Weights(pairs.into_iter().map(|(id, w)| (Token::Id(id), w)).collect());
    }
    let answer = match spec["answer"].as_str() {
        Some("next") => Answer::Next,
        Some("predicted") => Answer::Predicted,
        _ => Answer::Tokens(tokens(&spec["answer"])),
    };
    let against = match spec.get("against") {
        None => None,
        Some(against) if against == "mean" => Some(Against::Mean),
        Some(against) => Some(Against::Tokens(tokens(against))),
    };
    Target::Tokens { answer, against }
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap()
}

fn check_row(what: &str, result: &Attribution, row: usize, unit: Unit, expected: &Value) {
    let columns = match unit {
        Unit::Head => head_columns(expected, number),
        _ => layer_columns(expected, number),
    };
    close(what, wide(row_of(result, row)), &columns, TOLERANCE);
    close("constant", [result.constant[row]], &numbers(&expected["constant"]), TOLERANCE);
    let certificate = result.certificates[row];
    close("total", [certificate.total], &numbers(&expected["total"]), TOLERANCE);
    close("measured", [certificate.measured], &numbers(&expected["measured"]), TOLERANCE);
    assert_eq!(result.rows[row].position as u64, expected["position"].as_u64().unwrap(), "{what}");
    // the one token that the answer stands for has the weight 1
    if let Some(token) = expected["answer_token"].as_u64() {
        let Resolved::Tokens(weights) = &result.targets[row] else { panic!("{what}: not tokens") };
        assert_eq!(weights.tokens[&(token as u32)], 1.0, "{what}");
    }
}

fn check(name: &str) {
    let session = load(&fixture("gpt2")).unwrap();
    let file = json(&fixture("gpt2").join("targets.json"));
    let entry = &file["targets"][name];
    let mut call = call(ids(&file["prompts"]), vec![target(&entry["spec"])]);
    if entry["spec"]["norm"] == "none" {
        call.options.norm = Some(NormTreatment::None);
    }
    for unit in [Unit::Head, Unit::Layer] {
        call.options.unit = unit;
        let mut checked = 0;
        if !entry["last_position"][0].is_null() {
            let result = attribute(&session, &call).unwrap();
            for (i, expected) in entry["last_position"].as_array().unwrap().iter().enumerate() {
                check_row(&format!("{name}, prompt {i}"), &result, i, unit, expected);
                assert_eq!(result.rows[i].prompt, i);
                checked += 1;
            }
        }
        let rows: Vec<&Value> = entry["first_prompt"].as_array().unwrap().iter().filter(|row| !row.is_null()).collect();
        let mut first = call.clone();
        first.asked.prompts.truncate(1);
        first.asked.positions = Positions::Of((0..rows.len() as i64).collect());
        let result = attribute(&session, &first).unwrap();
        assert_eq!(result.rows.len(), rows.len());
        for (i, expected) in rows.into_iter().enumerate() {
            check_row(&format!("{name}, position {i}"), &result, i, unit, expected);
            checked += 1;
        }
        assert!(checked >= 8, "{name}: only {checked} rows were checked");
    }
}

macro_rules! targets {
    ($($name:ident),*) => {
        mod against_the_reference {
            $(#[test] fn $name() { super::check(stringify!($name)); })*
        }

        #[test]
        fn every_target_of_the_file_is_checked() {
            let file = json(&fixture("gpt2").join("targets.json"));
            let mut names = vec![$(stringify!($name)),*];
            names.sort();
            assert_eq!(file["targets"].as_object().unwrap().keys().collect::<Vec<_>>(), names);
        }
    };
}

targets!(direction, mean, next, norm_none, pair, predicted, sets, single, weights);

#[test]
fn a_single_token_without_a_norm_is_the_write_times_its_column() {
    // c · W_U[:, t], t = 17, from the stored matrices: embedding row 20 of the tied W_U and position row 0
    let tensors = read_tensors(&fixture("gpt2").join("model.safetensors"));
    let (wte, wpe) = (stored(&tensors, "transformer.wte.weight"), stored(&tensors, "transformer.wpe.weight"));
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let column = &wte[17 * 32..18 * 32];
    let expected = [dot(&wte[20 * 32..21 * 32], column), dot(&wpe[..32], column)];

    let mut call = call(vec![vec![20]], vec![Target::Weights(vec![(Token::Id(17), 1.0)])]);
    call.options.norm = Some(NormTreatment::None);
    let result = attribute(&load(&fixture("gpt2")).unwrap(), &call).unwrap();
    close("embeddings", wide(&result.values[..2]), &expected, 1e-6);
    assert_eq!(result.constant, [0.0]);
}

#[test]
fn sets_are_resolved_to_averages() {
    let id = |ids: &[u32]| ids.iter().map(|id| Token::Id(*id)).collect::<Vec<_>>();
    let target = Target::Tokens {
        answer: Answer::Tokens(id(&[4, 5])),
        against: Some(Against::Tokens(id(&[9, 8, 7, 5]))), // 5 stands on both sides: 1/2 − 1/4
    };
    let result = attribute(&load(&fixture("gpt2")).unwrap(), &call(vec![vec![1, 2]], vec![target])).unwrap();
    let tokens = BTreeMap::from([(4, 0.5), (5, 0.25), (7, -0.25), (8, -0.25), (9, -0.25)]);
    assert_eq!(result.targets, [Resolved::Tokens(TokenWeights { tokens, mean: 0.0 })]);
}

// ---- refusals ----

fn gpt2() -> Session {
    load(&fixture("gpt2")).unwrap()
}

fn refused(target: Target<Token>) -> (String, Value) {
    let call = call(vec![vec![1, 2, 3], vec![4]], vec![target]);
    refused_call(&call)
}

fn refused_call(call: &Call) -> (String, Value) {
    let error = error(attribute(&gpt2(), call));
    (error.code().into(), error.details())
}

fn of_tokens(answer: &[u32], against: Option<&[u32]>) -> Target<Token> {
    let id = |ids: &[u32]| ids.iter().map(|id| Token::Id(*id)).collect();
    Target::Tokens { answer: Answer::Tokens(id(answer)), against: against.map(|ids| Against::Tokens(id(ids))) }
}

#[test]
fn the_last_position_has_no_next_token() {
    let next = Target::Tokens { answer: Answer::Next, against: None };
    let mut call = call(vec![vec![1, 2, 3], vec![4, 5]], vec![pair(1, 2), next.clone()]);
    let (code, details) = refused_call(&call);
    assert_eq!(code, "POSITION_RANGE");
    assert_eq!((&details["prompt"], &details["position"], &details["length"]), (&object!(1), &object!(1), &object!(2)));
    assert!(details["problem"].as_str().unwrap().contains("next"), "{details}");
    call.asked.positions = Positions::Of(vec![0]);
    let result = attribute(&gpt2(), &call).unwrap();
    let five = TokenWeights { tokens: BTreeMap::from([(5, 1.0)]), mean: 0.0 };
    assert_eq!(result.targets[1], Resolved::Tokens(five));
}

#[test]
fn what_cancels_is_refused() {
    for target in [
        pair(6, 6),
        of_tokens(&[1, 2], Some(&[2, 1])),
        of_tokens(&[1, 1], Some(&[1])),
        Target::Weights(vec![(Token::Id(3), 0.5), (Token::Id(3), -0.5)]),
        Target::Weights(vec![(Token::Id(3), 0.0)]),
        Target::Weights(Vec::new()),
    ] {
        let (code, details) = refused(target.clone());
        assert_eq!((code.as_str(), &details["argument"]), ("INVALID_ARGUMENT", &object!("target")), "{target:?}");
    }
}

#[test]
fn empty_lists_are_refused() {
    for (target, argument) in [
        (of_tokens(&[], None), "target.answer"),
        (of_tokens(&[], Some(&[1])), "target.answer"),
        (of_tokens(&[1], Some(&[])), "target.against"),
    ] {
        let (code, details) = refused(target);
        assert_eq!((code.as_str(), &details["argument"]), ("INVALID_ARGUMENT", &object!(argument)));
    }
    // against an empty list is refused whatever the answer is
    let against = Some(Against::Tokens(Vec::new()));
    for answer in [Answer::Next, Answer::Predicted] {
        let (_, details) = refused(Target::Tokens { answer, against: against.clone() });
        assert_eq!(details["argument"], "target.against");
    }
}

#[test]
fn tokens_outside_the_vocabulary_are_refused() {
    let weights = |id| Target::Weights(vec![(Token::Id(3), 1.0), (Token::Id(id), 1.0)]);
    for (target, id) in [
        (of_tokens(&[5, 101], None), 101),
        (of_tokens(&[5], Some(&[u32::MAX])), u32::MAX),
        (weights(102), 102),
        (Target::Tokens { answer: Answer::Next, against: Some(Against::Tokens(vec![Token::Id(200)])) }, 200),
    ] {
        let (code, details) = refused(target);
        assert_eq!((code.as_str(), details), ("TOKEN_RANGE", object!({ "id": id, "dVocab": 101 })));
    }
    attribute(&gpt2(), &call(vec![vec![100]], vec![of_tokens(&[100], None)])).unwrap(); // the last one is a token
}

#[test]
fn weights_are_finite() {
    for weight in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let (code, details) = refused(Target::Weights(vec![(Token::Id(3), 1.0), (Token::Id(4), weight)]));
        assert_eq!((code.as_str(), &details["argument"]), ("INVALID_ARGUMENT", &object!("target.weights")));
    }
}

#[test]
fn directions_have_the_width_of_the_stream_and_are_finite() {
    let mut with_nan = vec![1.0; 32];
    with_nan[31] = f32::NAN;
    let mut infinite = vec![1.0; 32];
    infinite[0] = f32::NEG_INFINITY;
    for v in [vec![], vec![1.0; 31], vec![1.0; 33], vec![0.0; 32], with_nan, infinite] {
        let (code, details) = refused(Target::Direction(v.into()));
        assert_eq!((code.as_str(), &details["argument"]), ("INVALID_ARGUMENT", &object!("target.direction")));
        assert_eq!(details["expected"], "32 finite numbers, not all 0");
    }
}

#[test]
fn a_direction_takes_no_norm() {
    let direction = Target::Direction(vec![1.0; 32].into());
    let mut call = call(vec![vec![1, 2]], vec![direction]);
    for norm in [NormTreatment::Frozen, NormTreatment::None] {
        call.options.norm = Some(norm);
        let (code, details) = refused_call(&call);
        assert_eq!((code.as_str(), &details["argument"]), ("INVALID_ARGUMENT", &object!("norm")));
    }
    call.options.norm = None;
    attribute(&gpt2(), &call).unwrap();
}

#[test]
fn a_prediction_compared_with_itself_is_refused() {
    let against = |id| Some(Against::Tokens(vec![Token::Id(id)]));
    let predicted = |against| Target::Tokens { answer: Answer::Predicted, against };
    // the prediction behind the first reference prompt, by the reference's own logits
    let reference = json(&fixture("gpt2").join("reference.json"));
    let logits = numbers(&reference["logits_last"][0]);
    let best = (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap() as u32;
    let prompt = ids(&reference["prompts"]).remove(0);

    let (code, details) = refused_call(&call(vec![prompt.clone()], vec![predicted(against(best))]));
    assert_eq!((code.as_str(), &details["argument"]), ("INVALID_ARGUMENT", &object!("target.against")));
    assert!(details["found"].as_str().unwrap().contains(&format!("token {best}")), "{details}");
    let other = call(vec![prompt], vec![predicted(against((best + 1) % 101))]);
    let result = attribute(&gpt2(), &other).unwrap();
    let expected = logits[best as usize] - logits[(best as usize + 1) % 101];
    close("measured", [result.certificates[0].measured], &[expected], TOLERANCE);
}

#[test]
fn a_certificate_is_not_asked_of_an_attribution_without_the_norm() {
    let mut call = call(vec![vec![1, 2, 3]], vec![pair(6, 5)]);
    call.options.norm = Some(NormTreatment::None);
    assert_eq!(call.options.on_violation, OnViolation::Throw);
    assert!(!attribute(&gpt2(), &call).unwrap().certificates[0].holds());
}
