//! Circuits from weights against dense float64 matrices: `test/fixtures/circuits.json` (numpy on what the modules of
//! transformers answer), and the scores and head outputs of a forward pass of transformers.

mod common;

use common::*;
use logit_prism_core::circuit::*;
use logit_prism_core::session::Session;
use nalgebra::DMatrix;
use serde_json::Value;
use std::collections::BTreeSet;

const TOLERANCE: f64 = 1e-6;

fn spec(layer: usize, head: usize, kind: CircuitKind) -> CircuitSpec {
    CircuitSpec { layer, head, kind, folding: Folding::Folded }
}

fn qk(first: usize, last: usize) -> CircuitKind {
    CircuitKind::Qk(Offsets { range: Some(first..=last), length: None })
}

fn reference() -> Value {
    json(&fixture("circuits.json"))
}

/// Every number has one of the other list beside it: eigenvalues of equal magnitude come in any order.
#[track_caller]
fn same_set(what: &str, found: &[[f64; 2]], expected: &Value, tolerance: f64) {
    let expected: Vec<[f64; 2]> = serde_json::from_value(expected.clone()).unwrap();
    assert_eq!(found.len(), expected.len(), "{what}");
    let size = 1.0 + expected.iter().map(|[re, im]| re.hypot(*im)).fold(0.0, f64::max);
    let mut left = expected;
    for [re, im] in found {
        let distance = |other: &[f64; 2]| (re - other[0]).hypot(im - other[1]);
        let nearest = (0..left.len()).min_by(|i, j| distance(&left[*i]).total_cmp(&distance(&left[*j]))).unwrap();
        assert!(distance(&left[nearest]) <= tolerance * size, "{what}: {re} + {im}i, nearest {:?}", left[nearest]);
        left.swap_remove(nearest);
    }
}

fn matrix(value: &Value) -> DMatrix<f64> {
    let rows: Vec<Vec<f64>> = serde_json::from_value(value.clone()).unwrap();
    DMatrix::from_fn(rows.len(), rows[0].len(), |i, j| rows[i][j])
}

fn pairs(values: &[nalgebra::Complex<f64>]) -> Vec<[f64; 2]> {
    values.iter().map(|v| [v.re, v.im]).collect()
}

#[test]
fn spectra_of_factors_are_those_of_their_product() {
    let cases = reference();
    for case in cases["linear_algebra"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let factored = Factored { a: matrix(&case["a"]), b: matrix(&case["b"]) };
        let singular = numbers(&case["singular"]);
        let size = singular[0];
        let rank = singular.len();
        assert_eq!(factored.rank(), rank, "{name}");
        close(name, [factored.norm() / size], &[case["norm"].as_f64().unwrap() / size], 1e-11);
        let relative = |values: &[f64]| values.iter().map(|v| v / size).collect::<Vec<_>>();
        close(name, relative(&factored.singular_values().unwrap()), &relative(&singular), 1e-11); // the file has 12 digits
        let found = factored.eigenvalues().unwrap();
        assert!(found.windows(2).all(|w| w[0].norm() >= w[1].norm()), "{name}: largest first");
        // eigenvalues that coincide are known to the root of the precision
        same_set(name, &pairs(&found), &case["eigenvalues"], 1e-7 * size);

        let vectors = factored.singular_vectors(2.min(rank)).unwrap();
        let m = factored.product();
        for (i, value) in vectors.values.iter().enumerate() {
            let (left, right) = (vectors.left.row(i), vectors.right.row(i));
            assert!((left * &m - right * *value).amax() <= 1e-12 * size, "{name}: left[{i}] M = σ right[{i}]");
            assert!((left.norm() - 1.0).abs() < 1e-12 && (right.norm() - 1.0).abs() < 1e-12, "{name}");
            assert!(left.max() >= -left.min(), "{name}: the sign is chosen");
        }
    }
}

