//! What a run promises besides its numbers: memory is refused with both figures, what is not finite is named, a
//! cancelled run ends as `ABORTED`, and progress is told.

mod common;

use common::*;
use logit_prism_core::attribution::{Against, Answer, OnViolation, Target};
use logit_prism_core::cancel::Cancel;
use logit_prism_core::hook::{BlockPoint, HookPoint};
use logit_prism_core::memory;
use logit_prism_core::rows::Positions;
use logit_prism_core::run::Job;
use logit_prism_core::session::{LoadOptions, Session};
use logit_prism_core::tokenizer::Token;
use serde_json::{Value, json as object};
use std::sync::Mutex;

/// Bytes of gpt2's tensors: all F32, embedding tied, no buffers.
fn stored_bytes() -> u64 {
    let tensors = read_tensors(&fixture("gpt2").join("model.safetensors"));
    tensors.values().map(|(_, _, bytes)| bytes.len() as u64).sum()
}

fn limited(limit: u64) -> logit_prism_core::Result<Session> {
    let options = LoadOptions { threads: Some(2), memory_limit: Some(limit), ..LoadOptions::default() };
    load_with(&fixture("gpt2"), &options)
}

#[test]
fn weights_that_do_not_fit_are_refused_with_both_figures() {
    let bytes = stored_bytes();
    limited(bytes).unwrap();
    let error = error(limited(bytes - 1));
    assert_eq!(error.code(), "MEMORY");
    let figures = object!({ "purpose": "loading the weights", "needed": bytes, "available": bytes - 1 });
    assert_eq!(error.details(), figures);
}

#[test]
fn the_peak_of_a_forward_pass_by_hand() {
    // gpt2: d 32, H e 32, H 4, m 128, L 3
    let config = load(&fixture("gpt2")).unwrap().transformer.config;
    // 23 rows: attention 23 (4·32 + 6·32) + 3·4·14² = 9712; MLP 23 (5·32 + 3·128) = 12512, which is more;
    // 2 kept rows: 2 (3 (32 + 32) + 6·32) = 768
    assert_eq!(memory::forward(&config, &[9, 14], 2), 4 * (12_512 + 768));
    // 64 rows: attention 64·320 + 12·64² = 69632, more than the MLP's 34816
    assert_eq!(memory::forward(&config, &[64], 0), 4 * 69_632);
    assert_eq!(memory::forward(&config, &[], 0), 0);
}

#[test]
fn a_run_that_does_not_fit_is_cut_and_then_refused_with_both_figures() {
    let call = call(vec![vec![7; 9], vec![8; 14]], vec![pair(6, 5)]);
    let result = 2 * (20 * 4 + 512); // 2 rows of 2 + 3 (4 + 1 + 1) columns, and what else there is of them
    let in_f64 = |rows: u64| (rows + 1) * 20 * 8; // columns, and a row
    let together = 4 * (12_512 + 768) + in_f64(2) + result; // as above, in one chunk
    let run = |left: u64| attribute(&limited(stored_bytes() + left).unwrap(), &call);
    let whole = run(together).unwrap();
    // a byte less: a chunk for each prompt, and the same numbers
    let cut = run(together - 1).unwrap();
    close("cut", wide(&cut.values), &wide(&whole.values), 1e-5);
    // the longer prompt alone: 14 rows, one of them kept
    let needed = 4 * (14 * 544 + 384) + in_f64(1) + result;
    run(needed).unwrap();
    let error = error(run(needed - 1));
    assert_eq!(error.code(), "MEMORY");
    let figures = object!({ "purpose": "the forward pass and its result", "needed": needed, "available": needed - 1 });
    assert_eq!(error.details(), figures);
}

#[test]
fn an_observation_that_does_not_fit_is_refused() {
    let run = |left: u64| observe(&limited(stored_bytes() + left).unwrap(), vec![1; 14], &[]).map(drop);
    // every row is kept; the last logits, final stream and its norm, once more while they are cut out; the stream
    let needed = 4 * (14 * 544 + 14 * 384 + 2 * (101 + 2 * 14 * 32) + 14 * 32);
    run(needed).unwrap();
    assert_eq!(error(run(needed - 1)).details()["needed"], needed);
    // a pattern besides: 4 heads of 14 by 14
    let pattern = memory::observed(
        &load(&fixture("gpt2")).unwrap().transformer.config,
        [&HookPoint::Block(0, BlockPoint::Pattern)],
        14,
        14,
    );
    assert_eq!(pattern, 4 * 4 * 14 * 14);
}

