//! Activation and path patching against float64 runs of `transformers` with hooks (`patching.json`), and against single runs
//! with interventions.

mod common;

use common::*;
use logit_prism_core::attribution::Component;
use logit_prism_core::cache::{Cache, Logits};
use logit_prism_core::config::ModelConfig;
use logit_prism_core::patch::{Patching, Place, Receiver};
use logit_prism_core::rows::Positions;
use logit_prism_core::session::{
    Asked, Intervention, Interventions, Lists, PairsCall, PatchCall, PathsCall, RunCall, Session, Set, Swept,
};
use logit_prism_core::tokenizer::Prompt;
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;

fn pairs(clean: Vec<Vec<u32>>, corrupt: Vec<Vec<u32>>, tokens: &[(u64, u64)]) -> PairsCall {
    PairsCall {
        clean: asked(clean),
        corrupt: corrupt.into_iter().map(Prompt::Ids).collect(),
        targets: tokens.iter().map(|(answer, against)| pair(*answer, *against)).collect(),
        positions: Positions::All,
        corrupt_positions: None,
    }
}

const SWEEPS: [(&str, Patching); 5] = [
    ("resid_pre", Patching { at: Place::ResidPre, by_head: false, by_position: true }),
    ("attn_out", Patching { at: Place::AttnOut, by_head: false, by_position: true }),
    ("mlp_out", Patching { at: Place::MlpOut, by_head: false, by_position: true }),
    ("head", Patching { at: Place::Z, by_head: true, by_position: false }),
    ("head_position", Patching { at: Place::Z, by_head: true, by_position: true }),
];

fn patch(session: &Session, pairs: &PairsCall, patching: Patching, noising: bool) -> Swept {
    let call = PatchCall { pairs: pairs.clone(), patching, noising };
    with_job(|job| session.patch(&call, job)).unwrap()
}

fn paths_call(pairs: &PairsCall, from: Option<&[&str]>, to: &[&str]) -> PathsCall {
    let labels = |list: &[&str]| list.iter().map(|label| label.to_string()).collect();
    PathsCall { pairs: pairs.clone(), from: from.map(labels), to: labels(to), each: false, through_mlps: false }
}

fn patch_paths(session: &Session, call: &PathsCall) -> (Vec<Component>, Vec<Receiver>, Swept) {
    with_job(|job| session.patch_paths(call, job)).unwrap()
}

fn texts(value: &Value) -> Vec<String> {
    serde_json::from_value(value.clone()).unwrap()
}

/// As attribution.md §6 has it for a number against float64.
const FLOAT64: f64 = 1e-4;

#[test]
fn every_number_is_that_of_transformers_in_float64() {
    for family in ["gpt2", "llama", "gemma2", "gptj"] {
        let dir = fixture(&format!("parity/{family}"));
        let given = json(&dir.join("patching.json"));
        let prompt = |name: &str| serde_json::from_value::<Vec<u32>>(given[name].clone()).unwrap();
        let number = |name: &str| given[name].as_f64().unwrap();
        let tokens = (given["answer"].as_u64().unwrap(), given["against"].as_u64().unwrap());
        let pairs = pairs(vec![prompt("clean")], vec![prompt("corrupt")], &[tokens]);
        for session in load_everywhere(&dir) {
            let session = session.unwrap();
            for (direction, noising) in [("noising", true), ("denoising", false)] {
                for (name, patching) in SWEEPS {
                    let swept = patch(&session, &pairs, patching, noising).patched;
                    let what = format!("{family} {direction} {name}");
                    close(&what, swept.values, &numbers(&given[direction][name]), FLOAT64);
                    close(
                        &what,
                        [swept.clean[0], swept.corrupt[0]],
                        &[number("f_clean"), number("f_corrupt")],
                        FLOAT64,
                    );
                }
            }
            for path in given["paths"].as_array().unwrap() {
                let (from, to) = (texts(&path["from"]), texts(&path["to"]));
                let call = PathsCall {
                    through_mlps: path["through"] == "mlps",
                    from: Some(from),
                    to,
                    ..paths_call(&pairs, None, &[])
                };
                let (_, _, swept) = patch_paths(&session, &call);
                let expected = path["f"].as_f64().unwrap();
                close(&format!("{family} {path}"), swept.patched.values, &[expected], FLOAT64);
            }
        }
    }
}

