//! What must hold of interventions at every hook point of every family.

mod common;

use common::*;
use logit_prism_core::cache::{Axis, Cache, Logits};
use logit_prism_core::hook::{BlockPoint::*, HookPoint};
use logit_prism_core::rows::Positions;
use logit_prism_core::session::{Asked, Intervention, Interventions, Lists, Reference, RunCall, Session, Set};
use logit_prism_core::tokenizer::Prompt;
use std::sync::Arc;

const TOLERANCE: f64 = 1e-5;

fn families() -> Vec<String> {
    let names = std::fs::read_dir(fixture("parity")).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<String> = names.map(|name| format!("parity/{}", name.to_str().unwrap())).collect();
    names.sort();
    assert!(names.len() > 30);
    names
}

fn prompt(name: &str, i: usize) -> Vec<u32> {
    ids(&json(&fixture(name).join("reference.json"))["prompts"]).remove(i)
}

/// Every point that can be set, receivers included.
fn settable(session: &Session) -> Vec<HookPoint> {
    let all = HookPoint::matching_written("*", &session.transformer.config).unwrap();
    let all: Vec<_> = all.into_iter().filter(|point| point.check_can_be_set("at").is_ok()).collect();
    let receivers = all.iter().filter(|p| matches!(p, HookPoint::Block(_, point) if point.is_receiver())).count();
    assert_eq!(receivers, 4 * session.transformer.config.n_layers);
    all
}

fn set(at: HookPoint, positions: Positions, set: Set) -> Intervention {
    Intervention { at: at.to_string(), head: None, neuron: None, positions, set }
}

fn with(list: Vec<Intervention>, runs: &[&Arc<Cache>]) -> Interventions {
    let runs = runs.iter().map(|run| Arc::clone(run)).collect();
    Interventions { lists: Lists::ForAll(list), runs, references: Vec::new() }
}

fn run(session: &Session, call: &RunCall, interventions: &Interventions) -> Arc<Cache> {
    Arc::new(with_job(|job| session.run_with(call, interventions, job)).unwrap())
}

fn everything(prompts: Vec<Vec<u32>>) -> RunCall {
    let asked = Asked { positions: Positions::All, ..asked(prompts) };
    RunCall { asked, points: vec!["*".into()], logits: Logits::All }
}

fn clean(session: &Session, prompt: Vec<u32>) -> Arc<Cache> {
    run(session, &everything(vec![prompt]), &Interventions::default())
}

fn logits(session: &Session, prompt: &[u32], interventions: &Interventions) -> Vec<f64> {
    let call = RunCall { asked: asked(vec![prompt.to_vec()]), points: Vec::new(), logits: Logits::All };
    wide(&run(session, &call, interventions).logits(0).unwrap().1)
}

fn values(cache: &Cache, point: HookPoint, prompt: usize) -> Vec<f64> {
    wide(&cache.values(point, prompt).unwrap().1)
}

/// Numbers at one position, of all heads.
fn numbers(session: &Session, point: HookPoint, length: usize) -> usize {
    let config = &session.transformer.config;
    let shape = logit_prism_core::memory::shape(config, point, 1, length);
    shape.iter().product()
}

#[test]
fn what_is_there_already_changes_nothing() {
    for name in families() {
        for session in load_everywhere(&fixture(&name)) {
            let session = session.unwrap();
            let prompt = prompt(&name, 0);
            let clean = clean(&session, prompt.clone());
            let expected = wide(&clean.logits(0).unwrap().1);
            for point in settable(&session) {
                for positions in [Positions::All, Positions::Of(vec![-1, 2])] {
                    let from = set(point, positions, Set::From { run: 0, prompt: 0, positions: None });
                    let found = logits(&session, &prompt, &with(vec![from], &[&clean]));
                    close(&format!("{name} {point}"), found, &expected, TOLERANCE);
                }
            }
        }
    }
}

#[test]
fn zero_is_scale_zero_and_both_kernels_agree() {
    for name in families() {
        let sessions: Vec<_> = load_everywhere(&fixture(&name)).into_iter().map(Result::unwrap).collect();
        let (fused, plain) = (&sessions[0], &sessions[1]);
        let prompt = prompt(&name, 0);
        let untouched = logits(fused, &prompt, &Interventions::default());
        let mut changed = 0;
        for point in settable(fused) {
            let zeroed = |session: &Session, set_to| {
                logits(session, &prompt, &with(vec![set(point, Positions::Of(vec![3, 4]), set_to)], &[]))
            };
            let expected = zeroed(fused, Set::Zero);
            close(&format!("{name} {point}"), zeroed(fused, Set::Scale(0.0)), &expected, 0.0);
            close(&format!("{name} {point}, plain"), zeroed(plain, Set::Zero), &expected, 2.0 * TOLERANCE);
            changed += usize::from(expected != untouched);
        }
        // only what the last block does with keys before a window may be without effect
        assert!(changed + 4 > settable(fused).len(), "{name}: {changed} points changed something");
    }
}