// ---- not finite ----

/// A copy of gpt2 with one NaN or infinity.
fn poisoned(tensor: &str, index: usize, value: f32) -> Session {
    load(&changed("gpt2", |t| edit(t, tensor, |w| w[index] = value)).0).unwrap()
}

/// The details of `NOT_FINITE`.
#[track_caller]
fn not_finite<T>(outcome: logit_prism_core::Result<T>) -> Value {
    let error = error(outcome);
    assert_eq!(error.code(), "NOT_FINITE", "{error}");
    error.details()
}

#[test]
fn the_first_layer_that_is_not_finite_is_named() {
    let call = call(vec![vec![1, 2], vec![3]], vec![pair(6, 5)]);
    for (tensor, index, value, first) in [
        ("transformer.h.1.mlp.c_proj.bias", 0, f32::NAN, "blocks.1.hook_resid_post"),
        ("transformer.h.2.attn.c_proj.weight", 77, f32::INFINITY, "blocks.2.hook_resid_post"),
        ("transformer.h.0.ln_1.weight", 3, f32::NEG_INFINITY, "blocks.0.hook_resid_post"),
        ("transformer.wpe.weight", 0, f32::NAN, "blocks.0.hook_resid_post"),
        ("transformer.ln_f.weight", 31, f32::NAN, "ln_final"),
        ("transformer.ln_f.bias", 0, f32::INFINITY, "ln_final"),
    ] {
        let session = poisoned(tensor, index, value);
        let expected = object!({ "first": first, "prompt": 0 });
        assert_eq!(not_finite(attribute(&session, &call)), expected, "{tensor}");
        assert_eq!(not_finite(observe(&session, vec![1, 2], &[])), expected, "{tensor}");
    }
}

#[test]
fn the_prompt_is_its_index_in_the_call_whatever_the_chunk() {
    // token 50 stands in the third prompt only
    let session = poisoned("transformer.wte.weight", 50 * 32 + 9, f32::NAN);
    let mut call = call(vec![vec![1, 2], vec![3], vec![4, 50, 5], vec![6]], vec![pair(6, 5)]);
    for chunk_tokens in [1, 3, 256] {
        call.asked.chunk_tokens = Some(chunk_tokens);
        let details = not_finite(attribute(&session, &call));
        assert_eq!(details, object!({ "first": "blocks.0.hook_resid_post", "prompt": 2 }), "chunks of {chunk_tokens}");
    }
    call.asked.prompts.remove(2);
    attribute(&session, &call).unwrap();
}

#[test]
fn the_prompt_is_right_behind_the_final_norm() {
    let session = poisoned("transformer.ln_f.weight", 0, f32::INFINITY);
    let mut call = call(vec![vec![1], vec![2, 3], vec![4]], vec![pair(6, 5)]);
    call.asked.positions = Positions::PerPrompt(vec![vec![], vec![1], vec![0]]); // the first row kept is prompt 1's
    assert_eq!(not_finite(attribute(&session, &call)), object!({ "first": "ln_final", "prompt": 1 }));
}

#[test]
fn logits_and_attributions_are_finite_too() {
    // W_U of a token that is not in the prompt: the stream is finite, the token's logit is not
    let session = poisoned("transformer.wte.weight", 50 * 32 + 9, f32::NAN);
    assert_eq!(not_finite(observe(&session, vec![1, 2], &[])), object!({ "first": "logits", "prompt": 0 }));

    let of_mean = Target::Tokens { answer: Answer::Tokens(vec![Token::Id(6)]), against: Some(Against::Mean) };
    let too_large = Target::Direction(vec![f32::MAX; 32].into());
    for target in [pair(50, 5), pair(6, 50), of_mean, too_large] {
        let mut call = call(vec![vec![1, 2], vec![3]], vec![pair(6, 5), target]);
        for on_violation in [OnViolation::Throw, OnViolation::Warn] {
            call.options.on_violation = on_violation;
            assert_eq!(not_finite(attribute(&session, &call)), object!({ "first": "the attribution", "prompt": 1 }));
        }
    }
    let predicted = Target::Tokens { answer: Answer::Predicted, against: None };
    let call = call(vec![vec![1, 2], vec![3]], vec![pair(6, 5), predicted]);
    assert_eq!(not_finite(attribute(&session, &call)), object!({ "first": "logits", "prompt": 1 }));
}