#[test]
fn a_matrix_without_full_eigenvectors_and_one_of_zeros() {
    // a Jordan block: both eigenvalues 2, one eigenvector; singular values of [[2, 1], [0, 2]]: sqrt((9 ± √17) / 2)
    let jordan = Factored { a: DMatrix::identity(2, 2), b: DMatrix::from_row_slice(2, 2, &[2.0, 1.0, 0.0, 2.0]) };
    for value in jordan.eigenvalues().unwrap() {
        assert!((value.re - 2.0).abs() < 1e-7 && value.im.abs() < 1e-7, "{value}");
    }
    let expected = [((9.0 + 17f64.sqrt()) / 2.0).sqrt(), ((9.0 - 17f64.sqrt()) / 2.0).sqrt()];
    close("Jordan", jordan.singular_values().unwrap(), &expected, 1e-12);
    // nilpotent: every eigenvalue 0, though the matrix is not
    let nilpotent = Factored { a: DMatrix::identity(3, 3), b: DMatrix::from_fn(3, 3, |i, j| f64::from(j == i + 1)) };
    assert!(nilpotent.eigenvalues().unwrap().iter().all(|v| v.norm() < 1e-5));
    let zero = Factored { a: DMatrix::zeros(4, 2), b: DMatrix::zeros(2, 4) };
    assert_eq!(zero.singular_values().unwrap(), [0.0, 0.0]);
    assert!(zero.eigenvalues().unwrap().iter().all(|v| v.norm() == 0.0) && zero.norm() == 0.0);
    let broken = Factored { a: DMatrix::from_element(2, 2, f64::NAN), b: DMatrix::identity(2, 2) };
    assert_eq!(error(broken.eigenvalues()).code(), "NOT_FINITE");
    assert_eq!(error(broken.singular_values()).code(), "NOT_FINITE");
}

fn check_spectrum(what: &str, session: &Session, spec: &CircuitSpec, expected: &Value) {
    let found = session.circuit_spectrum(spec).unwrap();
    close(what, [found.norm], &[expected["norm"].as_f64().unwrap()], TOLERANCE);
    close(what, found.singular_values, &numbers(&expected["singular"]), TOLERANCE);
    same_set(what, &pairs(&found.eigenvalues), &expected["eigenvalues"], 1e-5);
}

fn check_head(name: &str, session: &Session, expected: &Value) {
    let [layer, head] = ["layer", "head"].map(|key| expected[key].as_u64().unwrap() as usize);
    let what = format!("{name} L{layer}H{head}");
    let ov = spec(layer, head, CircuitKind::Ov);
    check_spectrum(&what, session, &ov, &expected["ov"]);
    let raw = CircuitSpec { folding: Folding::Raw, ..ov.clone() };
    let norm = session.circuit_spectrum(&raw).unwrap().norm;
    close(&what, [norm], &numbers(&expected["raw"]["ov"]), TOLERANCE);

    let call = CopyingCall { sample: None, seed: 0, masked: BTreeSet::new() };
    let copying = with_job(|job| session.circuit_copying(&ov, &call, job)).unwrap();
    same_set(&what, &pairs(&copying.eigenvalues), &expected["eigenvalues"], 1e-5);
    let measures = [copying.eigenvalue_share, copying.top1, copying.mean_rank];
    close(&what, measures, &["share", "top1", "rank"].map(|key| expected[key].as_f64().unwrap()), 1e-5);
    assert_eq!(copying.sampled, session.transformer.config.d_vocab);

    let n = session.transformer.config.d_vocab;
    let row = with_job(|job| session.circuit_rows(&ov, &[7], n, &BTreeSet::new(), job)).unwrap().remove(0);
    assert!(row.top.windows(2).all(|w| w[0].value >= w[1].value) && row.token == 7);
    assert!(row.bottom.windows(2).all(|w| w[0].value <= w[1].value));
    let mut all = vec![f64::NAN; n];
    row.top.iter().for_each(|s| all[s.token as usize] = f64::from(s.value));
    close(&what, all.clone(), &numbers(&expected["row"]), 1e-5);
    row.bottom.iter().for_each(|s| assert_eq!(all[s.token as usize], f64::from(s.value)));

    let turns = session.transformer.config.rotary(layer).is_some();
    let qk_of = |first, last| spec(layer, head, if turns { qk(first, last) } else { qk_default() });
    if session.transformer.config.qk_norm.is_some() {
        let refused = error(session.circuit_spectrum(&qk_of(0, 0)));
        assert!(refused.code() == "CONFIG_UNSUPPORTED" && refused.to_string().contains("norm"), "{refused}");
        return;
    }
    for (key, first, last) in [("0", 0, 0), ("1", 1, 1), ("3", 3, 3), ("mean", 0, 3)] {
        check_spectrum(&format!("{what} offset {key}"), session, &qk_of(first, last), &expected["qk"][key]);
    }
    let found = session.circuit_scores(&qk_of(1, 1), &[3, 50], &[4, 99]).unwrap();
    close(&what, found.transpose().iter().copied(), &numbers(&expected["scores"]), 1e-5);
    let found = with_job(|job| session.circuit_rows(&qk_of(1, 1), &[3], n, &BTreeSet::new(), job)).unwrap().remove(0);
    let score = found.top.iter().find(|s| s.token == 99).unwrap().value;
    close(&what, [f64::from(score)], &numbers(&expected["scores"])[1..2], 1e-5);
    let raw = CircuitSpec { folding: Folding::Raw, ..qk_of(0, 0) };
    close(&what, [session.circuit_spectrum(&raw).unwrap().norm], &numbers(&expected["raw"]["qk"]), TOLERANCE);
}

