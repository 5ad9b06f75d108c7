//! The finer decompositions of every family against float64 references that `transformers` made
//! (test/fixtures/decompose.py): neurons, source positions, the lens, moved tokens, directions, the stack itself.

mod common;

use common::*;
use logit_prism_core::attribution::lens::{LensNorm, Lensed, Predicted};
use logit_prism_core::attribution::probe::Probed;
use logit_prism_core::attribution::top_tokens::TopTokens;
use logit_prism_core::attribution::{
    Against, Answer, Attribution, Component, ExpertId, Kind, NormTreatment, Scored, Target, Unit,
};
use logit_prism_core::cache::Logits;
use logit_prism_core::hook::HookPoint;
use logit_prism_core::ops::Kernels;
use logit_prism_core::rows::Positions;
use logit_prism_core::session::{Asked, Call, LensCall, ProbeCall, RunCall, Session, SourcesCall, TopTokensCall};
use logit_prism_core::tokenizer::Token;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// As for the columns by heads: an f32 forward pass of models this small is this close.
const TOLERANCE: f64 = 2e-5;

/// A checkpoint and what the reference says of it: one prompt, one target, two rows.
struct Checked {
    name: &'static str,
    session: Session,
    tensors: Tensors,
    prompt: Vec<u32>,
    rows: Vec<usize>,
    answer: u32,
    against: u32,
    states: Vec<String>,
    components: Vec<String>,
}

impl Checked {
    fn new(name: &'static str) -> Self {
        let path = fixture(name).join("decompose.safetensors");
        let meta: BTreeMap<String, Value> =
            metadata(&path).into_iter().map(|(k, v)| (k, serde_json::from_str(&v).unwrap())).collect();
        let labels = |key: &str| serde_json::from_value::<Vec<String>>(meta[key].clone()).unwrap();
        Checked {
            name,
            session: load(&fixture(name)).unwrap(),
            tensors: read_tensors(&path),
            prompt: serde_json::from_value(meta["prompt"].clone()).unwrap(),
            rows: serde_json::from_value(meta["rows"].clone()).unwrap(),
            answer: meta["answer"].as_u64().unwrap() as u32,
            against: meta["against"].as_u64().unwrap() as u32,
            states: labels("states"),
            components: labels("components"),
        }
    }

    fn stored(&self, key: &str) -> Vec<f64> {
        stored(&self.tensors, key)
    }

    /// The elements at some first indices of a tensor.
    fn at(&self, key: &str, index: &[usize]) -> Vec<f64> {
        let shape = &self.tensors[key].1;
        let inner: usize = shape[index.len()..].iter().product();
        let first = index.iter().zip(shape).fold(0, |at, (i, n)| at * n + i);
        self.stored(key)[first * inner..(first + 1) * inner].to_vec()
    }

    fn has(&self, key: &str) -> bool {
        self.tensors.contains_key(key)
    }

    fn all(&self, unit: Unit) -> Vec<Component> {
        Component::all(unit, &self.session.transformer.config)
    }

    fn close(&self, what: &str, found: impl IntoIterator<Item = f64>, expected: &[f64]) {
        close(&format!("{}: {what}", self.name), found, expected, TOLERANCE);
    }

    /// Numbers that one computation gives twice: bitwise by the CPU's kernels, whose order of sums is theirs.
    fn same(&self, what: &str, found: &[f32], expected: &[f32]) {
        match self.session.transformer.kernels {
            Kernels::Plain => self.close(what, wide(found), &wide(expected)),
            _ => assert_eq!(found, expected, "{}: {what}", self.name),
        }
    }

    /// The prompt at both rows.
    fn asked(&self) -> Asked {
        let positions = Positions::Of(self.rows.iter().map(|r| *r as i64).collect());
        Asked { positions, ..asked(vec![self.prompt.clone()]) }
    }

    /// The prompt at its last row.
    fn last(&self) -> Asked {
        asked(vec![self.prompt.clone()])
    }

    fn call(&self, unit: Unit) -> Call {
        let mut call = call(vec![self.prompt.clone()], vec![pair(self.answer.into(), self.against.into())]);
        call.asked = self.asked();
        call.options.unit = unit;
        call
    }

    fn attribute(&self, unit: Unit) -> Attribution {
        attribute(&self.session, &self.call(unit)).unwrap()
    }