#[test]
fn rows_that_are_finite_are_no_error_whatever_their_sum() {
    // 32 rows of 32 elements, each 2^119: a row's sum is 2^124, all rows' is 2^129, beyond f32. All elements of a row
    // are equal, so the final norm leaves β, and logit t is β · W_E[t].
    let dir = changed("gpt2", |t| edit(t, "transformer.h.2.mlp.c_proj.bias", |b| b.fill(2f32.powi(119))));
    let session = load(&dir.0).unwrap();
    let seen = observe(&session, vec![1; 32], &[]).unwrap();
    let tensors = read_tensors(&dir.join("model.safetensors"));
    let (beta, wte) = (stored(&tensors, "transformer.ln_f.bias"), stored(&tensors, "transformer.wte.weight"));
    let logits: Vec<f64> = wte.chunks(32).map(|row| row.iter().zip(&beta).map(|(w, b)| w * b).sum()).collect();
    close("logits", wide(&seen.logits(0).unwrap().1), &logits, 1e-5);
}

// ---- cancelling, progress, threads ----

#[test]
fn a_cancelled_job_ends_as_aborted_and_leaves_the_model_usable() {
    let session = load(&fixture("gpt2")).unwrap();
    let cancel = Cancel::default();
    let job = Job { cancel: &cancel, progress: &|_, _| {} };
    let call = call(vec![vec![1, 2]], vec![pair(6, 5)]);
    cancel.clone().cancel(); // a clone is the same flag
    assert_eq!(error(session.attribute(&call, &job)).code(), "ABORTED");
    assert_eq!(error(Session::load(&fixture("gpt2"), &LoadOptions::default(), &job)).code(), "ABORTED");
    attribute(&session, &call).unwrap();
}

#[test]
fn cancelling_between_chunks_stops_before_the_end() {
    let session = load(&fixture("gpt2")).unwrap();
    let (cancel, done) = (Cancel::default(), Mutex::new(0));
    let progress = |n: usize, _: usize| {
        let mut done = done.lock().unwrap();
        *done = n.max(*done);
        if n >= 3 {
            cancel.cancel();
        }
    };
    let mut call = call(vec![vec![1, 2]; 200], vec![pair(6, 5)]);
    call.asked.chunk_tokens = Some(1);
    assert_eq!(error(session.attribute(&call, &Job { cancel: &cancel, progress: &progress })).code(), "ABORTED");
    assert!(*done.lock().unwrap() < 10);
}

#[test]
fn loading_counts_layers() {
    let seen = Mutex::new(Vec::new());
    let job = Job { cancel: &Cancel::default(), progress: &|done, of| seen.lock().unwrap().push((done, of)) };
    Session::load(&fixture("gpt2"), &LoadOptions::default(), &job).unwrap();
    assert_eq!(seen.into_inner().unwrap(), [(1, 3), (2, 3), (3, 3)]);
}

#[test]
fn loading_stops_at_the_next_layer() {
    let (cancel, seen) = (Cancel::default(), Mutex::new(0));
    let progress = |layers: usize, _: usize| {
        *seen.lock().unwrap() = layers;
        if layers == 2 {
            cancel.cancel();
        }
    };
    let job = Job { cancel: &cancel, progress: &progress };
    assert_eq!(error(Session::load(&fixture("gpt2"), &LoadOptions::default(), &job)).code(), "ABORTED");
    assert_eq!(*seen.lock().unwrap(), 2);
}

#[test]
fn there_are_1_to_1024_threads() {
    for threads in [0, 1025] {
        let options = LoadOptions { threads: Some(threads), ..LoadOptions::default() };
        let error = error(load_with(&fixture("gpt2"), &options));
        let expected = object!({ "argument": "threads", "found": threads.to_string(), "expected": "a whole number from 1 to 1024" });
        assert_eq!((error.code(), error.details()), ("INVALID_ARGUMENT", expected));
    }
    load_with(&fixture("gpt2"), &LoadOptions { threads: Some(1), ..LoadOptions::default() }).unwrap();
}

#[test]
fn a_panic_poisons_the_model() {
    let session = load(&fixture("gpt2")).unwrap();
    let call = call(vec![vec![1, 2]], vec![pair(6, 5)]);
    let job = Job { cancel: &Cancel::default(), progress: &|_, _| panic!("a careless listener") };
    for outcome in [session.attribute(&call, &job), with_job(|job| session.attribute(&call, job))] {
        let error = error(outcome);
        assert_eq!((error.code(), error.details()), ("POISONED", object!({ "panic": "a careless listener" })));
    }
    assert_eq!(error(observe(&session, vec![1], &[])).code(), "POISONED");
}