/// The attention that reads another stream in all its heads is that of a block which that stream enters; so is the MLP.
#[test]
fn receivers_read_what_a_block_would() {
    for name in families() {
        let session = load(&fixture(&name)).unwrap();
        let config = &session.transformer.config;
        let d_model = config.d_model;
        let vector: Vec<f32> = (0..d_model).map(|i| ((i * 7 % 11) as f32 - 5.0) / 4.0).collect();
        let (l, positions) = (1, Positions::Of(vec![1, 5]));
        let at = |point| HookPoint::Block(l, point);
        let add = |point, times: usize| set(at(point), positions.clone(), Set::Add(vector.repeat(times)));
        let (heads, kv_heads) = (config.n_heads, config.n_key_value_heads);
        let call = everything(vec![prompt(&name, 0)]);
        let run = |list| run(&session, &call, &with(list, &[]));

        let whole = run(vec![add(ResidPre, 1)]);
        let read = run(vec![add(QInput, heads), add(KInput, kv_heads), add(VInput, kv_heads)]);
        for point in [Q, K, V, AttnOut].map(at) {
            close(&format!("{name} {point}"), values(&read, point, 0), &values(&whole, point, 0), TOLERANCE);
        }
        let before = if config.parallel { ResidPre } else { ResidMid };
        let (whole, read) = (run(vec![add(before, 1)]), run(vec![add(MlpIn, 1)]));
        let point = at(MlpOut);
        close(&format!("{name} {point}"), values(&read, point, 0), &values(&whole, point, 0), TOLERANCE);
        let (stream, clean) = (values(&read, at(before), 0), values(&clean(&session, prompt(&name, 0)), at(before), 0));
        assert_eq!(stream, clean, "{name}: the stream itself stays");
    }
}

/// A head that is named gets its own part of what all heads would.
#[test]
fn one_head_is_its_part_of_all() {
    for name in ["parity/gpt2", "parity/llama", "parity/gemma2"] {
        let session = load(&fixture(name)).unwrap();
        let config = &session.transformer.config;
        let prompt = prompt(name, 0);
        for (point, heads, width) in [
            (Z, config.n_heads, config.d_head),
            (K, config.n_key_value_heads, config.d_head),
            (QInput, config.n_heads, config.d_model),
            (AttnScores, config.n_heads, prompt.len()),
        ] {
            let point = HookPoint::Block(1, point);
            let vector = |h: usize| (0..width).map(|i| ((h + 1) * (i + 3) % 5) as f32 - 2.0).collect::<Vec<_>>();
            let all = set(point, Positions::All, Set::Add((0..heads).flat_map(vector).collect()));
            let one = |h| Intervention { head: Some(h), ..set(point, Positions::All, Set::Add(vector(h))) };
            let expected = logits(&session, &prompt, &with(vec![all], &[]));
            let found = logits(&session, &prompt, &with((0..heads).map(one).collect(), &[]));
            close(&format!("{name} {point}"), found, &expected, TOLERANCE);
        }
    }
}

#[test]
fn the_cache_holds_what_the_rest_of_the_model_saw() {
    for name in families() {
        let session = load(&fixture(&name)).unwrap();
        let prompt = prompt(&name, 0);
        let before = clean(&session, prompt.clone());
        let config = &session.transformer.config;
        for point in settable(&session) {
            if matches!(point, HookPoint::Block(_, point) if point.is_receiver()) {
                continue;
            }
            let zero = set(point, Positions::Of(vec![2]), Set::Zero);
            let after = run(&session, &everything(vec![prompt.clone()]), &with(vec![zero], &[]));
            let n = numbers(&session, point, prompt.len());
            let length = prompt.len();
            // the query is the second axis of scores and patterns; masked scores stay masked
            let is_set = |i: usize| if point.is_square() { i / length % length == 2 } else { i / n == 2 };
            let old = values(&before, point, 0);
            for (i, (new, old)) in values(&after, point, 0).into_iter().zip(old).enumerate() {
                let expected = if is_set(i) && old.is_finite() { 0.0 } else { old };
                let differs = (new - expected).abs() > 1e-5 * (1.0 + expected.abs());
                assert!(new == expected || !differs, "{name} {point}: {i} is {new}, expected {expected}");
            }
            // nothing that lies before it has moved
            for earlier in HookPoint::all(config).into_iter().take_while(|earlier| *earlier != point) {
                assert_eq!(values(&after, earlier, 0), values(&before, earlier, 0), "{name} {point}: {earlier}");
            }
        }
    }
}