    /// What the reference says of a column at one of its rows; `None` for those that it leaves to reference.json.
    fn neuron(&self, c: &Component, row: usize) -> Option<f64> {
        let l = c.layer?;
        Some(match (c.kind, c.expert) {
            (Kind::Neuron, None) => self.at(&format!("neurons.{l}"), &[row, c.index?])[0],
            (Kind::Neuron, Some(ExpertId::Routed(e))) => self.at(&format!("neurons.{l}"), &[row, e, c.index?])[0],
            (Kind::Neuron, Some(ExpertId::Shared)) => self.at(&format!("neurons_shared.{l}"), &[row, c.index?])[0],
            (Kind::MlpBias, _) => self.at("mlp_bias", &[row, l])[0],
            _ => return None,
        })
    }
}

// ---- neurons ----

fn neurons(r: &Checked) {
    let (all, result, heads) = (r.all(Unit::Neuron), r.attribute(Unit::Neuron), r.attribute(Unit::Head));
    assert_eq!(result.components, None);
    for row in 0..2 {
        let (mut found, mut expected, mut rest) = (Vec::new(), Vec::new(), Vec::new());
        for (c, value) in all.iter().zip(row_of(&result, row)) {
            match r.neuron(c, row) {
                Some(e) => {
                    found.push(f64::from(*value));
                    expected.push(e);
                }
                None => rest.push(*value),
            }
        }
        let numbers = |prefix: &str| -> usize {
            let of = |(key, (_, shape, _)): (&String, &(String, Vec<usize>, Vec<u8>))| {
                if key.starts_with(prefix) { shape[1..].iter().product() } else { 0 }
            };
            r.tensors.iter().map(of).sum()
        };
        assert_eq!(found.len(), numbers("neurons") + numbers("mlp_bias"), "{}: a column for every number", r.name);
        r.close("neurons", found, &expected);

        // the other columns are those of heads; and an MLP is its neurons and its bias
        let of_heads: Vec<f32> = r
            .all(Unit::Head)
            .iter()
            .zip(row_of(&heads, row))
            .filter(|(c, _)| c.kind != Kind::Mlp)
            .map(|(_, v)| *v)
            .collect();
        assert_eq!(rest, of_heads);
        for l in 0..r.session.transformer.config.n_layers {
            let of_layer = |kinds: &'static [Kind]| {
                let all = all.iter().zip(row_of(&result, row));
                let here = all.filter(move |(c, _)| c.layer == Some(l) && kinds.contains(&c.kind));
                here.map(|(_, v)| f64::from(*v)).collect::<Vec<f64>>()
            };
            let of_mlp = of_layer(&[Kind::Neuron, Kind::MlpBias]);
            let size = 1.0 + of_mlp.iter().map(|v| v.abs()).sum::<f64>();
            let expected = r.at("mlp", &[row, l])[0];
            assert!((of_mlp.iter().sum::<f64>() - expected).abs() < TOLERANCE * size, "{}: L{l} mlp", r.name);
            if row == 1 {
                r.close("heads", of_layer(&[Kind::Head]), &r.at("head", &[l]));
            }
        }
        let last_state = *r.at("lens.frozen", &[row]).last().unwrap();
        let c = result.certificates[row];
        r.close("total and measured", [c.total, c.measured], &[last_state; 2]);
        assert!(c.holds());
    }
    for (unit, coarse) in [(Unit::Head, &heads), (Unit::Layer, &r.attribute(Unit::Layer))] {
        let labels: Vec<String> = r.all(unit).iter().map(Component::label).collect();
        for row in 0..2 {
            let mut sums = vec![(0.0, 1.0); labels.len()];
            for (c, value) in all.iter().zip(row_of(&result, row)) {
                let l = c.layer.unwrap_or(0);
                let label = match (c.kind, unit) {
                    (Kind::Neuron | Kind::MlpBias, _) => format!("L{l} mlp"),
                    (Kind::Head | Kind::AttnBias, Unit::Layer) => format!("L{l} attn"),
                    _ => c.label(),
                };
                let sum = &mut sums[labels.iter().position(|known| *known == label).unwrap()];
                *sum = (sum.0 + f64::from(*value), sum.1 + f64::from(value.abs()));
            }
            for (i, (sum, size)) in sums.into_iter().enumerate() {
                let found = f64::from(row_of(coarse, row)[i]);
                assert!((found - sum).abs() < TOLERANCE * size, "{}: {}: {found} and {sum}", r.name, labels[i]);
            }
        }
    }
}