fn qk_default() -> CircuitKind {
    CircuitKind::Qk(Offsets::default())
}

fn check_composition(name: &str, session: &Session, expected: &Value) {
    for (key, kind) in [("Q", Composed::Q), ("K", Composed::K), ("V", Composed::V)] {
        let call = CompositionCall { kind, folding: Folding::Folded, baseline: 20, seed: 3 };
        let found = with_job(|job| session.composition(&call, job));
        if kind != Composed::V && session.transformer.config.qk_norm.is_some() {
            assert_eq!(error(found).code(), "CONFIG_UNSUPPORTED", "{name}");
            continue;
        }
        let found = found.unwrap();
        let values = wide(&found.values).into_iter().map(|v| if v.is_nan() { -1.0 } else { v });
        close(&format!("{name} {key}"), values, &numbers(&expected[key]), 1e-5);
        assert_eq!(found.heads.len() * found.heads.len(), found.values.len());
        assert_eq!(found.heads[5].label(), "L1H1");
    }
}

macro_rules! models {
    ($($name:ident),*) => {
        $(#[test]
        fn $name() {
            let name = stringify!($name);
            let session = load(&fixture(&format!("parity/{name}"))).unwrap();
            let expected = &reference()["models"][name];
            let heads = expected["heads"].as_array().unwrap();
            let config = &session.transformer.config;
            assert_eq!(heads.len(), config.n_layers * config.n_heads);
            heads.iter().for_each(|head| check_head(name, &session, head));
            check_composition(name, &session, &expected["composition"]);
        })*

        #[test]
        fn every_model_of_the_reference_is_checked() {
            let reference = reference();
            let mut checked = vec![$(stringify!($name)),*];
            checked.sort_unstable();
            let known: Vec<&String> = reference["models"].as_object().unwrap().keys().collect();
            assert_eq!(checked, known);
        }
    };
}

models!(gpt2, llama, gptj, gemma2, gpt_neox, bloom, granite, falcon, olmo2);

