//! Ablation against float64 references of transformers, and against whole prompts computed again from the change on.

mod common;

use candle_core::Tensor;
use common::*;
use logit_prism_core::attribution::{Component, Kind, OnViolation, Unit};
use logit_prism_core::batch::{Batch, Entry, Resume, Segment};
use logit_prism_core::cancel::Cancel;
use logit_prism_core::causal::Causal;
use logit_prism_core::hook::{BlockPoint, HookPoint};
use logit_prism_core::rows::Positions;
use logit_prism_core::session::{AblateAt, AblateCall, Session, SetTo};
use logit_prism_core::tap::{Activations, Capture, Tap};
use logit_prism_core::tokenizer::Prompt;
use std::path::PathBuf;

fn ablation(prompts: Vec<Vec<u32>>, pairs: &[(u64, u64)]) -> AblateCall {
    AblateCall {
        asked: asked(prompts),
        targets: pairs.iter().map(|(answer, against)| pair(*answer, *against)).collect(),
        unit: Unit::Head,
        components: None,
        set: SetTo::Zero,
        at: AblateAt::Row,
        on_violation: OnViolation::Throw,
    }
}

/// Components, what was ablated, and the result.
fn ablate(session: &Session, call: &AblateCall) -> (Vec<Component>, Vec<usize>, Causal) {
    with_job(|job| session.ablate(call, job)).unwrap().1
}

/// As attribution.md §6 has it for a single attribution.
#[track_caller]
fn near(what: &str, found: f32, expected: f64) {
    assert!(
        (f64::from(found) - expected).abs() <= 1e-4 * (1.0 + expected.abs()),
        "{what}: {found}, expected {expected}"
    );
}

#[test]
fn every_number_is_that_of_transformers_in_float64() {
    for family in ["gpt2", "llama", "gemma2", "gptj", "mixtral", "gpt_oss"] {
        let dir = fixture(&format!("parity/{family}"));
        let reference = json(&dir.join("ablate.json"));
        let prompt: Vec<u32> = serde_json::from_value(reference["prompt"].clone()).unwrap();
        let target = (reference["answer"].as_u64().unwrap(), reference["against"].as_u64().unwrap());
        for session in load_everywhere(&dir) {
            let session = session.unwrap();
            let call = ablation(vec![prompt.clone()], &[target]);
            let (components, columns, causal) = ablate(&session, &call);
            let all = AblateCall { at: AblateAt::All, ..call };
            let (.., everywhere) = ablate(&session, &all);
            let labels: Vec<String> = components.iter().map(Component::label).collect();
            assert_eq!(labels, serde_json::from_value::<Vec<String>>(reference["components"].clone()).unwrap());
            assert_eq!(columns, (0..labels.len()).collect::<Vec<_>>());
            near("the logit difference", causal.measured[0] as f32, reference["logit_difference"].as_f64().unwrap());
            for (found, expected) in causal.attributions.iter().zip(numbers(&reference["attributions"])) {
                near("attribution", *found, expected);
            }
            for (i, expected) in reference["ablations"].as_array().unwrap().iter().enumerate() {
                let what = format!("{family} {}", labels[i]);
                assert_eq!(expected["label"], labels[i]);
                let number = |name: &str| expected[name].as_f64().unwrap();
                near(&format!("{what} direct"), causal.direct[i], number("direct"));
                near(&format!("{what} total"), causal.total[i], number("total"));
                near(&format!("{what} norm"), causal.norm[i], number("norm"));
                near(&format!("{what} everywhere"), everywhere.total[i], number("total_all"));
                near(&format!("{what} direct everywhere"), everywhere.direct[i], number("direct"));
                let mediators = &causal.mediators[i * labels.len()..(i + 1) * labels.len()];
                for ((found, expected), j) in mediators.iter().zip(numbers(&expected["mediators"])).zip(&labels) {
                    near(&format!("{what} through {j}"), *found, expected);
                }
                assert_eq!(causal.verdicts[i].name(), expected["verdict"], "{what}");
                assert!(causal.certificates[i].holds() && everywhere.certificates[i].holds(), "{what}");
            }
        }
    }
}