// ---- single runs with interventions, nothing shared ----

/// Both runs of some pairs, every point of them kept.
struct Naive<'a> {
    session: &'a Session,
    tokens: Vec<(u64, u64)>,
    runs: [Arc<Cache>; 2],
    prompts: [Vec<Vec<u32>>; 2],
}

impl<'a> Naive<'a> {
    fn new(session: &'a Session, prompts: [Vec<Vec<u32>>; 2], tokens: &[(u64, u64)]) -> Self {
        let points = ["*hook_resid_pre", "*hook_attn_out", "*hook_mlp_out", "*hook_z"].map(String::from).to_vec();
        let runs = [0, 1].map(|i: usize| {
            let asked = Asked { positions: Positions::All, ..asked(prompts[i].clone()) };
            let call = RunCall { asked, points: points.clone(), logits: Logits::None };
            Arc::new(with_job(|job| session.run(&call, job)).unwrap())
        });
        Naive { session, tokens: tokens.to_vec(), runs, prompts }
    }

    /// F of a pair after interventions in one of its prompts, and A: the scale of its rounding.
    fn f(&self, base: usize, pair: usize, list: Vec<Intervention>) -> f64 {
        let call =
            RunCall { asked: asked(vec![self.prompts[base][pair].clone()]), points: vec![], logits: Logits::Last };
        let runs = self.runs.to_vec();
        let given = Interventions { lists: Lists::ForAll(list), runs, references: vec![] };
        let cache = with_job(|job| self.session.run_with(&call, &given, job)).unwrap();
        let logits = wide(&cache.logits(0).unwrap().1);
        let (answer, against) = self.tokens[pair];
        uncapped(logits[answer as usize], self.session) - uncapped(logits[against as usize], self.session)
    }

    /// The other run's value.
    fn from(
        &self,
        base: usize,
        pair: usize,
        at: String,
        head: Option<usize>,
        spots: &[(usize, usize)],
    ) -> Intervention {
        let positions =
            |of: fn(&(usize, usize)) -> usize| Positions::Of(spots.iter().map(|spot| of(spot) as i64).collect());
        let set = Set::From { run: 1 - base, prompt: pair, positions: Some(positions(|(_, source)| *source)) };
        Intervention { at, head, neuron: None, positions: positions(|(base, _)| *base), set }
    }

    /// The numbers of a sweep; `spots`: patched positions of the base prompt and the other, pair by pair.
    fn sweep(&self, base: usize, patching: Patching, spots: &[Vec<(usize, usize)>]) -> Vec<f64> {
        let config = &self.session.transformer.config;
        let point = match patching.at {
            Place::ResidPre => "hook_resid_pre",
            Place::AttnOut => "hook_attn_out",
            Place::MlpOut => "hook_mlp_out",
            Place::Z => "attn.hook_z",
        };
        let mut all = Vec::new();
        for (pair, spots) in spots.iter().enumerate() {
            for l in 0..config.n_layers {
                for h in 0..if patching.by_head { config.n_heads } else { 1 } {
                    let groups = if patching.by_position { spots.chunks(1) } else { spots.chunks(spots.len()) };
                    for group in groups {
                        let head = patching.by_head.then_some(h);
                        let one = self.from(base, pair, format!("blocks.{l}.{point}"), head, group);
                        all.push(self.f(base, pair, vec![one]));
                    }
                }
            }
        }
        all
    }
}

/// A logit before the cap that a model puts on it.
fn uncapped(logit: f64, session: &Session) -> f64 {
    session.transformer.unembed.cap.map_or(logit, |cap| cap * (logit / cap).atanh())
}

/// Clean prompts and corrupted ones.
type Prompts = [Vec<Vec<u32>>; 2];

