//! What a run keeps and what can be done with it: points and positions, logits, attribution and the stack from the cache,
//! memory, and the file that it is saved to.

mod common;

use common::*;
use logit_prism_core::Result;
use logit_prism_core::attribution::{Answer, Attribution, Convention, OnViolation, Options, Target, Unit};
use logit_prism_core::cache::{Cache, Logits};
use logit_prism_core::cancel::Cancel;
use logit_prism_core::hook::{BlockPoint, Dim, HookPoint};
use logit_prism_core::rows::Positions;
use logit_prism_core::run::Job;
use logit_prism_core::session::{LoadOptions, RunCall, Session};
use logit_prism_core::tokenizer::{Prompt, Token};
use serde_json::json as object;
use std::path::Path;

fn run(session: &Session, call: &RunCall) -> Result<Cache> {
    with_job(|job| session.run(call, job))
}

fn all_of(session: &Session) -> Vec<HookPoint> {
    HookPoint::all(&session.transformer.config)
}

/// The four prompts of gpt2's reference, of 9, 14, 1 and 5 tokens, and their targets.
fn reference() -> logit_prism_core::session::Call {
    reference_call(&json(&fixture("gpt2").join("reference.json")))
}

fn everything() -> RunCall {
    let asked = logit_prism_core::session::Asked { positions: Positions::All, ..reference().asked };
    RunCall { asked, points: vec!["*".into()], logits: Logits::All }
}

fn point(name: &str, session: &Session) -> HookPoint {
    HookPoint::parse(name, &session.transformer.config).unwrap()
}

/// The indices of some rows of a tensor along an axis, naively.
fn pick(shape: &[usize], values: &[f32], axis: usize, rows: &[usize]) -> Vec<f32> {
    let inner: usize = shape[axis + 1..].iter().product();
    let outer: usize = shape[..axis].iter().product();
    let at = |o: usize, row: usize| &values[(o * shape[axis] + row) * inner..][..inner];
    (0..outer).flat_map(|o| rows.iter().flat_map(move |row| at(o, *row))).copied().collect()
}

// ---- which points ----

#[test]
fn names_and_patterns_say_what_is_kept() {
    let session = load(&fixture("gpt2")).unwrap();
    let mut call = everything();
    call.points = vec!["blocks.*.attn.hook_pattern".into(), "hook_embed".into(), "blocks.1.attn.hook_pattern".into()];
    call.logits = Logits::None;
    let cache = run(&session, &call).unwrap();
    let names: Vec<String> = cache.points.iter().map(HookPoint::to_string).collect();
    assert_eq!(
        names,
        ["hook_embed", "blocks.0.attn.hook_pattern", "blocks.1.attn.hook_pattern", "blocks.2.attn.hook_pattern"]
    );
    for p in all_of(&session) {
        let found = cache.values(p, 1);
        if cache.points.contains(&p) {
            found.unwrap();
        } else {
            let refused = error(found);
            assert_eq!((refused.code(), &refused.details()["missing"]), ("NOT_CACHED", &object!([p.to_string()])));
        }
    }
    assert_eq!(error(cache.logits(0)).details()["missing"], object!(["logits"]));
    assert_eq!(error(cache.values(HookPoint::Embed, 4)).code(), "INVALID_ARGUMENT");
    assert_eq!(error(cache.logits(4)).code(), "INVALID_ARGUMENT");
    for (name, word) in [("blocks.*.attn.hook_rot_q", "rotary"), ("blocks.*.hook_nothing", "no name")] {
        call.points = vec!["hook_embed".into(), name.into()];
        let refused = error(run(&session, &call));
        assert_eq!(refused.code(), "UNKNOWN_HOOK");
        assert!(refused.to_string().contains(word), "{refused}");
    }
}

// ---- which positions ----