// ---- the naive twin: a whole prompt, nothing shared ----

/// A run of one prompt that keeps every point of the stream and what is written to it, at all positions.
struct Whole<'a> {
    session: &'a Session,
    ids: Vec<u32>,
    kept: Activations,
    logits: Vec<Vec<f64>>,
}

impl<'a> Whole<'a> {
    fn run(session: &'a Session, ids: &[u32], resume: Option<Resume>) -> Self {
        use BlockPoint::*;
        let config = &session.transformer.config;
        let of_block =
            |l| [ResidPre, Z, AttnOut, MlpOut, Ln2PostNormalized, Ln2PostScale].map(|p| HookPoint::Block(l, p));
        let points = (0..config.n_layers).flat_map(of_block).chain([HookPoint::Embed, HookPoint::PosEmbed]);
        let points = points.filter(|p| p.absent(config).is_none()).collect();
        let batch = Batch::new(vec![Segment { ids: ids.into(), past: None, resume }], config).unwrap();
        let capture = Capture { points, rows: (0..ids.len() as u32).collect(), ..Capture::default() };
        let cancel = Cancel::default();
        let mut tap = Tap::new(&capture, &cancel);
        let output = session.transformer.forward(&batch, &mut tap).unwrap();
        let logits = flat(&session.transformer.unembed.logits(&output.normed).unwrap());
        let logits = logits.chunks(config.d_vocab).map(<[f64]>::to_vec).collect();
        Whole { session, ids: ids.into(), kept: tap.finish(), logits }
    }

    fn at(&self, l: usize, point: BlockPoint) -> &Tensor {
        self.kept.rows(HookPoint::Block(l, point)).unwrap()
    }

    /// What a component has at every position where it is replaced: z, the MLP's raw output, an embedding.
    fn value(&self, c: &Component) -> Tensor {
        let model = &self.session.transformer;
        match (c.kind, c.layer) {
            (Kind::Embed, _) => self.kept.rows(HookPoint::Embed).unwrap().clone(),
            (Kind::PosEmbed, _) => self.kept.rows(HookPoint::PosEmbed).unwrap().clone(),
            (Kind::Mlp, Some(l)) => match model.blocks[l].ln2_post {
                None => (self.at(l, BlockPoint::MlpOut) / model.blocks[l].multiplier).unwrap(),
                Some(_) => self
                    .at(l, BlockPoint::Ln2PostNormalized)
                    .broadcast_mul(self.at(l, BlockPoint::Ln2PostScale))
                    .unwrap(),
            },
            (_, Some(l)) => self.at(l, BlockPoint::Z).contiguous().unwrap(),
            _ => unreachable!(),
        }
    }

