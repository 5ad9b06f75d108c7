//! A prompt's numbers do not depend on its neighbours, on how prompts are cut into chunks, or on threads; and the rows
//! of a result are those that were asked for, in order.

mod common;

use common::*;
use logit_prism_core::attribution::{Against, Answer, Attribution, Target};
use logit_prism_core::rows::Positions;
use logit_prism_core::session::{Call, LoadOptions, Session};
use logit_prism_core::tokenizer::Token;
use std::sync::Mutex;

fn gpt2(threads: usize) -> Session {
    load_with(&fixture("gpt2"), &LoadOptions { threads: Some(threads), ..LoadOptions::default() }).unwrap()
}

/// Seven prompts of 1 to 14 tokens, each with a target of its own kind.
fn mixed() -> Call {
    let mut prompts = ids(&json(&fixture("gpt2").join("reference.json"))["prompts"]);
    prompts.extend([vec![3, 1, 4, 1, 5], vec![92, 65], vec![20, 75, 100, 11, 35, 18]]);
    let token = |id| vec![Token::Id(id)];
    let direction = |scale: f32| Target::Direction((0..32).map(|i| scale * (i as f32 - 11.5)).collect());
    let targets = vec![
        pair(6, 5),
        direction(0.25),
        Target::Tokens { answer: Answer::Predicted, against: Some(Against::Mean) },
        Target::Weights(vec![(Token::Id(3), 0.5), (Token::Id(90), -2.0)]),
        direction(-1.0),
        Target::Tokens { answer: Answer::Tokens(token(14)), against: None },
        pair(6, 5),
    ];
    call(prompts, targets)
}

/// The rows of a result as (prompt, position).
fn rows(result: &Attribution) -> Vec<(usize, usize)> {
    result.rows.iter().map(|row| (row.prompt, row.position)).collect()
}

fn bits(result: &Attribution) -> (Vec<u32>, Vec<u64>) {
    let certificates = result.certificates.iter().flat_map(|c| [c.total, c.measured, c.tolerance]);
    let sums = result.constant.iter().copied().chain(certificates).map(f64::to_bits);
    (result.values.iter().map(|v| v.to_bits()).collect(), sums.collect())
}

#[test]
fn a_batch_is_each_prompt_alone() {
    let session = gpt2(1);
    let mut together = mixed();
    for positions in [Positions::Last, Positions::All] {
        together.asked.positions = positions;
        let batch = attribute(&session, &together).unwrap();
        let mut row = 0;
        for i in 0..together.asked.prompts.len() {
            let mut alone = together.clone();
            (alone.asked.prompts, alone.targets) =
                (vec![together.asked.prompts[i].clone()], vec![together.targets[i].clone()]);
            let alone = attribute(&session, &alone).unwrap();
            for j in 0..alone.rows.len() {
                assert_eq!(rows(&batch)[row], (i, alone.rows[j].position));
                assert_eq!(batch.targets[row], alone.targets[j]);
                same_row(&format!("prompt {i}, row {j}"), (&batch, row), (&alone, j));
                row += 1;
            }
        }
        assert_eq!(row, batch.rows.len());
    }
}

#[test]
fn the_order_of_the_prompts_does_not_matter() {
    let session = gpt2(2);
    let forward = mixed();
    let mut backward = forward.clone();
    backward.asked.prompts.reverse();
    backward.targets.reverse();
    let (a, b) = (attribute(&session, &forward).unwrap(), attribute(&session, &backward).unwrap());
    for i in 0..7 {
        assert_eq!((a.rows[i].prompt, b.rows[6 - i].prompt), (i, 6 - i));
        same_row(&format!("prompt {i}"), (&a, i), (&b, 6 - i));
    }
}

#[test]
fn neither_chunks_nor_threads_matter() {
    let mut call = mixed();
    call.asked.positions = Positions::All;
    let expected = attribute(&gpt2(1), &call).unwrap();
    for threads in [1, 2, 3] {
        let session = gpt2(threads);
        for chunk_tokens in [1, 7, 256] {
            call.asked.chunk_tokens = Some(chunk_tokens);
            let result = attribute(&session, &call).unwrap();
            assert_eq!(rows(&result), rows(&expected));
            for row in 0..result.rows.len() {
                same_row(&format!("{threads} threads, {chunk_tokens} tokens"), (&result, row), (&expected, row));
            }
            assert_eq!(bits(&result), bits(&attribute(&session, &call).unwrap()), "the same call twice");
        }
    }
}

#[test]
fn one_target_stands_for_all_prompts() {
    let session = gpt2(1);
    let mut one = mixed();
    one.targets = vec![pair(6, 5)];
    let mut seven = one.clone();
    seven.targets = vec![pair(6, 5); 7];
    assert_eq!(bits(&attribute(&session, &one).unwrap()), bits(&attribute(&session, &seven).unwrap()));
}

#[test]
fn progress_counts_prompts_up_to_all_of_them() {
    let session = gpt2(2);
    let mut call = mixed(); // 9, 14, 1, 5, 5, 2 and 6 tokens
    for (chunk_tokens, chunks) in [(1, 7), (15, 4), (22, 3), (23, 2), (256, 1)] {
        call.asked.chunk_tokens = Some(chunk_tokens);
        let seen = Mutex::new(Vec::new());
        let job = logit_prism_core::run::Job {
            cancel: &Default::default(),
            progress: &|done, of| seen.lock().unwrap().push((done, of)),
        };
        session.attribute(&call, &job).unwrap();
        let mut seen = seen.into_inner().unwrap();
        seen.sort();
        assert!(seen.iter().all(|(_, of)| *of == 7), "{seen:?}");
        assert_eq!(seen.last(), Some(&(7, 7)));
        assert_eq!(seen.len(), chunks, "chunks of {chunk_tokens} tokens: {seen:?}");
        assert!(seen.windows(2).all(|pair| pair[0].0 < pair[1].0), "{seen:?}");
    }
}