/// A run at some positions against the same positions of a run at all, bit for bit up to the last block, which is
/// computed at these positions only (products of few rows sum in another order); and the same prompts in chunks of their
/// own.
fn positions(name: &str, positions: Positions, logits: Logits) {
    let session = load(&fixture(name)).unwrap();
    let mut call = everything();
    call.asked.prompts = reference_call(&json(&fixture(name).join("reference.json"))).asked.prompts;
    let full = run(&session, &call).unwrap();
    call.asked.positions = positions.clone();
    call.logits = logits;
    for chunk_tokens in [None, Some(1)] {
        call.asked.chunk_tokens = chunk_tokens;
        let some = run(&session, &call).unwrap();
        let n_layers = session.transformer.config.n_layers;
        let before_last = |p| {
            matches!(p, HookPoint::Embed | HookPoint::PosEmbed)
                || matches!(p, HookPoint::Block(l, _) if l + 1 < n_layers)
        };
        for (i, prompt) in some.prompts.iter().enumerate() {
            assert_eq!(prompt.positions, positions.of(i, prompt.ids.len()).unwrap());
            for p in all_of(&session) {
                let (shape, values) = full.values(p, i).unwrap();
                let axis = p.dims().iter().position(|d| matches!(d, Dim::Pos | Dim::QueryPos)).unwrap();
                let (found_shape, found) = some.values(p, i).unwrap();
                let mut expected_shape = shape.clone();
                expected_shape[axis] = prompt.positions.len();
                assert_eq!(found_shape, expected_shape, "{name}: {p} of prompt {i}");
                same(
                    &format!("{name}: {p} of prompt {i}"),
                    &found,
                    &pick(&shape, &values, axis, &prompt.positions),
                    chunk_tokens.is_none() && before_last(p),
                );
            }
            let (shape, values) = full.logits(i).unwrap();
            let rows: Vec<usize> = match logits {
                Logits::Last => vec![shape[0] - 1],
                Logits::All => (0..shape[0]).collect(),
                Logits::None => {
                    assert_eq!(error(some.logits(i)).code(), "NOT_CACHED");
                    continue;
                }
            };
            let (found_shape, found) = some.logits(i).unwrap();
            assert_eq!(found_shape, [rows.len(), shape[1]]);
            same(&format!("{name}: logits of prompt {i}"), &found, &pick(&shape, &values, 0, &rows), false);
        }
    }
}

#[track_caller]
fn same(what: &str, found: &[f32], expected: &[f32], exact: bool) {
    if exact {
        assert_eq!(found, expected, "{what}");
    } else if expected.is_empty() {
        assert!(found.is_empty(), "{what}");
    } else {
        close(what, wide(found), &wide(expected), 1e-5);
    }
}

/// A serial and a parallel block, experts, norms after the sublayers.
const KINDS: [&str; 4] = ["gpt2", "parity/gptj", "parity/mixtral", "parity/gemma2"];

#[test]
fn last_positions() {
    KINDS.iter().for_each(|name| positions(name, Positions::Last, Logits::Last));
}

#[test]
fn some_positions() {
    let some = Positions::PerPrompt(vec![vec![2, -1], vec![0, 5, 7], vec![0], vec![3]]);
    KINDS.iter().for_each(|name| positions(name, some.clone(), Logits::None));
}

#[test]
fn a_prompt_may_have_no_position_and_still_logits() {
    let some = Positions::PerPrompt(vec![vec![], vec![13], vec![], vec![0, 1]]);
    for logits in [Logits::Last, Logits::All, Logits::None] {
        KINDS.iter().for_each(|name| positions(name, some.clone(), logits));
    }
    positions("gpt2", Positions::PerPrompt(vec![vec![]; 4]), Logits::All);
    positions("gpt2", Positions::PerPrompt(vec![vec![]; 4]), Logits::None);
}

#[test]
fn the_last_stream_is_kept_at_the_positions_and_read_at_those_of_the_logits() {
    let session = load(&fixture("gpt2")).unwrap();
    let last = HookPoint::Block(2, BlockPoint::ResidPost);
    let full = run(&session, &everything()).unwrap();
    for logits in [Logits::Last, Logits::All, Logits::None] {
        let mut call = everything();
        call.points = vec![last.to_string()];
        call.logits = logits;
        call.asked.positions = Positions::PerPrompt(vec![vec![3], vec![], vec![0], vec![0, 4]]);
        let some = run(&session, &call).unwrap();
        for i in 0..4 {
            let (shape, values) = full.values(last, i).unwrap();
            let rows = &some.prompts[i].positions;
            let (found_shape, found) = some.values(last, i).unwrap();
            assert_eq!(found_shape, [rows.len(), 32]);
            same(&format!("prompt {i}"), &found, &pick(&shape, &values, 0, rows), false);
        }
    }
}

