//! Circuits of weights that were written by hand: every expected number follows from the construction.
//!
//! Eight tokens, d_model 16: dimensions 0 to 7 say which token stands here, 8 to 15 which token stood before (`PREVIOUS`).
//! Embedding and unembedding are the identity on the first eight. No layer's norm changes a number (γ = 1).

mod common;

use common::*;
use logit_prism_core::circuit::*;
use logit_prism_core::session::Session;
use std::collections::BTreeSet;

const D: usize = 16;
const V: usize = 8;
const E: usize = 8;
const PREVIOUS: usize = 8;

/// W_Q, W_K, W_V [d_model, e] and W_O [e, d_model] as (row, column, value).
type Entries = Vec<(usize, usize, f32)>;
type Head = [Entries; 4];

/// Token i of the first slot ↔ number i of the head.
fn identity(from: usize, to: usize, value: f32) -> Entries {
    (0..V).map(|i| (from + i, to + i, value)).collect()
}

/// Looks from the first slot at `key`; writes what it reads in the first slot, times `value`, to `to`.
fn moving(key: usize, to: usize, value: f32) -> Head {
    [identity(0, 0, 1.0), identity(key, 0, 1.0), identity(0, 0, 1.0), identity(0, to, value)]
}

fn tensor(shape: [usize; 2], entries: impl IntoIterator<Item = (usize, usize, f32)>) -> (String, Vec<usize>, Vec<u8>) {
    let mut values = vec![0f32; shape[0] * shape[1]];
    entries.into_iter().for_each(|(i, j, value)| values[i * shape[1] + j] = value);
    ("F32".into(), shape.to_vec(), values.iter().flat_map(|v| v.to_le_bytes()).collect())
}

/// A llama of these layers of three heads; MLPs of zeros.
fn llama(layers: &[[Head; 3]]) -> Session {
    let dir = TempDir::new();
    let mut config = json(&fixture("parity/llama/config.json"));
    for (key, value) in [
        ("hidden_size", D),
        ("head_dim", E),
        ("num_attention_heads", 3),
        ("num_key_value_heads", 3),
        ("num_hidden_layers", layers.len()),
        ("vocab_size", V),
        ("intermediate_size", 2),
    ] {
        config[key] = value.into();
    }
    dir.write("config.json", config.to_string());
    let ones = || ("F32".into(), vec![D], 1f32.to_le_bytes().repeat(D));
    let mut tensors = Tensors::new();
    for name in ["model.embed_tokens", "lm_head"] {
        tensors.insert(format!("{name}.weight"), tensor([V, D], identity(0, 0, 1.0)));
    }
    tensors.insert("model.norm.weight".into(), ones());
    for (l, heads) in layers.iter().enumerate() {
        let mut add = |name: &str, tensor| tensors.insert(format!("model.layers.{l}.{name}.weight"), tensor);
        for (i, name) in ["q_proj", "k_proj", "v_proj"].into_iter().enumerate() {
            // stored a row per output
            let entries = heads
                .iter()
                .enumerate()
                .flat_map(|(h, head)| head[i].iter().map(move |(row, column, value)| (h * E + column, *row, *value)));
            add(&format!("self_attn.{name}"), tensor([3 * E, D], entries));
        }
        let entries = heads
            .iter()
            .enumerate()
            .flat_map(|(h, head)| head[3].iter().map(move |(row, column, value)| (*column, h * E + row, *value)));
        add("self_attn.o_proj", tensor([D, 3 * E], entries));
        add("mlp.gate_proj", tensor([2, D], []));
        add("mlp.up_proj", tensor([2, D], []));
        add("mlp.down_proj", tensor([D, 2], []));
        add("input_layernorm", ones());
        add("post_attention_layernorm", ones());
    }
    write_tensors(&dir.join("model.safetensors"), &tensors);
    load(&dir.0).unwrap()
}

/// Layer 0: L0H0 writes what it reads to the other slot, L0H1 copies, L0H2 writes the opposite with the same QK.
/// Layer 1: L1H0 looks for its own token in the other slot and copies what stands here (with L0H0: induction),
/// L1H1 turns token 2 into three times token 5 and its QK has one pair of numbers, L1H2 is zeros.
fn known() -> Session {
    let rank_one = [vec![(0, 0, 1.0)], vec![(1, 4, 1.0)], vec![(2, 0, 1.0)], vec![(0, 5, 3.0)]];
    let zeros = [vec![], vec![], vec![], vec![]];
    llama(&[
        [moving(0, PREVIOUS, 1.0), moving(0, 0, 1.0), moving(0, 0, -1.0)],
        [moving(PREVIOUS, 0, 1.0), rank_one, zeros],
    ])
}