/// Two clean prompts of different lengths, their corruptions, and pairs of tokens.
fn prompts(dir: &Path) -> (Prompts, Vec<(u64, u64)>) {
    let reference = json(&dir.join("reference.json"));
    let clean = ids(&reference["prompts"])[..2].to_vec();
    let corrupt = clean.iter().map(|p| p.iter().rev().copied().collect()).collect();
    let token = |name: &str, i: usize| reference[name][i].as_u64().unwrap();
    ([clean, corrupt], (0..2).map(|i| (token("answer", i), token("against", i))).collect())
}

fn scale(session: &Session, tokens: &[(u64, u64)], prompts: &[Vec<Vec<u32>>; 2]) -> f64 {
    let targets: Vec<_> = tokens.iter().map(|(answer, against)| pair(*answer, *against)).collect();
    let of = |prompts: &Vec<Vec<u32>>| {
        let result = attribute(session, &call(prompts.clone(), targets.clone())).unwrap();
        let row = |i: usize| row_of(&result, i).iter().map(|v| f64::from(v.abs())).sum::<f64>();
        (0..prompts.len()).map(row).fold(0.0, f64::max)
    };
    1.0 + of(&prompts[0]).max(of(&prompts[1]))
}

#[track_caller]
fn same(what: &str, found: &[f64], expected: &[f64], size: f64) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!((a - b).abs() <= 1e-5 * size, "{what}: number {i} is {a}, expected {b}");
    }
}

#[test]
fn a_sweep_is_single_runs_with_interventions_in_every_family() {
    for family in parity_families() {
        let dir = fixture(&format!("parity/{family}"));
        for session in load_on_devices(&dir) {
            let session = session.unwrap();
            let (prompts, tokens) = prompts(&dir);
            let naive = Naive::new(&session, prompts.clone(), &tokens);
            let size = scale(&session, &tokens, &prompts);
            let mut call = pairs(prompts[0].clone(), prompts[1].clone(), &tokens);
            let all = |i: usize| (0..prompts[0][i].len()).map(|p| (p, p)).collect::<Vec<_>>();
            let spots = [all(0), all(1)];
            for (name, patching) in SWEEPS {
                let expected = naive.sweep(0, patching, &spots);
                same(
                    &format!("{family} {name}"),
                    &patch(&session, &call, patching, true).patched.values,
                    &expected,
                    size,
                );
            }
            // one pair per chunk, some positions crosswise, a row that is not the last
            call.clean.chunk_tokens = Some(1);
            call.positions = Positions::Of(vec![2, -1]);
            call.corrupt_positions = Some(Positions::Of(vec![3, 0]));
            let spots: Vec<_> = prompts[0].iter().map(|p| vec![(2, 3), (p.len() - 1, 0)]).collect();
            let swapped: Vec<Vec<(usize, usize)>> = spots
                .iter()
                .map(|s| {
                    let mut s: Vec<_> = s.iter().map(|(a, b)| (*b, *a)).collect();
                    s.sort();
                    s
                })
                .collect();
            for (name, patching) in SWEEPS {
                let what = format!("{family} {name} of named positions");
                same(
                    &what,
                    &patch(&session, &call, patching, true).patched.values,
                    &naive.sweep(0, patching, &spots),
                    size,
                );
                same(
                    &what,
                    &patch(&session, &call, patching, false).patched.values,
                    &naive.sweep(1, patching, &swapped),
                    size,
                );
            }
            let whole = Patching { at: Place::Z, by_head: false, by_position: false };
            same(
                &format!("{family} all heads"),
                &patch(&session, &call, whole, true).patched.values,
                &naive.sweep(0, whole, &spots),
                size,
            );
        }
    }
}