#[test]
fn logits_are_those_of_the_reference_after_the_cap() {
    for name in ["gpt2", "parity/gemma2", "parity/cohere"] {
        let session = load(&fixture(name)).unwrap();
        let reference = json(&fixture(name).join("reference.json"));
        let asked = reference_call(&reference).asked;
        let cache = run(&session, &RunCall { asked, points: Vec::new(), logits: Logits::Last }).unwrap();
        for i in 0..cache.prompts.len() {
            let (shape, logits) = cache.logits(i).unwrap();
            assert_eq!(shape, [1, session.transformer.config.d_vocab]);
            close(name, wide(&logits), &numbers(&reference["logits_last"][i]), 2e-5);
        }
    }
}

// ---- from the cache ----

fn options(unit: Unit, convention: Convention) -> Options {
    Options { unit, top: None, convention, norm: None, on_violation: OnViolation::Throw }
}

/// Every number of a result; NaN, where a row has no logit after the cap, as a number of its own.
fn everything_in(result: &Attribution) -> Vec<f64> {
    let certificates = result.certificates.iter().flat_map(|c| [c.total, c.measured, c.tolerance]);
    let sums = result.constant.iter().chain(&result.after_cap).copied().chain(certificates);
    let all = result.values.iter().map(|v| f64::from(*v)).chain(sums);
    all.map(|v| if v.is_nan() { 1e9 } else { v }).collect()
}

#[test]
fn attributing_from_a_run_is_attributing() {
    for name in ["gpt2", "parity/gptj", "parity/mixtral", "parity/gemma2", "parity/gpt_oss", "more/qwen2_moe_mixed"] {
        let session = load(&fixture(name)).unwrap();
        let mut call = reference_call(&json(&fixture(name).join("reference.json")));
        for positions in [Positions::All, Positions::PerPrompt(vec![vec![1], vec![], vec![0], vec![2, 4]])] {
            call.asked.positions = positions;
            let kept = RunCall { asked: call.asked.clone(), points: vec!["*".into()], logits: Logits::None };
            let cache = run(&session, &kept).unwrap();
            for unit in [Unit::Layer, Unit::Head, Unit::Neuron] {
                for convention in [Convention::Default, Convention::TransformerLens] {
                    call.options = options(unit, convention);
                    for top in [None, Some(2)].into_iter().take(if unit == Unit::Neuron { 2 } else { 1 }) {
                        call.options.top = top;
                        let found =
                            with_job(|job| session.attribute_run(&cache, &call.targets, &call.options, job)).unwrap();
                        let expected = attribute(&session, &call).unwrap();
                        assert_eq!((&found.rows, &found.targets), (&expected.rows, &expected.targets));
                        assert_eq!(found.components, expected.components);
                        let what = format!("{name}: {unit:?}, {convention:?}, {top:?}");
                        close(&what, everything_in(&found), &everything_in(&expected), 1e-5);
                    }
                }
            }
        }
    }
}

#[test]
fn a_run_without_rows_has_an_attribution_without_rows() {
    let session = load(&fixture("gpt2")).unwrap();
    let mut call = everything();
    call.asked.positions = Positions::PerPrompt(vec![vec![]; 4]);
    let cache = run(&session, &call).unwrap();
    let options = options(Unit::Head, Convention::Default);
    let found = with_job(|job| session.attribute_run(&cache, &reference().targets, &options, job)).unwrap();
    assert_eq!((found.rows.len(), found.values.len()), (0, 0));
    let stack = with_job(|job| session.decompose_run(&cache, Unit::Head, job)).unwrap();
    assert_eq!((stack.rows.len(), stack.vectors.len()), (0, 0));
}