fn spec(layer: usize, head: usize, kind: CircuitKind) -> CircuitSpec {
    CircuitSpec { layer, head, kind, folding: Folding::Folded }
}

fn ov(layer: usize, head: usize) -> CircuitSpec {
    spec(layer, head, CircuitKind::Ov)
}

fn qk(layer: usize, head: usize, first: usize, last: usize) -> CircuitSpec {
    spec(layer, head, CircuitKind::Qk(Offsets { range: Some(first..=last), length: None }))
}

fn copying(session: &Session, spec: &CircuitSpec, sample: Option<usize>, masked: &[u32]) -> Copying {
    let call = CopyingCall { sample, seed: 1, masked: masked.iter().copied().collect() };
    with_job(|job| session.circuit_copying(spec, &call, job)).unwrap()
}

#[test]
fn copying_heads_and_their_opposites() {
    let session = known();
    let copies = copying(&session, &ov(0, 1), None, &[]);
    assert_eq!((copies.eigenvalue_share, copies.top1, copies.mean_rank, copies.sampled), (1.0, 1.0, 1.0, 8));
    assert!(copies.eigenvalues.iter().all(|l| (l.re - 1.0).abs() < 1e-12 && l.im.abs() < 1e-12));
    let opposite = copying(&session, &ov(0, 2), None, &[]);
    assert_eq!((opposite.eigenvalue_share, opposite.top1, opposite.mean_rank), (-1.0, 0.0, 8.0));
    // what it writes is not what tokens are read from: all logits are equal, and a tie is no copy
    let elsewhere = copying(&session, &ov(0, 0), None, &[]);
    assert_eq!((elsewhere.top1, elsewhere.mean_rank), (0.0, 8.0));
    assert!(elsewhere.eigenvalue_share.is_nan());

    // reads (0.1, 0.2, 0.3) and writes (1, 1, −1): orthogonal, but for the rounding of 0.3 in f32
    let rounded = [
        vec![(0, 0, 1.0)],
        vec![(0, 0, 1.0)],
        vec![(0, 0, 0.1), (1, 0, 0.2), (2, 0, 0.3)],
        vec![(0, 0, 1.0), (0, 1, 1.0), (0, 2, -1.0)],
    ];
    let session_of_rounded = llama(&[[rounded, moving(0, 0, 1.0), moving(0, 0, 1.0)]]);
    let nothing = copying(&session_of_rounded, &ov(0, 0), None, &[]);
    assert!(nothing.eigenvalues[0].norm() > 0.0 && nothing.eigenvalue_share.is_nan());

    let some = copying(&session, &ov(0, 2), Some(5), &[0, 7]);
    assert_eq!((some.sampled, some.mean_rank), (5, 6.0), "of six tokens that compete");
}

#[test]
fn the_same_qk_and_opposite_ov() {
    let session = known();
    let [a, b] = [1, 2].map(|h| session.circuit_matrix(&ov(0, h)).unwrap());
    assert_eq!(a, -b);
    let [a, b] = [1, 2].map(|h| session.circuit_matrix(&qk(0, h, 3, 3)).unwrap());
    assert_eq!(a, b);
}

#[test]
fn a_circuit_of_rank_one() {
    let session = known();
    let spectrum = session.circuit_spectrum(&ov(1, 1)).unwrap();
    close("singular", spectrum.singular_values, &[3.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0], 1e-12);
    assert!((spectrum.norm - 3.0).abs() < 1e-12 && spectrum.eigenvalues.iter().all(|l| l.norm() < 1e-6));
    let vectors = session.circuit_vectors(&ov(1, 1), 1).unwrap();
    let unit = |at: usize| (0..D).map(|i| f64::from(i == at)).collect::<Vec<_>>();
    close("read", vectors.left.iter().copied(), &unit(2), 1e-12);
    close("written", vectors.right.iter().copied(), &unit(5), 1e-12);

    let rows = |masked: &[u32]| {
        let masked = masked.iter().copied().collect();
        with_job(|job| session.circuit_rows(&ov(1, 1), &[2, 3], 2, &masked, job)).unwrap()
    };
    // token 5 gets 3, the others 0, the mean of 3/8 taken off
    let found = rows(&[]);
    let values =
        |row: &[logit_prism_core::attribution::Scored]| row.iter().map(|s| (s.token, s.value)).collect::<Vec<_>>();
    assert_eq!(values(&found[0].top), [(5, 2.625), (0, -0.375)]);
    assert_eq!(values(&found[0].bottom), [(0, -0.375), (1, -0.375)]);
    assert_eq!(values(&found[1].top), [(0, 0.0), (1, 0.0)]);
    assert_eq!(values(&rows(&[5, 0])[0].top), [(1, -0.375), (2, -0.375)]);
}