// ---- positions ----

/// Which rows a choice gives, each equal to the row of `All`.
fn check_positions(positions: Positions, expected: &[(usize, usize)]) {
    let session = gpt2(2);
    let mut call = mixed();
    call.asked.prompts.truncate(3); // 9, 14 and 1 tokens
    call.targets.truncate(3);
    call.asked.positions = Positions::All;
    let all = attribute(&session, &call).unwrap();
    assert_eq!(all.rows.len(), 24);
    call.asked.positions = positions;
    let some = attribute(&session, &call).unwrap();
    assert_eq!(rows(&some), expected);
    assert_eq!(
        (some.constant.len(), some.certificates.len(), some.targets.len()),
        (expected.len(), expected.len(), expected.len())
    );
    for (i, wanted) in expected.iter().enumerate() {
        let j = rows(&all).iter().position(|row| row == wanted).unwrap();
        same_row(&format!("{wanted:?}"), (&some, i), (&all, j));
        assert_eq!(some.targets[i], all.targets[j]);
    }
}

#[test]
fn the_last_position_of_every_prompt() {
    check_positions(Positions::Last, &[(0, 8), (1, 13), (2, 0)]);
}

#[test]
fn positions_count_from_both_ends_and_rise() {
    check_positions(Positions::Of(vec![-1]), &[(0, 8), (1, 13), (2, 0)]);
    let lists = vec![vec![-1, 0, 3], vec![7, -14], vec![0]];
    check_positions(Positions::PerPrompt(lists), &[(0, 0), (0, 3), (0, 8), (1, 0), (1, 7), (2, 0)]);
}

#[test]
fn a_prompt_may_have_no_position() {
    check_positions(Positions::PerPrompt(vec![vec![2], vec![], vec![0]]), &[(0, 2), (2, 0)]);
    check_positions(Positions::PerPrompt(vec![vec![], vec![-2], vec![]]), &[(1, 12)]);
    check_positions(Positions::PerPrompt(vec![vec![], vec![], vec![]]), &[]);
}

// ---- refusals ----

#[test]
fn calls_that_do_not_fit_together_are_refused() {
    let change = |f: fn(&mut Call)| {
        let mut call = mixed();
        f(&mut call);
        error(attribute(&gpt2(1), &call))
    };
    for (f, argument) in [
        ((|c| c.asked.prompts.clear()) as fn(&mut Call), "prompts"),
        (|c| c.targets.truncate(2), "targets"),
        (|c| c.targets.clear(), "targets"),
        (|c| c.asked.chunk_tokens = Some(0), "batchTokens"),
        (|c| c.asked.positions = Positions::Of(vec![]), "position"),
        (|c| c.asked.positions = Positions::PerPrompt(vec![vec![0]; 6]), "position.perPrompt"),
        (|c| c.asked.prepend_bos = Some(true), "prependBos"),
    ] {
        let refused = change(f);
        assert_eq!((refused.code(), refused.details()["argument"].as_str()), ("INVALID_ARGUMENT", Some(argument)));
    }
    let refused = change(|c| c.asked.positions = Positions::Of(vec![1])); // the third prompt has one token
    assert_eq!((refused.code(), &refused.details()["prompt"]), ("POSITION_RANGE", &2.into()));
}

#[test]
fn prompts_that_the_model_cannot_take_are_refused_by_their_index() {
    let with = |prompt: Vec<u32>| error(attribute(&gpt2(1), &call(vec![vec![1], prompt], vec![pair(6, 5)])));
    let empty = with(Vec::new());
    assert_eq!((empty.code(), empty.details()), ("PROMPT_EMPTY", serde_json::json!({ "prompt": 1 })));
    let long = with(vec![1; 65]);
    assert_eq!(long.code(), "PROMPT_TOO_LONG");
    assert_eq!(long.details(), serde_json::json!({ "prompt": 1, "length": 65, "nContext": 64 }));
    let outside = with(vec![100, 101]);
    assert_eq!((outside.code(), outside.details()), ("TOKEN_RANGE", serde_json::json!({ "id": 101, "dVocab": 101 })));
    attribute(&gpt2(1), &call(vec![vec![100; 64]], vec![pair(6, 5)])).unwrap(); // as long as the context
}

#[test]
fn texts_need_a_tokenizer() {
    use logit_prism_core::tokenizer::Prompt;
    let mut text = call(Vec::new(), vec![pair(6, 5)]);
    text.asked.prompts = vec![Prompt::Text("a".into())];
    assert_eq!(error(attribute(&gpt2(1), &text)).code(), "TOKENIZER_MISSING");
    text.asked.prompts = vec![Prompt::Text(String::new())];
    assert_eq!(error(attribute(&gpt2(1), &text)).code(), "PROMPT_EMPTY");
    let token = Target::Weights(vec![(Token::Text("a".into()), 1.0)]);
    assert_eq!(error(attribute(&gpt2(1), &call(vec![vec![1]], vec![token]))).code(), "TOKENIZER_MISSING");
}
