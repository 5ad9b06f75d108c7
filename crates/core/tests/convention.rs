//! `convention: TransformerLens` against the numbers of TransformerLens 4.3 itself (test/fixtures/transformerlens.py), and
//! what it must leave alone in every model: totals, embeddings, MLPs, the columns of layers.

mod common;

use common::*;
use logit_prism_core::attribution::{Against, Answer, Attribution, Component, Convention, Kind, Target, Unit};
use logit_prism_core::rows::Positions;
use logit_prism_core::session::{Call, Session, SourcesCall};
use logit_prism_core::tokenizer::Token;
use serde_json::Value;

const TOLERANCE: f64 = 2e-5;

struct Checked {
    session: Session,
    reference: Value,
}

impl Checked {
    fn new(name: &str) -> Self {
        let dir = fixture(&format!("parity/{name}"));
        Checked { session: load(&dir).unwrap(), reference: json(&dir.join("transformerlens.json")) }
    }

    fn n_layers(&self) -> usize {
        self.session.transformer.config.n_layers
    }

    fn call(&self, target: Target<Token>) -> Call {
        let prompt = serde_json::from_value(self.reference["prompt"].clone()).unwrap();
        let mut call = call(vec![prompt], vec![target]);
        call.options.convention = Convention::TransformerLens;
        call
    }
}

/// The columns of a result at its first row, and what they are.
fn columns(session: &Session, result: &Attribution) -> Vec<(Component, f64)> {
    let all = result.components.clone().unwrap_or_else(|| Component::all(Unit::Head, &session.transformer.config));
    let values = wide(row_of(result, 0));
    assert_eq!(all.len(), values.len());
    all.into_iter().zip(values).collect()
}

fn check(name: &str) {
    let r = Checked::new(name);
    let id = |key: &str| r.reference[key].as_u64().unwrap();
    let answer = Answer::Tokens(vec![Token::Id(id("answer") as u32)]);
    // W_U is centred over the vocabulary, unless the model caps its logits
    let against = r.reference["unembed_centred"].as_bool().unwrap().then_some(Against::Mean);
    let single = Target::Tokens { answer, against };
    rows(&r, "pair", pair(id("answer"), id("against")));
    rows(&r, "single", single);
}

fn rows(r: &Checked, which: &str, target: Target<Token>) {
    let theirs = &r.reference[which];
    let result = attribute(&r.session, &r.call(target)).unwrap();
    let columns = columns(&r.session, &result);
    let number = |value: &Value| value.as_f64().unwrap();
    let of_kind = |kind: Kind, l: usize| columns.iter().filter(move |(c, _)| c.kind == kind && c.layer == Some(l));
    let heads_add_up = r.reference["heads_add_up"].as_bool().unwrap();

    let mut known = 0;
    for (c, value) in &columns {
        let l = c.layer.unwrap_or(0);
        let label = c.label();
        let expected = match c.kind {
            Kind::Embed | Kind::PosEmbed => number(&theirs["decompose_resid"][&label]),
            Kind::Mlp => number(&theirs["decompose_resid"][format!("{l}_mlp_out")]),
            Kind::Head if heads_add_up => number(&theirs["stack_head_results"][&label]),
            Kind::AttnBias if heads_add_up => number(&theirs["b_O"][l]),
            Kind::Head | Kind::AttnBias => continue,
            other => panic!("no {other:?} column in the unit of heads"),
        };
        close(&format!("{which}: {label}"), [*value], &[expected], TOLERANCE);
        known += 1;
    }
    let full = theirs["get_full_resid_decomposition"].as_object().unwrap();
    let their_biases = if full.contains_key("bias") { r.n_layers() - 1 } else { 0 };
    if heads_add_up && columns.iter().any(|(c, _)| c.kind == Kind::AttnBias) {
        assert_eq!(known, full.len() + their_biases, "{which}: a column for every row of theirs");
    }
    for l in 0..r.n_layers() {
        let parts: Vec<f64> = of_kind(Kind::Head, l).chain(of_kind(Kind::AttnBias, l)).map(|(_, v)| *v).collect();
        let attn_out = number(&theirs["decompose_resid"][format!("{l}_attn_out")]);
        close(&format!("{which}: attn_out {l}"), [parts.iter().sum::<f64>()], &[attn_out], TOLERANCE);
        if heads_add_up && of_kind(Kind::AttnBias, l).next().is_none() {
            assert_eq!(number(&theirs["b_O"][l]), 0.0, "{which}: a bias of theirs that we have no column for");
        }
    }
    // their logits are capped where the model caps them
    let logit = if result.after_cap[0].is_nan() { result.certificates[0].measured } else { result.after_cap[0] };
    close(&format!("{which}: logit"), [logit], &[number(&theirs["logit"])], TOLERANCE);
}