#[test]
fn rotary_scores_turn_with_the_offset() {
    let session = known();
    // the query is number 0 of the head, the key number 4: one pair at frequency 1, so a key δ before scores sin δ
    for offset in [0, 1, 5] {
        let found = session.circuit_scores(&qk(1, 1, offset, offset), &[0], &[1, 2]).unwrap();
        close("sin δ", found.iter().copied(), &[(offset as f64).sin(), 0.0], 1e-12);
    }
    let mean = (1..=3).map(|offset| f64::from(offset).sin()).sum::<f64>() / 3.0;
    let found = session.circuit_scores(&qk(1, 1, 1, 3), &[0], &[1]).unwrap();
    close("mean", found.iter().copied(), &[mean], 1e-12);
    let row = with_job(|job| session.circuit_rows(&qk(1, 1, 1, 1), &[0], 1, &BTreeSet::new(), job)).unwrap().remove(0);
    assert_eq!((row.token, row.top[0].token), (0, 1));
    assert!((f64::from(row.top[0].value) - 1f64.sin()).abs() < 1e-7 && row.bottom[0].value == 0.0);
}

#[test]
fn an_induction_pair_composes_by_keys() {
    let session = known();
    let scores = |kind, seed| {
        let call = CompositionCall { kind, folding: Folding::Folded, baseline: 200, seed };
        with_job(|job| session.composition(&call, job)).unwrap()
    };
    let n = 6;
    let at = |found: &Composition, from: usize, to: usize| f64::from(found.values[from * n + to]);
    // ‖OV₁ QK₂ᵀ‖: both are the identity between two slots of eight, the product too: √8 / (√8 √8)
    let aligned = 1.0 / 8f64.sqrt();
    let keys = scores(Composed::K, 0);
    close("L0H0 → L1H0", [at(&keys, 0, 3)], &[aligned], 1e-6);
    // copying heads write where its queries read, not its keys
    assert!(at(&keys, 1, 3).abs() < 1e-7 && at(&keys, 2, 3).abs() < 1e-7);
    let queries = scores(Composed::Q, 0);
    assert!(at(&queries, 0, 3).abs() < 1e-7);
    close("L0H1 → L1H0 by queries", [at(&queries, 1, 3), at(&queries, 2, 3)], &[aligned, aligned], 1e-6);
    let values = scores(Composed::V, 0);
    assert!(at(&values, 0, 3).abs() < 1e-7);
    // the rank-one head reads one of eight directions: 3 / (√8 · 3)
    close("by values", [at(&values, 1, 3), at(&values, 1, 4)], &[aligned, aligned], 1e-6);
    // a head of zeros has no part in anything; heads of one layer and later ones do not feed
    assert_eq!(at(&values, 1, 5), 0.0);
    for (from, to) in (0..n).flat_map(|from| (0..n).map(move |to| (from, to))) {
        assert_eq!(at(&values, from, to).is_nan(), from / 3 >= to / 3, "{from} {to}");
    }

    // unrelated matrices: one side's directions are uniform, so the mean square is 1/d exactly; 200 pairs leave little noise
    let Baseline { mean, std, samples } = keys.baseline;
    let square = mean * mean + std * std * (samples as f64 - 1.0) / samples as f64;
    assert!((square * D as f64 - 1.0).abs() < 0.1, "{square}");
    assert!(samples == 200 && std > 0.0 && std < mean);
    assert_eq!(keys.baseline, values.baseline, "the same shapes and seed");
    assert_ne!(keys.baseline, scores(Composed::K, 1).baseline);
}