#[test]
fn what_lies_behind_the_row_changes_nothing_and_both_streams_make_the_other_run() {
    let dir = fixture("parity/llama");
    let session = load(&dir).unwrap();
    let (prompts, tokens) = prompts(&dir);
    let mut call = pairs(prompts[0].clone(), prompts[1].clone(), &tokens);
    call.clean.positions = Positions::Of(vec![3]);
    let by_position = patch(&session, &call, SWEEPS[0].1, true);
    assert_eq!(by_position.rows, [(3, 3), (3, 3)]);
    let n = prompts[0][0].len();
    for (i, value) in by_position.patched.values[..n].iter().enumerate() {
        let is_clean = *value == by_position.patched.clean[0];
        assert_eq!(is_clean, i > 3, "position {i}");
    }
    // the whole stream in front of the first layer is the other prompt's
    let whole = Patching { by_position: false, ..SWEEPS[0].1 };
    let swept = patch(&session, &call, whole, true).patched;
    let per_pair = session.transformer.config.n_layers;
    for pair in 0..2 {
        assert!((swept.values[pair * per_pair] - swept.corrupt[pair]).abs() < 1e-5);
        assert!((swept.clean[pair] - swept.corrupt[pair]).abs() > 1e-3);
    }
}

#[test]
fn paths_are_single_runs_with_what_receivers_read_changed() {
    for family in parity_families() {
        let dir = fixture(&format!("parity/{family}"));
        for session in load_on_devices(&dir) {
            let session = session.unwrap();
            let config = &session.transformer.config;
            let (prompts, tokens) = prompts(&dir);
            let size = scale(&session, &tokens, &prompts);
            let naive = Naive::new(&session, prompts.clone(), &tokens);
            let call = pairs(prompts[0].clone(), prompts[1].clone(), &tokens);
            let last = config.n_layers - 1;
            let q = format!("L{last}H1.q");
            let points = ["hook_embed".to_string(), "blocks.0.hook_attn_out".into(), "blocks.0.hook_mlp_out".into()];
            let keep = |prompts: &Vec<Vec<u32>>| {
                let asked = Asked { positions: Positions::All, ..asked(prompts.clone()) };
                with_job(|job| session.run(&RunCall { asked, points: points.to_vec(), logits: Logits::None }, job))
                    .unwrap()
            };
            let runs = prompts.each_ref().map(keep);
            let names = ["embed", "L0 attn", "L0 mlp"];
            let table = PathsCall { each: true, ..paths_call(&call, Some(&names), &[&q]) };
            let (senders, receivers, swept) = patch_paths(&session, &table);
            assert_eq!(senders.iter().map(Component::label).collect::<Vec<_>>(), names);
            assert_eq!(receivers.iter().map(Receiver::label).collect::<Vec<_>>(), std::slice::from_ref(&q));
            let mut expected = Vec::new();
            for pair in 0..2 {
                for point in &points {
                    let point = logit_prism_core::hook::HookPoint::parse(point, config).unwrap();
                    let [clean, corrupt] = runs.each_ref().map(|run| wide(&run.values(point, pair).unwrap().1));
                    let moved: Vec<f32> = corrupt.iter().zip(clean).map(|(a, b)| (a - b) as f32).collect();
                    let add = |(position, moved): (usize, &[f32])| Intervention {
                        at: format!("blocks.{last}.attn.hook_q_input"),
                        head: Some(1),
                        neuron: None,
                        positions: Positions::Of(vec![position as i64]),
                        set: Set::Add(moved.to_vec()),
                    };
                    let list = moved.chunks(config.d_model).enumerate().map(add).collect();
                    expected.push(naive.f(0, pair, list));
                }
            }
            same(&family, &swept.patched.values, &expected, size);
        }
    }
}

/// Senders in front of a receiver, of a model of two layers.
fn labels(components: Vec<Component>) -> Vec<String> {
    components.iter().map(Component::label).collect()
}