#[test]
fn what_was_not_kept_is_named() {
    // (model, unit, convention, what is left out, what is missed)
    let cases = [
        ("gpt2", Unit::Head, Convention::Default, "blocks.1.hook_mlp_out"),
        ("gpt2", Unit::Neuron, Convention::Default, "blocks.2.mlp.hook_post"),
        ("gpt2", Unit::Layer, Convention::Default, "hook_pos_embed"),
        ("parity/gemma2", Unit::Head, Convention::Default, "blocks.0.ln1_post.hook_scale"),
        ("parity/mixtral", Unit::Neuron, Convention::Default, "blocks.1.mlp.hook_router_weights"),
        ("parity/gpt_oss", Unit::Head, Convention::TransformerLens, "blocks.0.attn.hook_pattern"),
    ];
    for (name, unit, convention, left_out) in cases {
        let session = load(&fixture(name)).unwrap();
        let call = reference_call(&json(&fixture(name).join("reference.json")));
        let names = all_of(&session).into_iter().map(|p| p.to_string());
        let points: Vec<String> = names.filter(|name| name != left_out).collect();
        let cache = run(&session, &RunCall { asked: call.asked, points, logits: Logits::None }).unwrap();
        let options = options(unit, convention);
        let refused = error(with_job(|job| session.attribute_run(&cache, &call.targets, &options, job)));
        let details = object!({ "purpose": "attribution", "missing": [left_out] });
        assert_eq!((refused.code(), refused.details()), ("NOT_CACHED", details), "{name}");
        assert!(refused.to_string().contains(left_out), "{refused}");
        if convention == Convention::Default {
            let refused = error(with_job(|job| session.decompose_run(&cache, unit, job)));
            assert_eq!(refused.details(), object!({ "purpose": "the stack", "missing": [left_out] }), "{name}");
        }
    }
}

#[test]
fn the_number_of_targets_and_labels_of_top_are_checked_for_runs_too() {
    let session = load(&fixture("gpt2")).unwrap();
    let cache = run(&session, &everything()).unwrap();
    let attribute = |targets: &[_], options: &Options| {
        error(with_job(|job| session.attribute_run(&cache, targets, options, job))).details()["argument"].clone()
    };
    let targets = reference().targets;
    assert_eq!(attribute(&targets[..3], &options(Unit::Head, Convention::Default)), "targets");
    let top = Options { top: Some(3), ..options(Unit::Head, Convention::Default) };
    assert_eq!(attribute(&targets, &top), "top");
    let none = Options { top: Some(0), ..options(Unit::Neuron, Convention::Default) };
    assert_eq!(attribute(&targets, &none), "top");
}

// ---- memory, cancelling ----

#[test]
fn what_does_not_fit_is_refused_before_it_runs() {
    let weights = load(&fixture("gpt2")).unwrap().weight_bytes;
    let limited = |left: u64| {
        let options = LoadOptions { threads: Some(1), memory_limit: Some(weights + left), ..LoadOptions::default() };
        load_with(&fixture("gpt2"), &options).unwrap()
    };
    let session = limited(1 << 30);
    let cache = run(&session, &everything()).unwrap();
    let bytes = cache.bytes(&session.transformer.config);
    // patterns and scores of 4 heads and 3 layers alone: 2 · 12 (9² + 14² + 1 + 5²) numbers
    assert!(bytes > 4 * 24 * 303);

    let called = std::sync::atomic::AtomicBool::new(false);
    let job =
        Job { cancel: &Cancel::default(), progress: &|_, _| called.store(true, std::sync::atomic::Ordering::Relaxed) };
    let refused = error(limited(bytes).run(&everything(), &job)); // no room for the pass itself
    assert_eq!(
        (refused.code(), &refused.details()["purpose"]),
        ("MEMORY", &object!("the forward pass and what it keeps"))
    );
    assert!(refused.details()["needed"].as_u64().unwrap() > bytes);
    assert!(!called.into_inner());

    let stack =
        |left: u64| with_job(|job| limited(left).decompose_run(&cache, Unit::Head, job).map(|s| s.vectors.len()));
    let vectors = 4 * 29 * 20 * 32; // 29 rows of 20 components of 32 numbers
    assert_eq!(error(stack(vectors)).code(), "MEMORY");
    assert_eq!(stack(5 * vectors).unwrap() as u64, vectors / 4);
    let values = |left: u64| {
        let options = options(Unit::Neuron, Convention::Default);
        with_job(|job| limited(left).attribute_run(&cache, &reference().targets, &options, job).map(|a| a.values.len()))
    };
    let columns = 29 * (2 + 3 * (4 + 1 + 128 + 1));
    assert_eq!(error(values(4 * columns)).code(), "MEMORY");
    assert_eq!(values(100 * columns).unwrap() as u64, columns);
}