/// Scores of a forward pass of transformers from the normalised stream and the circuit at each offset, and what heads
/// wrote from the pattern and OV. These families have no bias in attention or in the norm before it.
#[test]
fn circuits_give_the_scores_and_writes_of_a_run() {
    for name in ["llama", "gemma2", "granite"] {
        let hooks = read_tensors(&fixture(&format!("parity/{name}/hooks.safetensors")));
        let session = load(&fixture(&format!("parity/{name}"))).unwrap();
        let config = &session.transformer.config;
        let (t, d) = (9, config.d_model);
        let rows = |name: &str, columns: usize| DMatrix::from_row_slice(t, columns, &stored(&hooks, name));
        for l in 0..config.n_layers {
            // the stream, normalised, before γ
            let x = rows(&format!("0/blocks.{l}.ln1.hook_normalized"), d);
            let scores = stored(&hooks, &format!("0/blocks.{l}.attn.hook_attn_scores"));
            let pattern = stored(&hooks, &format!("0/blocks.{l}.attn.hook_pattern"));
            let written = stored(&hooks, &format!("0/blocks.{l}.attn.hook_result"));
            for h in 0..config.n_heads {
                let mut found = DMatrix::zeros(t, t);
                for offset in 0..t {
                    let circuit = session.circuit_matrix(&spec(l, h, qk(offset, offset))).unwrap();
                    let all = &x * circuit * x.transpose() * config.attention_scale[l];
                    (offset..t).for_each(|q| found[(q, q - offset)] = all[(q, q - offset)]);
                }
                for (q, k) in (0..t).flat_map(|q| (0..=q).map(move |k| (q, k))) {
                    let expected = scores[(h * t + q) * t + k];
                    if expected.is_finite() {
                        let score: f64 = found[(q, k)];
                        let capped = config.score_cap.map_or(score, |cap| cap * (score / cap).tanh());
                        close(&format!("{name} L{l}H{h} {q} {k}"), [capped], &[expected], 2e-5);
                    }
                }
                let ov = session.circuit_matrix(&spec(l, h, CircuitKind::Ov)).unwrap();
                let from = DMatrix::from_row_slice(t, t, &pattern[h * t * t..(h + 1) * t * t]);
                let mut wrote = from * &x * ov;
                if session.transformer.blocks[l].ln1_post.is_some() {
                    let scale = stored(&hooks, &format!("0/blocks.{l}.ln1_post.hook_scale"));
                    wrote.row_iter_mut().zip(scale).for_each(|(mut row, scale)| row /= scale);
                }
                let n = config.n_heads;
                let expected: Vec<f64> =
                    (0..t).flat_map(|q| written[(q * n + h) * d..(q * n + h + 1) * d].to_vec()).collect();
                close(&format!("{name} L{l}H{h} writes"), wrote.transpose().iter().copied(), &expected, 2e-5);
            }
        }
    }
}

#[test]
fn notes_say_what_was_folded_in_and_left_out() {
    let holds = |name: &str, spec: &CircuitSpec, expected: &[&str]| {
        let notes = load(&fixture(name)).unwrap().circuit_notes(spec).unwrap().join("\n");
        expected.iter().for_each(|part| assert!(notes.contains(part), "{name}: no {part:?} in\n{notes}"));
    };
    let ov = spec(0, 3, CircuitKind::Ov);
    let post = "γ of the norm after attention folded into W_O: what is written is known up to that norm's scale";
    let of_group = "W_V is that of key/value head 1, shared by heads 2 to 3";
    holds("parity/gemma2", &ov, &["γ of the norm before attention folded into W_V", post, of_group]);
    let cap = "5 · tanh(score / 5)";
    holds("parity/gemma2", &spec(0, 0, qk(4, 4)), &[cap, "looks back 3 positions at most", "4 positions before"]);
    holds("parity/gemma2", &spec(0, 0, qk(0, 2)), &["the mean of the turns of keys 0 to 2 positions before"]);
    holds(
        "parity/granite",
        &ov,
        &["the block multiplies what it writes", "the token embedding is multiplied", "logits are"],
    );
    holds("parity/bloom", &ov, &["behind its norm", "γ and centring of the final norm", "the value bias is left out"]);
    holds("parity/bloom", &spec(0, 0, qk_default()), &["ALiBi", "the circuit is the same at every offset"]);
    holds("parity/gpt2", &CircuitSpec { folding: Folding::Raw, ..ov }, &["norms are left out"]);
    let dynamic = spec(0, 0, qk(1, 1));
    holds("variants/llama_rope_dynamic", &dynamic, &["dynamic NTK angles of a prompt of 16 tokens"]);
}