    /// The logits of every position after `replaced(position)` took the place of a component: a row of `with`, or zeros.
    fn without(&self, c: &Component, with: Option<&Tensor>, replaced: impl Fn(usize) -> bool) -> Vec<Vec<f64>> {
        let model = &self.session.transformer;
        let n = self.ids.len();
        let value = self.value(c);
        let other = with.map_or_else(|| value.zeros_like().unwrap(), |with| with.broadcast_as(value.shape()).unwrap());
        let other = other.contiguous().unwrap();
        let row = |p: usize| if replaced(p) { other.narrow(0, p, 1) } else { value.narrow(0, p, 1) }.unwrap();
        let rows: Vec<Tensor> = (0..n).map(row).collect();
        let changed = Tensor::cat(&rows, 0).unwrap();
        let l = c.layer.unwrap_or(0);
        let block = &model.blocks[l];
        let add = |a: &Tensor, b: &Tensor| (a + b).unwrap();
        let (at, stream) = match c.kind {
            Kind::Embed => match self.kept.rows(HookPoint::PosEmbed) {
                Some(positions) => (Entry::before(0), add(&changed, positions)),
                None => (Entry::before(0), changed),
            },
            Kind::PosEmbed => (Entry::before(0), add(self.kept.rows(HookPoint::Embed).unwrap(), &changed)),
            Kind::Mlp => {
                let normed = block
                    .ln2_post
                    .as_ref()
                    .map_or_else(|| changed.clone(), |norm| norm.forward_unseen(&changed, model.kernels).unwrap());
                let mid = add(self.at(l, BlockPoint::ResidPre), self.at(l, BlockPoint::AttnOut));
                (Entry::before(l + 1), add(&mid, &(normed * block.multiplier).unwrap()))
            }
            kind => {
                // head by head: what is changed of each is its own z
                let heads = (0..model.config.n_heads).map(|h| {
                    let is_changed = kind == Kind::Attn || (kind == Kind::Head && c.index == Some(h));
                    let from = if is_changed { &changed } else { &value };
                    from.narrow(1, h, 1).unwrap()
                });
                let z = Tensor::cat(&heads.collect::<Vec<_>>(), 1).unwrap();
                let mut raw = block.attention.head_results(&z, model.kernels).unwrap().sum(1).unwrap();
                if let Some(bias) = &block.attention.output.bias {
                    let zeroed = with.is_none() && matches!(kind, Kind::Attn | Kind::AttnBias);
                    let keeps: Vec<f32> = (0..n).map(|p| if zeroed && replaced(p) { 0.0 } else { 1.0 }).collect();
                    let keeps = Tensor::from_vec(keeps, (n, 1), raw.device()).unwrap();
                    raw = add(&raw, &keeps.broadcast_mul(&bias.unsqueeze(0).unwrap()).unwrap());
                }
                let normed = block
                    .ln1_post
                    .as_ref()
                    .map_or_else(|| raw.clone(), |norm| norm.forward_unseen(&raw, model.kernels).unwrap());
                let mid = add(self.at(l, BlockPoint::ResidPre), &(normed * block.multiplier).unwrap());
                match model.config.parallel {
                    true => (Entry::before(l + 1), add(&mid, self.at(l, BlockPoint::MlpOut))),
                    false => (Entry::behind_attention(l), mid),
                }
            }
        };
        Whole::run(self.session, &self.ids, Some(Resume { at, stream })).logits
    }
}

/// The T of every row and ablated component, whole prompts computed again; `value` is what takes a component's place in a prompt.
fn naive(
    session: &Session,
    call: &AblateCall,
    pairs: &[(u64, u64)],
    value: impl Fn(usize, &Component) -> Option<Tensor>,
    replaced: impl Fn(usize, usize, usize) -> bool,
) -> Vec<f64> {
    let difference = |logits: &[f64], i: usize| logits[pairs[i].0 as usize] - logits[pairs[i].1 as usize];
    let mut totals = Vec::new();
    for (i, prompt) in call.asked.prompts.iter().enumerate() {
        let Prompt::Ids(ids) = prompt else { unreachable!() };
        let whole = Whole::run(session, ids, None);
        for row in call.asked.positions.of(i, ids.len()).unwrap() {
            for c in Component::all(call.unit, &session.transformer.config) {
                let after = whole.without(&c, value(i, &c).as_ref(), |p| replaced(i, row, p));
                totals.push(difference(&whole.logits[row], i) - difference(&after[row], i));
            }
        }
    }
    totals
}

#[track_caller]
fn same_totals(what: &str, causal: &Causal, expected: &[f64]) {
    assert_eq!(causal.total.len(), expected.len(), "{what}");
    let largest = |i: usize| causal.certificates[i].tolerance; // 1e-5 (1 + A + A′)
    for (i, (found, expected)) in causal.total.iter().zip(expected).enumerate() {
        assert!(
            (f64::from(*found) - expected).abs() <= largest(i).max(1e-5),
            "{what}: number {i} is {found}, expected {expected}"
        );
        assert!(causal.certificates[i].holds(), "{what}: {:?}", causal.certificates[i]);
    }
}

fn families() -> Vec<(String, PathBuf)> {
    parity_families().into_iter().map(|name| (name.clone(), fixture(&format!("parity/{name}")))).collect()
}