#[test]
fn all_senders_are_those_that_every_receiver_reads() {
    let expected = |config: &ModelConfig, layers: usize, more: &[&str]| {
        let mut all: Vec<String> = Vec::new();
        all.push("embed".into());
        all.extend(config.positions.are_added().then(|| "pos_embed".to_string()));
        for l in 0..layers {
            all.extend((0..config.n_heads).map(|h| format!("L{l}H{h}")));
            all.push(format!("L{l} mlp"));
        }
        all.extend(more.iter().map(|s| s.to_string()));
        all
    };
    for (family, heads_reach_mlp) in [("gpt2", true), ("gptj", false)] {
        let dir = fixture(&format!("parity/{family}"));
        let session = load(&dir).unwrap();
        let config = &session.transformer.config;
        let (prompts, tokens) = prompts(&dir);
        let call = pairs(prompts[0].clone(), prompts[1].clone(), &tokens);
        let all = |to: &[&str]| labels(patch_paths(&session, &paths_call(&call, None, to)).0);
        assert_eq!(all(&["logits"]), expected(config, config.n_layers, &[]));
        assert_eq!(all(&["L1H0.q", "logits"]), expected(config, 1, &[]));
        let heads: Vec<String> = (0..config.n_heads).map(|h| format!("L1H{h}")).collect();
        let heads: Vec<&str> = heads.iter().map(String::as_str).collect();
        assert_eq!(all(&["L1 mlp"]), expected(config, 1, if heads_reach_mlp { &heads } else { &[] }));
        assert_eq!(all(&["L0H0.v"]), expected(config, 0, &[]));
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let dir = fixture("parity/gpt2");
    let session = load(&dir).unwrap();
    let (prompts, tokens) = prompts(&dir);
    let call = pairs(prompts[0].clone(), prompts[1].clone(), &tokens);
    let argument = |error: logit_prism_core::PrismError| {
        assert_eq!(error.code(), "INVALID_ARGUMENT");
        error.details()["argument"].as_str().unwrap().to_string()
    };
    let refused = |call: PairsCall, patching: Patching| {
        error(with_job(|job| session.patch(&PatchCall { pairs: call, patching, noising: false }, job)))
    };
    let resid = SWEEPS[0].1;
    assert_eq!(argument(refused(call.clone(), Patching { by_head: true, ..resid })), "over");
    assert_eq!(argument(refused(PairsCall { corrupt: call.corrupt[..1].to_vec(), ..call.clone() }, resid)), "corrupt");
    let reversed = call.corrupt.iter().rev().cloned().collect();
    assert_ne!(prompts[0][0].len(), prompts[0][1].len());
    assert_eq!(argument(refused(PairsCall { corrupt: reversed, ..call.clone() }, resid)), "corrupt");
    let two = Asked { positions: Positions::Of(vec![0, 1]), ..call.clean.clone() };
    assert_eq!(argument(refused(PairsCall { clean: two, ..call.clone() }, resid)), "position");
    let uneven = PairsCall {
        positions: Positions::Of(vec![0, 1]),
        corrupt_positions: Some(Positions::Of(vec![2])),
        ..call.clone()
    };
    assert_eq!(argument(refused(uneven, resid)), "corruptPositions");
    let twice = PairsCall { positions: Positions::Of(vec![1, 1]), ..call.clone() };
    assert_eq!(refused(twice, resid).code(), "POSITION_RANGE");

    let path = |from: &[&str], to: &[&str]| {
        argument(error(with_job(|job| session.patch_paths(&paths_call(&call, Some(from), to), job))))
    };
    for (from, to, which) in [
        (&["L1H0"][..], &["L1H1.q"][..], "from"),
        (&["L1 mlp"], &["L1 mlp"], "from"),
        (&["L1H0"], &["logits", "L1H1.v"], "from"),
        (&["L0H0", "L0H0"], &["logits"], "from"),
        (&["L0H0", "L0 attn"], &["logits"], "from"),
        (&["L0 attn_bias"], &["logits"], "from"),
        (&[], &["logits"], "from"),
        (&["L0H0"], &["logit"], "to"),
        (&["L0H0"], &["L1H9.q"], "to"),
        (&["L0H0"], &["logits", "logits"], "to"),
        (&["L0H0"], &[], "to"),
    ] {
        assert_eq!(path(from, to), which, "{from:?} → {to:?}");
    }
}
