//! Every hook point against the float64 values that hooks on the modules of `transformers` recorded
//! (`hooks.safetensors`), and capture at some rows against capture at all of them.

mod common;

use candle_core::Tensor;
use common::*;
use logit_prism_core::batch::Batch;
use logit_prism_core::cache::Logits;
use logit_prism_core::cancel::Cancel;
use logit_prism_core::config::ModelConfig;
use logit_prism_core::hook::{BlockPoint, Dim, HookPoint};
use logit_prism_core::model::Output;
use logit_prism_core::session::{RunCall, Session};
use logit_prism_core::tap::{Activations, Capture, Tap};
use std::collections::BTreeSet;

const TOLERANCE: f64 = 1e-5;

fn names(session: &Session) -> Vec<String> {
    HookPoint::all(&session.transformer.config).iter().map(HookPoint::to_string).collect()
}

fn prompts(name: &str) -> Vec<Vec<u32>> {
    ids(&json(&fixture(name).join("reference.json"))["prompts"])
}

/// What an axis counts, in numbers: the glossary of the crate.
fn size(dim: Dim, config: &ModelConfig, n_pos: usize) -> usize {
    match dim {
        Dim::Pos | Dim::QueryPos | Dim::KeyPos => n_pos,
        Dim::Head => config.n_heads,
        Dim::KvHead => config.n_key_value_heads,
        Dim::DHead => config.d_head,
        Dim::DModel => config.d_model,
        Dim::DMlp => config.d_mlp,
        Dim::One => 1,
        Dim::Expert => panic!("GPT-2 has no experts"),
    }
}

fn check(name: &str) {
    load_everywhere(&fixture(name)).into_iter().for_each(|session| check_session(&session.unwrap(), name));
}

fn check_session(session: &Session, name: &str) {
    let config = &session.transformer.config;
    let expected = read_tensors(&fixture(name).join("hooks.safetensors"));
    let names = names(session);
    for (i, prompt) in prompts(name).into_iter().take(2).enumerate() {
        let in_fixture: BTreeSet<String> =
            expected.keys().filter_map(|k| k.strip_prefix(&format!("{i}/"))).map(String::from).collect();
        let mut ours: BTreeSet<String> = names.iter().cloned().collect();
        ours.insert("logits".into());
        assert_eq!(in_fixture, ours);

        let n_pos = prompt.len();
        let seen = observe(session, prompt, &HookPoint::all(config)).unwrap();
        for point in HookPoint::all(config) {
            let key = format!("{i}/{point}");
            let (shape, found) = seen.values(point, 0).unwrap();
            let sizes: Vec<usize> = point.dims().iter().map(|dim| size(*dim, config, n_pos)).collect();
            assert_eq!(shape, sizes, "{key}");
            assert_eq!(shape, expected[&key].1, "{key}");
            close(&key, wide(&found), &stored(&expected, &key), TOLERANCE);
        }
        let logits = stored(&expected, &format!("{i}/logits"));
        let last = &logits[(n_pos - 1) * config.d_vocab..];
        close("logits", wide(&seen.logits(0).unwrap().1), last, TOLERANCE);
    }
}

#[test]
fn gpt2() {
    check("gpt2");
}

#[test]
fn gpt2_scaled() {
    check("gpt2_scaled");
}

#[test]
fn masked_scores_are_exactly_what_the_reference_masks() {
    let session = load(&fixture("gpt2")).unwrap();
    let point = HookPoint::Block(1, BlockPoint::AttnScores);
    let prompt = prompts("gpt2").remove(0);
    let (_, scores) = observe(&session, prompt, &[point]).unwrap().values(point, 0).unwrap();
    let expected = stored(&read_tensors(&fixture("gpt2").join("hooks.safetensors")), &format!("0/{point}"));
    let masked = |scores: Vec<f64>| scores.into_iter().map(|s| s == f64::NEG_INFINITY).collect::<Vec<_>>();
    let ours = masked(wide(&scores));
    assert_eq!(ours, masked(expected));
    assert_eq!(ours.iter().filter(|m| **m).count(), 4 * 9 * 8 / 2); // 4 heads, 9 positions: above the diagonal
}