/// Rows of the last block that nobody reads are not computed, and not changed either; what is read is the same.
#[test]
fn a_narrow_last_block_is_the_whole_one() {
    for name in families() {
        let session = load(&fixture(&name)).unwrap();
        let last = session.transformer.config.n_layers - 1;
        let prompts = vec![prompt(&name, 0), prompt(&name, 1)];
        for point in settable(&session).into_iter().filter(|point| point.layer().is_none_or(|l| l == last)) {
            let list = vec![set(point, Positions::Of(vec![2, -2, -1]), Set::Scale(-0.5))];
            let whole = run(&session, &everything(prompts.clone()), &with(list.clone(), &[]));
            let mut call = everything(prompts.clone());
            // points that are not kept let the block be narrow
            call.points = vec![format!("blocks.{last}.hook_resid_post"), "ln_final.hook_normalized".into()];
            call.logits = Logits::None;
            call.asked.positions = Positions::PerPrompt(vec![vec![-2], vec![1, -1]]);
            let narrow = run(&session, &call, &with(list, &[]));
            for kept in [HookPoint::Block(last, ResidPost), HookPoint::FinalNormalized] {
                for (i, positions) in [vec![-2], vec![1, -1]].into_iter().enumerate() {
                    let rows = Positions::Of(positions).of(0, prompts[i].len()).unwrap();
                    let n = session.transformer.config.d_model;
                    let all = values(&whole, kept, i);
                    let expected: Vec<f64> = rows.iter().flat_map(|row| all[row * n..(row + 1) * n].to_vec()).collect();
                    close(&format!("{name} {point}"), values(&narrow, kept, i), &expected, TOLERANCE);
                }
            }
        }
    }
}

/// Prompts that begin alike, changed at different positions: each as alone.
#[test]
fn a_shared_prefix_is_shared_up_to_what_is_changed() {
    for name in families() {
        let session = load(&fixture(&name)).unwrap();
        let config = &session.transformer.config;
        let token = |i: usize| ((i * 7 + 3) % config.d_vocab) as u32;
        let prompt = |tail: &[usize]| (0..24).chain(tail.iter().copied()).map(token).collect::<Vec<_>>();
        let prompts = vec![prompt(&[30]), prompt(&[40, 41]), prompt(&[40, 42]), prompt(&[30]), prompt(&[30])];
        let at = |point| HookPoint::Block(1, point);
        let lists = vec![
            vec![set(at(Z), Positions::Of(vec![18]), Set::Zero)],
            vec![
                set(at(AttnOut), Positions::Last, Set::Scale(2.0)),
                set(HookPoint::Embed, Positions::Of(vec![20]), Set::Zero),
            ],
            vec![],
            vec![set(at(V), Positions::Of(vec![3, -1]), Set::Zero), set(at(MlpIn), Positions::Of(vec![22]), Set::Zero)],
            vec![set(at(KInput), Positions::All, Set::Scale(0.5))],
        ];
        let points = vec![format!("blocks.{}.hook_resid_post", config.n_layers - 1)];
        let call = |prompts| RunCall { asked: asked(prompts), points: points.clone(), logits: Logits::None };
        let per_prompt = |lists| Interventions { lists: Lists::PerPrompt(lists), ..Interventions::default() };
        let together = run(&session, &call(prompts.clone()), &per_prompt(lists.clone()));
        let point = HookPoint::Block(config.n_layers - 1, ResidPost);
        for i in 0..prompts.len() {
            let alone = run(&session, &call(vec![prompts[i].clone()]), &per_prompt(vec![lists[i].clone()]));
            close(&format!("{name}, prompt {i}"), values(&together, point, i), &values(&alone, point, 0), TOLERANCE);
        }
    }
}

/// Where the stream stays the sum of its components, the certificate holds; where not, attribution says so.
#[test]
fn attribution_behind_an_intervention_holds_or_is_refused() {
    use logit_prism_core::attribution::{Options, Unit};
    for name in families() {
        let session = load(&fixture(&name)).unwrap();
        let prompt = prompt(&name, 0);
        let options = |unit| Options { unit, ..common::call(vec![], vec![]).options };
        let attribute = |cache: &Cache, unit| {
            with_job(|job| session.attribute_run(cache, &[pair(1, 2)], &options(unit), job)).map(|_| ())
        };
        for point in settable(&session) {
            let HookPoint::Block(_, at) = point else { continue };
            let breaks = |unit| match at {
                ResidPre | ResidMid | ResidPost | AttnOut | Ln1PostNormalized => true,
                MlpOut | Ln2PostNormalized => unit == Unit::Neuron,
                _ => false,
            };
            for unit in [Unit::Layer, Unit::Head, Unit::Neuron] {
                for (position, is_read) in [(-1, true), (-2, false)] {
                    let list = vec![set(point, Positions::Of(vec![position]), Set::Scale(0.5))];
                    let mut call = everything(vec![prompt.clone()]);
                    call.asked.positions = Positions::Last;
                    let cache = run(&session, &call, &with(list, &[]));
                    let outcome = attribute(&cache, unit);
                    let what = format!("{name} {point} {unit:?} {is_read}");
                    if at == MlpIn && session.transformer.config.layout.ln2.is_none() && outcome.is_err() {
                        assert!(is_read && unit == Unit::Neuron, "{what}"); // experts that read the stream itself
                    } else if is_read && breaks(unit) {
                        let error = error(outcome);
                        assert_eq!(error.code(), "INVALID_ARGUMENT", "{what}");
                        assert!(error.to_string().contains(&point.to_string()), "{error}");
                    } else {
                        outcome.unwrap_or_else(|e| panic!("{what}: {e}"));
                    }
                }
            }
        }
    }
}