macro_rules! as_transformer_lens {
    ($($name:ident),* $(,)?) => {
        $(#[test] fn $name() { check(stringify!($name)); })*

        #[test]
        fn none_is_left_out() {
            let here = [$(stringify!($name)),*];
            for entry in std::fs::read_dir(fixture("parity")).unwrap() {
                let entry = entry.unwrap();
                let name = entry.file_name().into_string().unwrap();
                assert_eq!(here.contains(&&*name), entry.path().join("transformerlens.json").exists(), "{name}");
            }
        }
    };
}

as_transformer_lens!(gpt2, gpt_neox, gptj, opt, phi, llama, mistral, qwen2, gemma2);

/// Both conventions over every position of all prompts.
fn both(name: &str, unit: Unit) -> (Session, [Attribution; 2]) {
    let dir = fixture(name);
    let session = load(&dir).unwrap();
    let results = [Convention::Default, Convention::TransformerLens].map(|convention| {
        let mut call = reference_call(&json(&dir.join("reference.json")));
        call.asked.positions = Positions::All;
        call.options.convention = convention;
        call.options.unit = unit;
        attribute(&session, &call).unwrap_or_else(|e| panic!("{name}: {e}"))
    });
    (session, results)
}

fn each_parity(mut check: impl FnMut(&str)) {
    for entry in std::fs::read_dir(fixture("parity")).unwrap() {
        check(&format!("parity/{}", entry.unwrap().file_name().into_string().unwrap()));
    }
}

#[test]
fn what_is_moved_stays_within_its_layer() {
    each_parity(|name| {
        let (session, [ours, theirs]) = both(name, Unit::Head);
        let listed = |r: &Attribution| {
            r.components.clone().unwrap_or_else(|| Component::all(Unit::Head, &session.transformer.config))
        };
        for row in 0..ours.rows.len() {
            let (a, b) = (ours.certificates[row], theirs.certificates[row]);
            assert!((a.total - b.total).abs() < 1e-9 * (1.0 + a.tolerance * 1e5), "{name}: {a:?} and {b:?}");
            assert_eq!(a.measured, b.measured);
            let sums = |r: &Attribution| {
                let mut sums = vec![0.0; session.transformer.config.n_layers];
                let mut others = Vec::new();
                for (c, value) in listed(r).iter().zip(row_of(r, row)) {
                    match c.kind {
                        Kind::Head | Kind::AttnBias => sums[c.layer.unwrap()] += f64::from(*value),
                        _ => others.push(*value),
                    }
                }
                (sums, others)
            };
            let ((a, kept), (b, still)) = (sums(&ours), sums(&theirs));
            assert_eq!(kept, still, "{name}: embeddings and MLPs");
            close(name, b, &a, 1e-5);
        }
    });
}

#[test]
fn layers_are_the_same_in_both_conventions() {
    for name in ["parity/gpt2", "parity/gptj", "parity/gpt_oss", "parity/gemma2"] {
        let (_, [ours, theirs]) = both(name, Unit::Layer);
        assert_eq!(theirs.components, None);
        close(name, wide(&theirs.values), &wide(&ours.values), 1e-6);
    }
}

#[test]
fn a_column_for_the_bias_appears_where_something_is_moved() {
    // (model, a column by default, a column in TransformerLens's convention)
    for (name, ours, theirs) in [
        ("parity/gpt2", true, true),
        ("parity/gptj", false, true),  // β of the norm alone
        ("parity/qwen2", false, true), // b_V alone
        ("parity/llama", false, false),
    ] {
        let (session, results) = both(name, Unit::Neuron);
        for (result, expected) in results.iter().zip([ours, theirs]) {
            let all = result.components.clone();
            let all = all.unwrap_or_else(|| Component::all(Unit::Neuron, &session.transformer.config));
            assert_eq!(all.iter().any(|c| c.kind == Kind::AttnBias), expected, "{name}");
            assert_eq!(all.len() * result.rows.len(), result.values.len(), "{name}");
        }
    }
}

#[test]
fn sources_sum_to_the_head_in_both_conventions() {
    for name in ["parity/gpt2", "parity/gpt_oss", "parity/gemma2", "parity/qwen2"] {
        let session = load(&fixture(name)).unwrap();
        for convention in [Convention::Default, Convention::TransformerLens] {
            let mut call = reference_call(&json(&fixture(name).join("reference.json")));
            call.options.convention = convention;
            let (_, (heads, result)) =
                with_job(|job| session.sources(&SourcesCall { call, heads: None }, job)).unwrap();
            let all = result.attribution.components.clone();
            let all = all.unwrap_or_else(|| Component::all(Unit::Head, &session.transformer.config));
            for (row, values) in result.values.iter().enumerate() {
                let columns = all.iter().zip(row_of(&result.attribution, row)).filter(|(c, _)| c.kind == Kind::Head);
                let expected: Vec<f64> = columns.map(|(_, v)| f64::from(*v)).collect();
                let n = values.len() / heads.len();
                let sums = values.chunks(n).map(|of_head| wide(of_head).iter().sum::<f64>());
                close(&format!("{name}: {convention:?}"), sums, &expected, TOLERANCE);
            }
        }
    }
}

#[test]
fn clipped_values_have_no_common_part() {
    let session = load(&fixture("variants/olmo_bias")).unwrap();
    let mut call = reference_call(&json(&fixture("variants/olmo_bias").join("reference.json")));
    call.options.convention = Convention::TransformerLens;
    let refused = error(attribute(&session, &call));
    assert_eq!(
        (refused.code(), &refused.details()["argument"]),
        ("INVALID_ARGUMENT", &serde_json::json!("convention"))
    );
    assert!(refused.to_string().contains("clips"), "{refused}");
}