#[test]
fn cancelling_ends_every_call_on_a_run() {
    let session = load(&fixture("gpt2")).unwrap();
    let cache = run(&session, &everything()).unwrap();
    let cancel = Cancel::default();
    cancel.clone().cancel();
    let job = Job { cancel: &cancel, progress: &|_, _| {} };
    assert_eq!(error(session.run(&everything(), &job)).code(), "ABORTED");
    let options = options(Unit::Head, Convention::Default);
    assert_eq!(error(session.attribute_run(&cache, &reference().targets, &options, &job)).code(), "ABORTED");
    assert_eq!(error(session.decompose_run(&cache, Unit::Head, &job)).code(), "ABORTED");
}

// ---- the file ----

fn saved(session: &Session, call: &RunCall) -> (TempDir, Cache) {
    let dir = TempDir::new();
    let cache = run(session, call).unwrap();
    session.save_run(&cache, &dir.join("run.safetensors")).unwrap();
    (dir, cache)
}

#[track_caller]
fn same_run(session: &Session, a: &Cache, b: &Cache) {
    assert_eq!((&a.points, a.logits), (&b.points, b.logits));
    assert_eq!(a.prompts.len(), b.prompts.len());
    let bits =
        |(shape, values): (Vec<usize>, Vec<f32>)| (shape, values.into_iter().map(f32::to_bits).collect::<Vec<_>>());
    for (i, (x, y)) in a.prompts.iter().zip(&b.prompts).enumerate() {
        assert_eq!((&x.ids, &x.positions), (&y.ids, &y.positions));
        for p in &a.points {
            assert_eq!(bits(a.values(*p, i).unwrap()), bits(b.values(*p, i).unwrap()), "{p} of prompt {i}");
        }
        match a.logits {
            Logits::None => assert_eq!(error(b.logits(i)).code(), "NOT_CACHED"),
            _ => assert_eq!(bits(a.logits(i).unwrap()), bits(b.logits(i).unwrap())),
        }
    }
    let config = &session.transformer.config;
    assert_eq!(a.bytes(config), b.bytes(config));
}

#[test]
fn a_run_comes_back_as_it_was_saved() {
    for name in KINDS {
        let session = load(&fixture(name)).unwrap();
        let mut call = everything();
        let reference = reference_call(&json(&fixture(name).join("reference.json")));
        call.asked.prompts = reference.asked.prompts.clone();
        for (positions, logits) in [
            (Positions::All, Logits::All),
            (Positions::Last, Logits::None),
            (Positions::PerPrompt(vec![vec![1, 4], vec![], vec![0], vec![]]), Logits::Last),
        ] {
            (call.asked.positions, call.logits) = (positions, logits);
            let (dir, cache) = saved(&session, &call);
            let back = session.load_run(&dir.join("run.safetensors")).unwrap();
            same_run(&session, &cache, &back);
            assert_eq!(std::fs::read_dir(&dir.0).unwrap().count(), 1, "no temporary file is left");

            let options = options(Unit::Head, Convention::Default);
            let from = |cache: &Cache| {
                with_job(|job| session.attribute_run(cache, &reference.targets, &options, job)).unwrap()
            };
            let (a, b) = (from(&cache), from(&back));
            assert_eq!((a.rows, a.values), (b.rows, b.values));
            for (a, b) in a.certificates.iter().zip(&b.certificates) {
                assert!((a.measured - b.measured).abs() < a.tolerance && b.holds());
            }
        }
    }
}