#[test]
fn nothing_is_kept_that_was_not_asked_for() {
    let session = load(&fixture("gpt2")).unwrap();
    let wanted = HookPoint::Block(1, BlockPoint::Z);
    let config = &session.transformer.config;
    let batch = Batch::of_prompts([&[1, 2][..]], config).unwrap();
    let capture = Capture { points: BTreeSet::from([wanted]), rows: vec![0, 1], ..Capture::default() };
    let cancel = Cancel::default();
    let mut tap = Tap::new(&capture, &cancel);
    session.transformer.forward(&batch, &mut tap).unwrap();
    let kept = tap.finish();
    for point in HookPoint::all(config) {
        assert_eq!(kept.rows(point).is_some() || kept.square(point, 0).is_some(), point == wanted, "{point}");
    }
}

#[test]
fn an_unknown_name_is_refused() {
    let session = load(&fixture("gpt2")).unwrap();
    let points = vec!["hook_embed".to_string(), "blocks.0.attn.hook_zz".to_string()];
    let call = RunCall { asked: asked(vec![vec![1, 2]]), points, logits: Logits::None };
    let refused = error(with_job(|job| session.run(&call, job)));
    assert_eq!(refused.code(), "UNKNOWN_HOOK");
    assert_eq!(refused.details()["name"], "blocks.0.attn.hook_zz");
    assert_eq!(refused.details()["nearest"][0], "blocks.0.attn.hook_z");
}

/// Everything, at these rows of a batch of prompts.
fn capture(session: &Session, prompts: &[Vec<u32>], rows: &[u32]) -> (Activations, Output) {
    let config = &session.transformer.config;
    let batch = Batch::of_prompts(prompts.iter().map(Vec::as_slice), config).unwrap();
    let capture =
        Capture { points: HookPoint::all(config).into_iter().collect(), rows: rows.to_vec(), ..Capture::default() };
    let cancel = Cancel::default();
    let mut tap = Tap::new(&capture, &cancel);
    let output = session.transformer.forward(&batch, &mut tap).unwrap();
    (tap.finish(), output)
}

fn pick(tensor: &Tensor, axis: usize, indices: &[u32]) -> Vec<f64> {
    if indices.is_empty() {
        return Vec::new();
    }
    let indices = Tensor::new(indices, tensor.device()).unwrap();
    flat(&tensor.contiguous().unwrap().index_select(&indices, axis).unwrap())
}

/// Two prompts of 9 and 14 tokens. Rows 0 to 8 are the first's.
fn check_rows(rows: &[u32]) {
    let session = load(&fixture("gpt2")).unwrap();
    let prompts = &prompts("gpt2")[..2];
    let (full, full_output) = capture(&session, prompts, &(0..23).collect::<Vec<_>>());
    let (some, some_output) = capture(&session, prompts, rows);
    for point in HookPoint::all(&session.transformer.config) {
        if let Some(all) = full.rows(point) {
            let found = some.rows(point).unwrap();
            assert_eq!(found.dim(0).unwrap(), rows.len(), "{point}");
            assert_eq!(flat(found), pick(all, 0, rows), "{point}");
            continue;
        }
        for (segment, range) in [(0, 0..9), (1, 9..23)] {
            let queries: Vec<u32> = rows.iter().filter(|r| range.contains(*r)).map(|r| r - range.start).collect();
            let found = some.square(point, segment).unwrap();
            assert_eq!(found.dims(), [4, queries.len(), range.len()], "{point} of segment {segment}");
            assert_eq!(flat(found), pick(full.square(point, segment).unwrap(), 1, &queries), "{point}");
        }
    }
    assert_eq!(flat(&some_output.stream), pick(&full_output.stream, 0, rows));
    assert_eq!(flat(&some_output.normed), pick(&full_output.normed, 0, rows));
}

#[test]
fn some_rows_are_those_of_the_full_capture() {
    check_rows(&[1, 4, 8, 9, 21]);
}

#[test]
fn a_prompt_may_have_no_row() {
    check_rows(&[0, 3]);
    check_rows(&[9, 22]);
    check_rows(&[]);
}