/// Three prompts of different lengths, and pairs of tokens.
fn prompts(dir: &std::path::Path) -> (Vec<Vec<u32>>, Vec<(u64, u64)>) {
    let reference = json(&dir.join("reference.json"));
    let prompts = ids(&reference["prompts"])[..3].to_vec();
    let token = |name: &str, i: usize| reference[name][i].as_u64().unwrap();
    (prompts, (0..3).map(|i| (token("answer", i), token("against", i))).collect())
}

#[test]
fn zero_at_the_row_and_everywhere_is_the_whole_prompt_again() {
    for (name, dir) in families() {
        let (prompts, pairs) = prompts(&dir);
        for session in load_everywhere(&dir) {
            let session = session.unwrap();
            let mut call = ablation(prompts.clone(), &pairs);
            call.asked.positions = Positions::PerPrompt(vec![vec![1, -1], vec![0, 4], vec![-1]]);
            let expected = naive(&session, &call, &pairs, |_, _| None, |_, row, p| p == row);
            same_totals(&name, &ablate(&session, &call).2, &expected);
            // one prompt per chunk, and a unit that is coarser
            call.asked.chunk_tokens = Some(1);
            same_totals(&name, &ablate(&session, &call).2, &expected);
            call.unit = Unit::Layer;
            let expected = naive(&session, &call, &pairs, |_, _| None, |_, row, p| p == row);
            same_totals(&format!("{name} layers"), &ablate(&session, &call).2, &expected);
            (call.unit, call.at) = (Unit::Head, AblateAt::All);
            let expected = naive(&session, &call, &pairs, |_, _| None, |_, _, _| true);
            same_totals(&format!("{name} everywhere"), &ablate(&session, &call).2, &expected);
            // some of which lie behind the row
            call.at = AblateAt::Positions(Positions::PerPrompt(vec![vec![2, -1], vec![2, -1], vec![0]]));
            let at = |i: usize, p: usize| p == if i == 2 { 0 } else { 2 } || p == prompts[i].len() - 1;
            let expected = naive(&session, &call, &pairs, |_, _| None, |i, _, p| at(i, p));
            same_totals(&format!("{name} at 2 and the last"), &ablate(&session, &call).2, &expected);
        }
    }
}

#[test]
fn values_of_other_prompts_take_a_components_place() {
    for (name, dir) in families() {
        let (prompts, pairs) = prompts(&dir);
        let others: Vec<Vec<u32>> = prompts.iter().map(|p| p.iter().rev().copied().collect()).collect();
        let texts = || others.iter().cloned().map(Prompt::Ids).collect::<Vec<_>>();
        for session in load_on_devices(&dir) {
            let session = session.unwrap();
            let whole: Vec<Whole> = others.iter().map(|ids| Whole::run(&session, ids, None)).collect();
            for at in [AblateAt::Row, AblateAt::All] {
                let is_row = matches!(at, AblateAt::Row);
                let mut call = AblateCall { at, ..ablation(prompts.clone(), &pairs) };
                let replaced = |_: usize, row: usize, p: usize| !is_row || p == row;
                call.set = SetTo::From(texts());
                let expected = naive(&session, &call, &pairs, |i, c| Some(whole[i].value(c)), replaced);
                same_totals(&format!("{name} from"), &ablate(&session, &call).2, &expected);

                call.set = SetTo::Mean { reference: texts(), by_position: false };
                let mean = |c: &Component| {
                    let all: Vec<Tensor> = whole.iter().map(|whole| whole.value(c)).collect();
                    Some(Tensor::cat(&all, 0).unwrap().mean_keepdim(0).unwrap())
                };
                let expected = naive(&session, &call, &pairs, |_, c| mean(c), replaced);
                same_totals(&format!("{name} mean"), &ablate(&session, &call).2, &expected);
                let coarse = AblateCall { unit: Unit::Layer, ..call.clone() };
                let expected = naive(&session, &coarse, &pairs, |_, c| mean(c), replaced);
                same_totals(&format!("{name} mean of layers"), &ablate(&session, &coarse).2, &expected);
            }
        }
    }
}