/// A pattern that was set is used as it is, where the mask hides keys as well: all weight on one key gives its value.
#[test]
fn a_pattern_may_look_where_the_mask_would_not_let_it() {
    // longer than the blocks in which the kernel skips what is masked
    for name in ["parity/falcon", "parity/bloom"] {
        for session in load_everywhere(&fixture(name)).into_iter().map(Result::unwrap) {
            let config = &session.transformer.config;
            assert!(config.n_context > 128);
            let (length, query, key, head) = (140, 2usize, 131, 1);
            let prompt: Vec<u32> = (0..length).map(|i| ((i * 7 + 3) % config.d_vocab) as u32).collect();
            let at = |point| HookPoint::Block(1, point);
            let one_hot = (0..length).map(|i| f32::from(u8::from(i == key))).collect();
            let set_row = |set_to| Intervention {
                head: Some(head),
                ..set(at(Pattern), Positions::Of(vec![query as i64]), set_to)
            };
            let list = vec![set_row(Set::Zero), set_row(Set::Add(one_hot))];
            let cache = run(&session, &everything(vec![prompt]), &with(list, &[]));
            let row = |point, position: usize, head: usize, heads: usize| {
                let (all, e) = (values(&cache, at(point), 0), config.d_head);
                all[(position * heads + head) * e..][..e].to_vec()
            };
            let group = head / (config.n_heads / config.n_key_value_heads);
            let value = row(V, key, group, config.n_key_value_heads);
            close(name, row(Z, query, head, config.n_heads), &value, 1e-6);
        }
    }
}

/// What that convention counts as bias is a part of values that every head moves: it is no part of what was set.
#[test]
fn the_convention_of_transformerlens_stands_where_its_split_does() {
    use logit_prism_core::attribution::{Convention, Options};
    let name = "parity/gpt2";
    let session = load(&fixture(name)).unwrap();
    let options = Options { convention: Convention::TransformerLens, ..common::call(vec![], vec![]).options };
    for (point, position, is_refused) in
        [(Z, -1, true), (Z, -2, false), (Pattern, -1, true), (V, -2, true), (K, -1, false), (MlpOut, -1, false)]
    {
        let list = vec![set(HookPoint::Block(1, point), Positions::Of(vec![position]), Set::Scale(0.5))];
        let mut call = everything(vec![prompt(name, 0)]);
        call.asked.positions = Positions::Last;
        let cache = run(&session, &call, &with(list, &[]));
        let outcome = with_job(|job| session.attribute_run(&cache, &[pair(1, 2)], &options, job));
        assert_eq!(outcome.is_err(), is_refused, "{point:?} at {position}");
    }
}

#[test]
fn means_are_those_of_what_a_run_kept() {
    let name = "parity/gpt2";
    let session = load(&fixture(name)).unwrap();
    let prompt = prompt(name, 0);
    let reference: Vec<Vec<u32>> =
        (0..70).map(|i| (0..prompt.len()).map(|p| ((i * 13 + p * 5) % 97) as u32).collect()).collect();
    let kept = run(&session, &everything(reference.clone()), &Interventions::default());
    for axis in [Axis::All, Axis::Position] {
        for point in [Z, ResidPre, MlpPost, QInput].map(|point| HookPoint::Block(1, point)) {
            let mean = |reference| vec![set(point, Positions::Of(vec![2, 4]), Set::Mean(reference, axis))];
            let mut of_prompts = with(mean(Reference::Prompts(0)), &[]);
            of_prompts.references = vec![reference.iter().cloned().map(Prompt::Ids).collect()];
            let of_run = with(mean(Reference::Run(0)), &[&kept]);
            let expected = logits(&session, &prompt, &of_prompts);
            close(&point.to_string(), logits(&session, &prompt, &of_run), &expected, 1e-6);
        }
    }
}