/// Of every row the k largest and the k smallest by sorting all, the same for all rows, and the sum of the others.
fn top_neurons(r: &Checked) {
    const K: usize = 3;
    let (all, full) = (r.all(Unit::Neuron), r.attribute(Unit::Neuron));
    let is_neuron = |c: &usize| all[*c].kind == Kind::Neuron;
    let mut kept = BTreeSet::new();
    for row in 0..2 {
        let values = row_of(&full, row);
        let mut order: Vec<usize> = (0..all.len()).filter(is_neuron).collect();
        order.sort_by(|a, b| values[*b].total_cmp(&values[*a]));
        kept.extend(order[..K].iter().chain(&order[order.len() - K..]).copied());
    }
    let mut call = r.call(Unit::Neuron);
    call.options.top = Some(K);
    let cut = attribute(&r.session, &call).unwrap();
    let columns: Vec<usize> = (0..all.len()).filter(|c| !is_neuron(c) || kept.contains(c)).collect();
    let components: Vec<Component> = columns.iter().map(|c| all[*c]).chain([Component::REST]).collect();
    assert_eq!(cut.components, Some(components), "{}", r.name);
    for row in 0..2 {
        let (values, found) = (row_of(&full, row), row_of(&cut, row));
        let (rest, same) = found.split_last().unwrap();
        assert_eq!(same, columns.iter().map(|c| values[*c]).collect::<Vec<f32>>());
        let dropped = || (0..all.len()).filter(|c| is_neuron(c) && !kept.contains(c));
        let size = 1.0 + dropped().map(|c| f64::from(values[c].abs())).sum::<f64>();
        let expected: f64 = dropped().map(|c| r.neuron(&all[c], row).unwrap()).sum();
        assert!((f64::from(*rest) - expected).abs() < TOLERANCE * size, "{}: rest {rest} and {expected}", r.name);
        assert_eq!(cut.certificates[row], full.certificates[row]);
    }
}