#[test]
fn the_file_says_what_it_is() {
    let session = load(&fixture("gpt2")).unwrap();
    let (dir, _) = saved(&session, &everything());
    let path = dir.join("run.safetensors");
    let meta = metadata(&path);
    assert_eq!(meta["fingerprint"], session.fingerprint().unwrap());
    assert_eq!((&*meta["format"], &*meta["family"], &*meta["prompts"]), ("logit-prism run 1", "gpt2", "4"));
    assert_eq!((&*meta["logits"], &*meta["dtype"]), ("all", "f32"));
    let tensors = read_tensors(&path);
    let ids: Vec<u8> = [20u32, 75, 100, 11, 35, 18, 66, 100, 60].iter().flat_map(|id| id.to_le_bytes()).collect();
    assert_eq!(tensors["0/ids"], ("U32".into(), vec![9], ids));
    assert_eq!(tensors.len(), 4 * (2 + all_of(&session).len() + 2));
    // the values are those of `transformers`, to the rounding of f32
    let expected = read_tensors(&fixture("gpt2").join("hooks.safetensors"));
    for key in ["0/blocks.1.attn.hook_pattern", "1/blocks.2.hook_resid_post", "1/logits"] {
        assert_eq!(tensors[key].1, expected[key].1);
        close(key, stored(&tensors, key), &stored(&expected, key), 1e-5);
    }
}

#[test]
fn saving_leaves_the_old_file_or_the_new_one() {
    let session = load(&fixture("gpt2")).unwrap();
    let (dir, cache) = saved(&session, &everything());
    let path = dir.join("run.safetensors");
    session.save_run(&cache, &path).unwrap(); // over the old one
    same_run(&session, &cache, &session.load_run(&path).unwrap());

    let missing = dir.join("no/such/run.safetensors");
    assert_eq!(error(session.save_run(&cache, &missing)).code(), "IO_ERROR");
    assert_eq!(error(session.save_run(&cache, Path::new("/"))).code(), "INVALID_ARGUMENT");
    std::fs::create_dir(dir.join("taken")).unwrap();
    std::fs::write(dir.join("taken/file"), "x").unwrap();
    assert_eq!(error(session.save_run(&cache, &dir.join("taken"))).code(), "IO_ERROR"); // a directory lies there
    let mut left: Vec<_> = std::fs::read_dir(&dir.0).unwrap().map(|e| e.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["run.safetensors", "taken"], "nothing is left behind");
    assert_eq!(std::fs::read(dir.join("taken/file")).unwrap(), b"x");
}

#[test]
fn a_run_belongs_to_the_weights_that_made_it() {
    let session = load(&fixture("gpt2")).unwrap();
    let (dir, cache) = saved(&session, &everything());
    let other = changed("gpt2", |t| edit(t, "transformer.ln_f.bias", |b| b[0] += 0.25));
    let refused = error(load(&other.0).unwrap().load_run(&dir.join("run.safetensors")));
    assert_eq!(refused.code(), "CHECKPOINT_INVALID");
    assert!(refused.to_string().contains("another model"), "{refused}");
    let copy = TempDir::copy_of("gpt2");
    same_run(&session, &cache, &load(&copy.0).unwrap().load_run(&dir.join("run.safetensors")).unwrap());
}

/// A small run whose every byte can be tried.
fn small() -> RunCall {
    let asked = logit_prism_core::session::Asked { positions: Positions::All, ..asked(vec![vec![1, 2, 3], vec![4]]) };
    RunCall { asked, points: vec!["hook_embed".into(), "blocks.1.attn.hook_pattern".into()], logits: Logits::Last }
}