#[test]
fn what_there_is_not_is_refused() {
    let session = known();
    let code = |spec: &CircuitSpec| error(session.circuit_notes(spec)).code();
    assert_eq!(code(&ov(2, 0)), "INVALID_ARGUMENT");
    assert_eq!(code(&ov(0, 3)), "INVALID_ARGUMENT");
    assert_eq!(code(&qk(0, 0, 0, 64)), "INVALID_ARGUMENT");
    assert_eq!(code(&qk(0, 0, 3, 2)), "INVALID_ARGUMENT");
    let of_length = |length| CircuitKind::Qk(Offsets { range: None, length: Some(length) });
    assert_eq!(code(&spec(0, 0, of_length(9))), "INVALID_ARGUMENT", "the angles are the same at every length");
    assert_eq!(error(session.circuit_vectors(&ov(0, 0), 9)).code(), "INVALID_ARGUMENT");
    assert_eq!(error(session.circuit_scores(&ov(0, 0), &[8], &[0])).code(), "TOKEN_RANGE");
    let rows = |k, masked: &[u32]| {
        with_job(|job| session.circuit_rows(&ov(0, 0), &[0], k, &masked.iter().copied().collect(), job))
    };
    assert_eq!(error(rows(0, &[])).code(), "INVALID_ARGUMENT");
    assert_eq!(error(rows(8, &[3])).code(), "INVALID_ARGUMENT");
    assert_eq!(error(rows(1, &[8])).code(), "TOKEN_RANGE");
    let none = CopyingCall { sample: None, seed: 0, masked: (0..8).collect() };
    assert_eq!(error(with_job(|job| session.circuit_copying(&ov(0, 0), &none, job))).code(), "INVALID_ARGUMENT");
    let one = CompositionCall { kind: Composed::V, folding: Folding::Raw, baseline: 1, seed: 0 };
    assert_eq!(error(with_job(|job| session.composition(&one, job))).code(), "INVALID_ARGUMENT");

    // no rotary positions, no offset
    let gpt2 = load(&fixture("gpt2")).unwrap();
    assert_eq!(error(gpt2.circuit_notes(&qk(0, 0, 1, 1))).code(), "INVALID_ARGUMENT");
    let notes = gpt2.circuit_notes(&spec(0, 0, CircuitKind::Qk(Offsets::default()))).unwrap().join("\n");
    assert!(notes.contains("γ and centring") && notes.contains("same at every offset"), "{notes}");
    // clipped values have no matrix
    let mpt = load(&fixture("variants/mpt_6_heads")).unwrap();
    assert!(mpt.transformer.config.clip_qkv.is_some());
    assert_eq!(error(mpt.circuit_notes(&ov(0, 0))).code(), "CONFIG_UNSUPPORTED");
    let any = CompositionCall { kind: Composed::V, folding: Folding::Folded, baseline: 2, seed: 0 };
    assert_eq!(error(with_job(|job| mpt.composition(&any, job))).code(), "CONFIG_UNSUPPORTED");
    // a length where the angles depend on it
    let dynamic = load(&fixture("variants/llama_rope_dynamic")).unwrap();
    let at = |length| {
        let kind = CircuitKind::Qk(Offsets { range: Some(2..=2), length });
        dynamic.circuit_matrix(&spec(0, 0, kind)).unwrap()
    };
    assert_eq!(at(None), at(Some(16)));
    assert_ne!(at(None), at(Some(32)));
}

#[test]
fn weights_that_are_not_finite_are_refused() {
    let dir = changed("parity/llama", |tensors| {
        edit(tensors, "model.layers.0.self_attn.v_proj.weight", |values| values[3] = f32::NAN);
    });
    let session = load(&dir.0).unwrap();
    assert_eq!(error(session.circuit_spectrum(&ov(0, 0))).code(), "NOT_FINITE");
    let call = CompositionCall { kind: Composed::V, folding: Folding::Folded, baseline: 2, seed: 0 };
    assert_eq!(error(with_job(|job| session.composition(&call, job))).code(), "NOT_FINITE");
}

#[test]
fn a_call_that_is_cancelled_stops() {
    let session = known();
    let cancel = logit_prism_core::cancel::Cancel::default();
    cancel.cancel();
    let job = logit_prism_core::run::Job { cancel: &cancel, progress: &|_, _| {} };
    let call = CopyingCall { sample: None, seed: 0, masked: BTreeSet::new() };
    assert_eq!(error(session.circuit_copying(&ov(0, 0), &call, &job)).code(), "ABORTED");
    let call = CompositionCall { kind: Composed::V, folding: Folding::Folded, baseline: 2, seed: 0 };
    assert_eq!(error(session.composition(&call, &job)).code(), "ABORTED");
}