/// `c · u` without the final norm, for every neuron and head, from the vectors that they write.
fn without_the_norm(r: &Checked) {
    let mut call = r.call(Unit::Neuron);
    call.options.norm = Some(NormTreatment::None);
    let result = attribute(&r.session, &call).unwrap();
    let unembed = &r.session.transformer.unembed;
    let columns = unembed.columns(&[r.answer, r.against]).unwrap();
    let u: Vec<f64> =
        columns[0].weight.iter().zip(&columns[1].weight).map(|(a, b)| unembed.logit_scale * (a - b)).collect();
    let (_, vectors) = stack(r, r.asked(), Unit::Neuron);
    let expected: Vec<f64> = vectors.iter().map(|v| dot(v, &u)).collect();
    r.close("without the norm", wide(&result.values), &expected);
    r.close("constant", result.constant, &[unembed.logit_scale * (columns[0].bias - columns[1].bias); 2]);
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

// ---- sources ----

fn sources(r: &Checked) {
    let n = r.prompt.len();
    let split = |asked: Asked, heads: Option<Vec<String>>| {
        let call = SourcesCall { call: Call { asked, ..r.call(Unit::Head) }, heads };
        with_job(|job| r.session.sources(&call, job)).unwrap().1
    };
    let (heads, result) = split(r.last(), None);
    let config = &r.session.transformer.config;
    let every: Vec<(usize, usize)> =
        (0..config.n_layers).flat_map(|l| (0..config.n_heads).map(move |h| (l, h))).collect();
    assert_eq!(heads, every);
    r.close("sources", wide(&result.values[0]), &r.stored("sources"));
    let (one, of_one) = split(r.last(), Some(vec!["L1H0".into()]));
    assert_eq!(one, [(1, 0)]);
    r.same("one head's sources", &of_one.values[0], &result.values[0][config.n_heads * n..][..n]);

    // in the middle of the prompt: nothing from behind the row, and the sum is the head's column
    let (_, result) = split(r.asked(), None);
    assert_eq!(result.values.len(), 2);
    let columns: Vec<usize> =
        r.all(Unit::Head).iter().enumerate().filter(|(_, c)| c.kind == Kind::Head).map(|(i, _)| i).collect();
    for (row, values) in result.values.iter().enumerate() {
        assert_eq!(values.len(), heads.len() * n);
        for (of_head, column) in values.chunks(n).zip(&columns) {
            assert!(of_head[r.rows[row] + 1..].iter().all(|v| *v == 0.0), "{}: sources behind the row", r.name);
            let sum: f64 = wide(of_head).iter().sum();
            r.close("sum of sources", [sum], &[f64::from(row_of(&result.attribution, row)[*column])]);
        }
    }
    r.same("the attribution of a call of sources", &result.attribution.values, &r.attribute(Unit::Head).values);
}

// ---- the lens ----

fn lens(r: &Checked) {
    let read = |norm| {
        let targets = vec![pair(r.answer.into(), r.against.into())];
        let call = LensCall { asked: r.asked(), targets, norm, top: 5 };
        with_job(|job| r.session.lens(&call, job)).unwrap().1
    };
    let n = r.states.len();
    let (recomputed, frozen) = (read(LensNorm::Recomputed), read(LensNorm::Frozen));
    for (result, key) in [(&recomputed, "lens.recomputed"), (&frozen, "lens.frozen")] {
        r.close(key, wide(&result.values), &r.stored(key));
        for (row, c) in result.certificates.iter().enumerate() {
            let last = *r.at(key, &[row]).last().unwrap();
            r.close("certificate", [c.total, c.measured], &[last; 2]);
            assert!(c.holds());
        }
    }
    standings(r, &recomputed);
    // the last state is the model's own, whatever the norm
    for (row, (a, b)) in recomputed.standings.iter().zip(&frozen.standings).enumerate() {
        for token in 0..2 {
            let (a, b) = (a[token * n + n - 1], b[token * n + n - 1]);
            r.close(
                "last state",
                [a.logit, a.log_probability].map(f64::from),
                &[b.logit, b.log_probability].map(f64::from),
            );
            assert_eq!(a.rank, b.rank, "{}: row {row}", r.name);
        }
    }
}

/// Ranks, probabilities and the most likely tokens at every state.
fn standings(r: &Checked, result: &Lensed) {
    let (n, unembed) = (r.states.len(), &r.session.transformer.unembed);
    let answer = usize::from(r.answer > r.against); // tokens of a target stand in the order of their ids
    for row in 0..2 {
        for state in 0..n {
            let standing = result.standings[row][answer * n + state];
            let [rank, log_probability] =
                ["lens.answer_rank", "lens.answer_log_prob"].map(|key| r.at(key, &[row, state])[0]);
            assert_eq!(f64::from(standing.rank), rank, "{}: rank at {}", r.name, r.states[state]);
            r.close("log probability", [f64::from(standing.log_probability)], &[log_probability]);
            let other = result.standings[row][(1 - answer) * n + state];
            let difference = f64::from(standing.logit) - f64::from(other.logit);
            r.close("difference", [difference], &r.at("lens.recomputed", &[row, state]));

            let top = &result.top[row * n + state];
            let ids: Vec<f64> = top.iter().map(|t| f64::from(t.token)).collect();
            assert_eq!(ids, r.at("lens.top_ids", &[row, state]), "{}: top at {}", r.name, r.states[state]);
            let capped = r.at("lens.top_capped", &[row, state]);
            r.close("top logits", top.iter().map(|t| f64::from(t.logit)), &capped);
            // p = exp(logit − answer's logit) p(answer)
            let own = unembed.capped(f64::from(standing.logit));
            let expected: Vec<f64> = capped.iter().map(|logit| (logit - own + log_probability).exp()).collect();
            r.close("probabilities", top.iter().map(|t| f64::from(t.probability)), &expected);
            if let Some(at) = top.iter().position(|t| t.token == r.answer) {
                assert_eq!(at as f64, rank);
                r.close(
                    "the answer's logit",
                    [f64::from(standing.logit)],
                    &[r.at("lens.top_logits", &[row, state])[at]],
                );
            }
        }
    }
}

/// A direction is read raw from every state; the mean of the logits is that of all of them.
fn other_targets(r: &Checked) {
    let read = |target, top| {
        let call = LensCall { asked: r.last(), targets: vec![target], norm: LensNorm::Recomputed, top };
        with_job(|job| r.session.lens(&call, job)).unwrap().1
    };
    let direction: Vec<f32> = r.at("directions", &[0]).iter().map(|v| *v as f32).collect();
    let found = read(Target::Direction(direction.clone().into()), 0);
    let call = RunCall { asked: r.last(), points: vec!["*.hook_resid_*".into()], logits: Logits::None };
    let cache = with_job(|job| r.session.run(&call, job)).unwrap();
    let states = cache.points.iter().filter(|p| !p.to_string().ends_with("_pre") || p.layer() == Some(0));
    let read_raw = |p: &HookPoint| dot(&wide(&cache.values(*p, 0).unwrap().1), &wide(&direction));
    let expected: Vec<f64> = states.map(read_raw).collect();
    assert_eq!(expected.len(), r.states.len());
    r.close("a direction at every state", wide(&found.values), &expected);

    if r.session.transformer.unembed.cap.is_some() {
        return; // what is listed is capped
    }
    let d_vocab = r.session.transformer.config.d_vocab;
    let answer = Answer::Tokens(vec![Token::Id(r.answer)]);
    let found = read(Target::Tokens { answer, against: Some(Against::Mean) }, d_vocab);
    let expected = found.top.iter().map(|all| {
        assert_eq!(all.len(), d_vocab);
        let logit = |t: &Predicted| f64::from(t.logit);
        let own = all.iter().find(|t| t.token == r.answer).map(logit).unwrap();
        let likely: f64 = all.iter().map(|t| f64::from(t.probability)).sum();
        assert!((likely - 1.0).abs() < 1e-5, "{}: probabilities add up to {likely}", r.name);
        own - all.iter().map(logit).sum::<f64>() / d_vocab as f64
    });
    let expected: Vec<f64> = expected.collect();
    r.close("against the mean", wide(&found.values), &expected);
}

// ---- tokens ----

fn top_tokens(r: &Checked) {
    let read = |components: Option<Vec<String>>, k: usize, masked: Vec<u32>| -> (Vec<Component>, TopTokens) {
        let call = TopTokensCall { asked: r.last(), unit: Unit::Head, components, k, masked };
        with_job(|job| r.session.top_tokens(&call, job)).unwrap().1
    };
    let (components, result) = read(None, 5, Vec::new());
    assert_eq!(components.iter().map(Component::label).collect::<Vec<_>>(), r.components, "{}", r.name);
    let both = |i: usize| [&result.raised[i][..], &result.lowered[i][..]].concat();
    for (i, label) in r.components.iter().enumerate() {
        let ids: Vec<f64> = both(i).iter().map(|s| f64::from(s.token)).collect();
        assert_eq!(ids, r.at("top.ids", &[i]), "{}: tokens of {label}", r.name);
        r.close(label, both(i).iter().map(|s| f64::from(s.value)), &r.at("top.values", &[i]));
    }

    // without the first of each, the others move up; and of two components alone there is the same
    let masked: Vec<u32> =
        (0..components.len()).flat_map(|i| [result.raised[i][0].token, result.lowered[i][0].token]).collect();
    let (_, cut) = read(None, 4, masked.clone());
    let (_, long) = read(None, unmasked(r), Vec::new());
    for i in 0..components.len() {
        for (cut, long) in [(&cut.raised[i], &long.raised[i]), (&cut.lowered[i], &long.lowered[i])] {
            let left: Vec<Scored> = long.iter().filter(|s| !masked.contains(&s.token)).copied().take(4).collect();
            assert_eq!(*cut, left);
        }
    }
    let (one, last) = (1, components.len() - 1);
    let (some, of_some) = read(Some(vec![r.components[last].clone(), r.components[one].clone()]), 5, Vec::new());
    assert_eq!(some, [components[one], components[last]], "in the order of the columns");
    for (i, column) in [one, last].into_iter().enumerate() {
        let tokens = |list: &[Scored]| list.iter().map(|s| s.token).collect::<Vec<_>>();
        assert_eq!(tokens(&of_some.raised[i]), tokens(&result.raised[column]));
        assert_eq!(tokens(&of_some.lowered[i]), tokens(&result.lowered[column]));
    }
}

/// All tokens.
fn unmasked(r: &Checked) -> usize {
    r.session.transformer.config.d_vocab
}

// ---- directions ----

fn probe(r: &Checked, asked: Asked, directions: &[f64], at: &str, unit: Unit) -> (Vec<Component>, Probed) {
    let directions = directions.iter().map(|v| *v as f32).collect();
    let on_violation = logit_prism_core::attribution::OnViolation::Throw;
    let call = ProbeCall { asked, directions, at: at.into(), unit, on_violation };
    with_job(|job| r.session.probe(&call, job)).unwrap().1
}

fn directions(r: &Checked) {
    let vectors = r.stored("directions");
    let points: Vec<&str> = r.tensors.keys().filter_map(|key| key.strip_prefix("directions.")).collect();
    assert!(points.len() >= 2);
    for at in points {
        let expected = r.stored(&format!("directions.{at}"));
        let (components, few) = probe(r, r.last(), &vectors, at, Unit::Head); // few rows: writes are formed
        let labels: Vec<String> = components.iter().map(Component::label).collect();
        assert_eq!(labels, r.components[..expected.len() / 3], "{}: {at}", r.name);
        r.close(at, wide(&few.values), &expected);
        let measured = r.stored(&format!("measured.{at}"));
        r.close("measured", few.certificates.iter().map(|c| c.measured), &measured);
        r.close("total", few.certificates.iter().map(|c| c.total), &measured);

        // many rows: directions are folded; the same numbers at the rows of both
        let (_, formed) = probe(r, r.asked(), &vectors, at, Unit::Head);
        let all = Asked { positions: Positions::All, ..r.last() };
        let (_, folded) = probe(r, all, &vectors, at, Unit::Head);
        let n = 3 * labels.len();
        let row = |of: &Probed, i: usize| wide(&of.values[i * n..(i + 1) * n]);
        assert_eq!((formed.rows.len(), folded.rows.len()), (2, r.prompt.len()));
        for (i, position) in r.rows.iter().enumerate() {
            r.close("folded and formed", row(&folded, *position), &row(&formed, i));
        }
        r.close("folded", row(&folded, r.prompt.len() - 1), &expected);
        let (coarse, layers) = probe(r, r.last(), &vectors, at, Unit::Layer);
        let n = coarse.len();
        for i in 0..3 {
            let sum = |c: &Component| -> f64 {
                let mine = |fine: &&Component| {
                    let attention = matches!(fine.kind, Kind::Head | Kind::AttnBias);
                    fine.layer == c.layer && if c.kind == Kind::Attn { attention } else { fine.kind == c.kind }
                };
                let of =
                    |fine: &Component| expected[i * labels.len() + components.iter().position(|x| x == fine).unwrap()];
                components.iter().filter(mine).map(of).sum()
            };
            let sums: Vec<f64> = coarse.iter().map(sum).collect();
            r.close("layers", wide(&layers.values[i * n..(i + 1) * n]), &sums);
        }
    }
}

// ---- the stack ----

/// The vectors of every row and component, and the final stream of every row.
fn stack(r: &Checked, asked: Asked, unit: Unit) -> (Vec<Vec<f64>>, Vec<Vec<f64>>) {
    let call = RunCall { asked, points: vec!["*".into()], logits: Logits::None };
    let cache = with_job(|job| r.session.run(&call, job)).unwrap();
    let stack = with_job(|job| r.session.decompose_run(&cache, unit, job)).unwrap();
    let d = r.session.transformer.config.d_model;
    let (_, stream) =
        cache.values(*cache.points.iter().rev().find(|p| p.to_string().ends_with("resid_post")).unwrap(), 0).unwrap();
    let cut = |values: &[f32]| values.chunks(d).map(wide).collect::<Vec<_>>();
    assert_eq!(stack.rows.len() * r.all(unit).len() * d, stack.vectors.len());
    (cut(&stream), cut(&stack.vectors))
}

fn stacks(r: &Checked) {
    let labelled = |unit| -> BTreeMap<String, Vec<f64>> {
        let (stream, vectors) = stack(r, r.last(), unit);
        let sum = |i: usize| vectors.iter().map(|v| v[i]).sum::<f64>();
        let sums: Vec<f64> = (0..stream[0].len()).map(sum).collect();
        r.close("the stream is the sum", sums, &stream[0]);
        r.all(unit).iter().map(Component::label).zip(vectors).collect()
    };
    let (heads, layers, neurons) = (labelled(Unit::Head), labelled(Unit::Layer), labelled(Unit::Neuron));
    let point = format!("directions.blocks.{}.hook_resid_post", r.session.transformer.config.n_layers - 1);
    for (i, label) in r.components.iter().enumerate() {
        if r.has("stack") {
            r.close(&format!("vector of {label}"), heads[label].iter().copied(), &r.at("stack", &[i]));
        }
        for direction in 0..3 {
            let read = dot(&heads[label], &r.at("directions", &[direction]));
            r.close(&format!("{label} along a direction"), [read], &r.at(&point, &[direction])[i..=i]);
        }
    }
    let is_in = |label: &str, whole: &str| {
        let (l, what) = whole.split_once(' ').unwrap();
        let of_layer = |mark: &str| label.strip_prefix(l).is_some_and(|rest| rest.starts_with(mark));
        match what {
            "attn" => of_layer("H") || of_layer(" attn_bias"),
            _ => of_layer("N") || of_layer("E") || of_layer("SN") || of_layer(" mlp_bias"),
        }
    };
    for (label, vector) in &layers {
        match label.split_once(' ') {
            None => assert_eq!(vector, &neurons[label]),
            Some(_) => {
                let parts: Vec<_> = neurons.iter().filter(|(part, _)| is_in(part, label)).collect();
                assert!(!parts.is_empty());
                let sum: Vec<f64> = (0..vector.len()).map(|i| parts.iter().map(|(_, v)| v[i]).sum()).collect();
                r.close(label, sum, vector);
            }
        }
    }
}

macro_rules! decomposed {
    ($module:ident, $folder:literal: $($name:ident),* $(,)?) => {
        mod $module {
            $(#[test] fn $name() { super::check(concat!($folder, "/", stringify!($name))); })*

            #[test]
            fn none_is_left_out() {
                let here = [$(stringify!($name)),*];
                for entry in std::fs::read_dir(super::fixture($folder)).unwrap() {
                    let entry = entry.unwrap();
                    let name = entry.file_name().into_string().unwrap();
                    let made = entry.path().join("decompose.safetensors").exists();
                    assert_eq!(here.contains(&&*name), made, "{name}");
                }
            }
        }
    };
}

fn check(name: &'static str) {
    let r = Checked::new(name);
    neurons(&r);
    top_neurons(&r);
    without_the_norm(&r);
    sources(&r);
    lens(&r);
    other_targets(&r);
    top_tokens(&r);
    directions(&r);
    stacks(&r);
}

decomposed!(parity, "parity":
    bloom,
    codegen,
    cohere,
    falcon,
    gemma,
    gemma2,
    gemma3,
    glm4,
    gpt2,
    gpt_bigcode,
    gpt_neo,
    gpt_neox,
    gpt_neox_sequential,
    gpt_oss,
    gptj,
    granite,
    llama,
    llama3_rope,
    mistral,
    mixtral,
    mpt,
    nemotron,
    olmo,
    olmo2,
    olmo3,
    opt,
    phi,
    phi3,
    qwen2,
    qwen3,
    qwen3_moe,
    smollm3,
    stablelm,
    starcoder2,
);

decomposed!(more, "more":
    biogpt,
    cohere2,
    exaone4,
    flex_olmo,
    granitemoe,
    jais2,
    persimmon,
    qwen2_moe_mixed,
    vaultgemma,
);

// ---- more tokens than one block of the vocabulary ----

const D_VOCAB: usize = 5000;
/// Of gpt2_untied.
const D_MODEL: usize = 24;

/// A copy of gpt2_untied with a vocabulary of several blocks.
fn many_tokens() -> (TempDir, Session) {
    let dir = changed("gpt2_untied", |tensors| {
        let mut state = 7u32;
        for name in ["transformer.wte.weight", "lm_head.weight"] {
            let number = |_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 8) as f32 / (1 << 24) as f32 - 0.5
            };
            let bytes = (0..D_VOCAB * D_MODEL).map(number).flat_map(f32::to_le_bytes).collect();
            tensors.insert(name.into(), ("F32".into(), vec![D_VOCAB, D_MODEL], bytes));
        }
    });
    let mut config = json(&dir.join("config.json"));
    config["vocab_size"] = D_VOCAB.into();
    dir.write("config.json", config.to_string());
    let session = load(&dir.0).unwrap();
    (dir, session)
}