#[test]
fn a_file_that_is_not_what_was_saved_ends_in_a_coded_error() {
    let session = load(&fixture("gpt2")).unwrap();
    let (dir, _) = saved(&session, &small());
    let path = dir.join("run.safetensors");
    let (good, meta) = (read_tensors(&path), metadata(&path));
    let numbers = |list: &[u32]| list.iter().flat_map(|n| n.to_le_bytes()).collect::<Vec<u8>>();
    let refused =
        |what: &str, code: &str, change: &dyn Fn(&mut Tensors, &mut std::collections::BTreeMap<String, String>)| {
            let (mut tensors, mut meta) = (good.clone(), meta.clone());
            change(&mut tensors, &mut meta);
            write_tensors_with(&path, &tensors, &meta);
            let refused = error(session.load_run(&path));
            assert_eq!(refused.code(), code, "{what}: {refused}");
        };
    write_tensors_with(&path, &good, &meta);
    session.load_run(&path).unwrap();

    let invalid = "CHECKPOINT_INVALID";
    for name in good.keys() {
        refused(&format!("without {name}"), invalid, &|t, _| drop(t.remove(name)));
        refused(&format!("{name} as F64"), invalid, &|t, _| {
            let (_, shape, bytes) = t[name].clone();
            t.insert(name.clone(), ("F64".into(), shape, [bytes.clone(), bytes].concat()));
        });
        refused(&format!("{name} with an axis more"), invalid, &|t, _| t.get_mut(name).unwrap().1.push(1));
    }
    for key in ["format", "fingerprint", "prompts", "hook_points", "logits"] {
        refused(&format!("without {key}"), invalid, &|_, m| drop(m.remove(key)));
        refused(&format!("another {key}"), invalid, &|_, m| drop(m.insert(key.into(), "17 elephants".into())));
    }
    let set = |key: &'static str, value: &'static str| {
        move |_: &mut Tensors, m: &mut std::collections::BTreeMap<String, String>| {
            drop(m.insert(key.into(), value.into()))
        }
    };
    for prompts in ["3", "18446744073709551615", "-1"] {
        refused("prompts that are not there", invalid, &set("prompts", prompts));
    }
    refused("fewer prompts than tensors", invalid, &set("prompts", "1"));
    refused("another point", invalid, &set("hook_points", r#"["hook_embed", "blocks.0.attn.hook_pattern"]"#));
    refused("fewer points than tensors", invalid, &set("hook_points", r#"["hook_embed"]"#));
    refused("a point that no model has", "UNKNOWN_HOOK", &set("hook_points", r#"["hook_embed", "hook_x"]"#));
    refused("logits of more rows", invalid, &set("logits", "all"));
    refused("logits that nobody asked for", invalid, &set("logits", "none"));

    let put = |name: &'static str, list: Vec<u32>| {
        let bytes = numbers(&list);
        move |t: &mut Tensors, _: &mut std::collections::BTreeMap<String, String>| {
            t.insert(name.into(), ("U32".into(), vec![bytes.len() / 4], bytes.clone()));
        }
    };
    refused("an id that is no token", "TOKEN_RANGE", &put("0/ids", vec![1, 2, 101]));
    refused("no ids", "PROMPT_EMPTY", &put("1/ids", vec![]));
    refused("more ids than the context", invalid, &put("0/ids", vec![1; 65]));
    refused("fewer ids than the pattern has keys", invalid, &put("0/ids", vec![1, 2]));
    refused("more ids than the pattern has keys", invalid, &put("0/ids", vec![1, 2, 3, 4]));
    // as many as there are rows, but not rising or not in the prompt; and too few or too many
    let wrong = [vec![0, 2, 1], vec![0, 1, 1], vec![0, 1, 3], vec![0, 1, u32::MAX]];
    for positions in wrong.into_iter().chain([vec![], vec![0, 1], vec![0, 1, 2, 3]]) {
        refused(&format!("positions {positions:?}"), invalid, &put("0/positions", positions));
    }

    let absent = error(session.load_run(&dir.join("nothing.safetensors")));
    assert_eq!(absent.code(), "IO_ERROR", "{absent}");
    assert_eq!(error(session.load_run(&dir.0)).code(), invalid); // a directory
    assert_eq!(error(session.load_run(&fixture("gpt2").join("model.safetensors"))).code(), invalid); // no run
}

#[test]
fn a_cut_file_is_an_error_and_a_flipped_byte_at_worst_another_run() {
    let session = load(&fixture("gpt2")).unwrap();
    let (dir, cache) = saved(&session, &small());
    let path = dir.join("run.safetensors");
    let good = std::fs::read(&path).unwrap();
    let header = 8 + u64::from_le_bytes(good[..8].try_into().unwrap()) as usize;
    let outcome = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        match session.load_run(&path) {
            Ok(_) => true,
            Err(e) => {
                let known = ["CHECKPOINT_INVALID", "UNKNOWN_HOOK", "TOKEN_RANGE", "PROMPT_EMPTY", "PROMPT_TOO_LONG"];
                assert!(known.contains(&e.code()), "{}: {e}", e.code());
                false
            }
        }
    };
    for length in (0..good.len()).step_by(61).chain(header - 2..header + 2).chain([good.len() - 1]) {
        assert!(!outcome(&good[..length]), "cut to {length} bytes");
    }
    assert!(!outcome(&[&good[..], &[0]].concat()), "a byte more");
    for at in 0..header {
        let mut bytes = good.clone();
        bytes[at] ^= 1 << (at % 8);
        outcome(&bytes);
    }
    for at in (header..good.len()).step_by(13) {
        let mut bytes = good.clone();
        bytes[at] ^= 0xff;
        outcome(&bytes);
    }
    assert!(outcome(&good));
    same_run(&session, &cache, &session.load_run(&path).unwrap());
}

#[test]
fn loading_asks_for_the_memory_first() {
    let session = load(&fixture("gpt2")).unwrap();
    let (dir, cache) = saved(&session, &everything());
    let bytes = cache.bytes(&session.transformer.config);
    let limit = Some(session.weight_bytes + bytes / 2);
    let small = load_with(&fixture("gpt2"), &LoadOptions { memory_limit: limit, ..LoadOptions::default() }).unwrap();
    let refused = error(small.load_run(&dir.join("run.safetensors")));
    assert_eq!((refused.code(), &refused.details()["purpose"]), ("MEMORY", &object!("a saved run")));
}

#[test]
fn a_point_of_another_name_is_another_point() {
    let session = load(&fixture("gpt2")).unwrap();
    let full = run(&session, &everything()).unwrap();
    let of = |name: &str| full.values(point(name, &session), 0).unwrap();
    assert_eq!(of("blocks.1.hook_resid_pre"), of("blocks.0.hook_resid_post"));
    assert_ne!(of("blocks.1.hook_resid_pre").1, of("blocks.1.hook_resid_mid").1);
}

#[test]
#[ignore = "needs Python with numpy and safetensors: test/fixtures/read_run.py"]
fn python_reads_a_saved_run() {
    let session = load(&fixture("gpt2")).unwrap();
    let (dir, _) = saved(&session, &everything());
    let python = std::env::var("PYTHON").unwrap_or("python3".into());
    let files = [dir.join("run.safetensors"), fixture("gpt2").join("hooks.safetensors")];
    let status = std::process::Command::new(python).arg(fixture("read_run.py")).args(files).status().unwrap();
    assert!(status.success());
}

#[test]
fn a_token_is_resolved_behind_a_text_as_in_a_call() {
    let session = load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/demo")).unwrap();
    let points: Vec<String> =
        session.attribution_points(Unit::Head, Convention::Default).iter().map(HookPoint::to_string).collect();
    let text = Prompt::Text("When Mary and John went to the store, John gave a drink to".into());
    let two = |token: &str| Target::Tokens { answer: Answer::Tokens(vec![Token::Text(token.into())]), against: None };
    for (token, is_one) in [(" Mary", true), (" Mary Mary", false)] {
        let mut whole = call(vec![vec![0]], vec![two(token)]);
        whole.asked.prompts = vec![text.clone()];
        let run = RunCall { asked: whole.asked.clone(), points: points.clone(), logits: Logits::None };
        let cache = with_job(|job| session.run(&run, job)).unwrap();
        let from_run = with_job(|job| session.attribute_run(&cache, &whole.targets, &whole.options, job));
        let of_call = attribute(&session, &whole);
        match is_one {
            true => assert_eq!(from_run.unwrap().values, of_call.unwrap().values),
            // the error says where the token was to stand: behind the prompt, not alone
            false => assert_eq!(error(from_run).details(), error(of_call).details()),
        }
    }
}