/// The k largest of some values, each with its index, by sorting all.
fn largest(values: &[f64], k: usize) -> Vec<(u32, f64)> {
    let mut all: Vec<(u32, f64)> = values.iter().enumerate().map(|(i, v)| (i as u32, *v)).collect();
    all.sort_by(|a, b| b.1.total_cmp(&a.1));
    all.truncate(k);
    all
}

#[test]
fn blocks_of_the_vocabulary_make_one() {
    let (dir, session) = many_tokens();
    let asked = || asked(vec![vec![1, 4999, 2500, 3]]);
    let call = RunCall { asked: asked(), points: vec!["*".into()], logits: Logits::Last };
    let cache = with_job(|job| session.run(&call, job)).unwrap();
    let logits = wide(&cache.logits(0).unwrap().1);
    let log_sum = logits.iter().map(|l| l.exp()).sum::<f64>().ln();

    // the last state of the lens, of tokens of the first, the middle and the last block
    for token in [17, 2100, 4990] {
        let answer = Answer::Tokens(vec![Token::Id(token)]);
        let target = Target::Tokens { answer, against: None };
        let call = LensCall { asked: asked(), targets: vec![target], norm: LensNorm::Recomputed, top: 9 };
        let lens = with_job(|job| session.lens(&call, job)).unwrap().1;
        let standing = lens.standings[0].last().unwrap();
        let own = logits[token as usize];
        close("logit", [f64::from(standing.logit)], &[own], 1e-5);
        close("log probability", [f64::from(standing.log_probability)], &[own - log_sum], 1e-5);
        assert_eq!(standing.rank as usize, logits.iter().filter(|l| **l > own).count());
        let expected = largest(&logits, 9);
        let top = lens.top.last().unwrap();
        assert_eq!(top.iter().map(|t| t.token).collect::<Vec<_>>(), expected.iter().map(|t| t.0).collect::<Vec<_>>());
        let likely: Vec<f64> = expected.iter().map(|t| (t.1 - log_sum).exp()).collect();
        close("probabilities", top.iter().map(|t| f64::from(t.probability)), &likely, 1e-5);
    }

    // every component through γ and s, then every column of W_U less their mean
    let tensors = read_tensors(&dir.join("model.safetensors"));
    let (gamma, w_u) = (stored(&tensors, "transformer.ln_f.weight"), stored(&tensors, "lm_head.weight"));
    let scale = f64::from(cache.values(HookPoint::FinalScale, 0).unwrap().1[0]);
    let call = TopTokensCall { asked: asked(), unit: Unit::Head, components: None, k: 6, masked: vec![0, 4999] };
    let tokens = with_job(|job| session.top_tokens(&call, job)).unwrap().1.1;
    let stack = with_job(|job| session.decompose_run(&cache, Unit::Head, job)).unwrap();
    assert_eq!(tokens.raised.len() * D_MODEL, stack.vectors.len());
    for (i, vector) in stack.vectors.chunks(D_MODEL).map(wide).enumerate() {
        let mean = vector.iter().sum::<f64>() / D_MODEL as f64;
        let read: Vec<f64> = vector.iter().zip(&gamma).map(|(c, gamma)| (c - mean) * gamma / scale).collect();
        let mut moved: Vec<f64> = w_u.chunks(D_MODEL).map(|column| dot(column, &read)).collect();
        let mean = moved.iter().sum::<f64>() / D_VOCAB as f64;
        moved.iter_mut().for_each(|m| *m -= mean);
        for (found, sign) in [(&tokens.raised[i], 1.0), (&tokens.lowered[i], -1.0)] {
            let mut signed: Vec<f64> = moved.iter().map(|m| sign * m).collect();
            (signed[0], signed[4999]) = (f64::NEG_INFINITY, f64::NEG_INFINITY); // masked
            let expected: Vec<f64> = largest(&signed, 6).iter().map(|t| sign * t.1).collect();
            close("moved", found.iter().map(|s| f64::from(s.value)), &expected, 1e-5);
            for s in found {
                close("the token's own", [f64::from(s.value)], &[moved[s.token as usize]], 1e-5);
                assert!(s.token != 0 && s.token != 4999);
            }
        }
    }
}
