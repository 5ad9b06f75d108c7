//! Verdicts on weights that were written by hand: every expected number follows from the construction.
//!
//! One dimension of the stream holds 1,000 at every position, so that every norm divides by very nearly the same number,
//! `SCALE`, and what is read and written is linear. The target's logit difference is what the stream holds in `ANSWER`.

mod common;

use common::*;
use logit_prism_core::attribution::{Component, OnViolation, Unit};
use logit_prism_core::causal::{Causal, Verdict};
use logit_prism_core::session::{AblateAt, AblateCall, Session, SetTo};

const D: usize = 16;
const V: usize = 8;
const E: usize = 8;
const ANSWER: usize = 8;
const FEATURE: usize = 9;
const ONE: usize = 15;
const SIZE: f32 = 1000.0;
const SCALE: f32 = SIZE / 4.0; // sqrt(SIZE² / 16)

/// (row, column, value)
type Entries = Vec<(usize, usize, f32)>;

/// W_Q and W_K, W_V, W_O.
#[derive(Default, Clone)]
struct Head {
    looks: Entries,
    reads: Entries,
    writes: Entries,
}

/// A layer of two heads, and what its MLP writes: `value` of what it reads in one dimension, to another.
#[derive(Default, Clone)]
struct Layer {
    heads: [Head; 2],
    mlp: Option<(usize, usize, f32)>,
}

/// Looks at all positions alike; writes the sum of `weight` times what it reads in each dimension, 1 for `ONE`.
fn moving(read: &[(usize, f32)], to: usize) -> Head {
    let size = |from: usize| if from == ONE { SIZE } else { 1.0 };
    let reads = read.iter().map(|(from, weight)| (*from, 0, weight / size(*from))).collect();
    Head { looks: vec![], reads, writes: vec![(0, to, SCALE)] }
}

fn tensor(shape: [usize; 2], entries: &[(usize, usize, f32)], transposed: bool) -> (String, Vec<usize>, Vec<u8>) {
    let mut values = vec![0f32; shape[0] * shape[1]];
    for (i, j, value) in entries {
        let (row, column) = if transposed { (*j, *i) } else { (*i, *j) };
        values[row * shape[1] + column] = *value;
    }
    ("F32".into(), shape.to_vec(), values.iter().flat_map(|v| v.to_le_bytes()).collect())
}

/// A llama of these layers; token t holds 1 in dimension t, and `extra`.
fn llama(layers: &[Layer], extra: &[(usize, f32)]) -> Session {
    let dir = TempDir::new();
    let mut config = json(&fixture("parity/llama/config.json"));
    for (key, value) in [
        ("hidden_size", D),
        ("head_dim", E),
        ("num_attention_heads", 2),
        ("num_key_value_heads", 2),
        ("num_hidden_layers", layers.len()),
        ("vocab_size", V),
        ("intermediate_size", 1),
    ] {
        config[key] = value.into();
    }
    dir.write("config.json", config.to_string());
    let ones = || ("F32".into(), vec![D], 1f32.to_le_bytes().repeat(D));
    let mut tensors = Tensors::new();
    let of_token =
        |t: usize| [(t, t, 1.0), (t, ONE, SIZE)].into_iter().chain(extra.iter().map(move |(d, v)| (t, *d, *v)));
    let embed: Entries = (0..V).flat_map(of_token).collect();
    tensors.insert("model.embed_tokens.weight".into(), tensor([V, D], &embed, false));
    tensors.insert("lm_head.weight".into(), tensor([V, D], &[(2, ANSWER, SCALE)], false));
    tensors.insert("model.norm.weight".into(), ones());
    for (l, layer) in layers.iter().enumerate() {
        let mut add = |name: &str, tensor| tensors.insert(format!("model.layers.{l}.{name}.weight"), tensor);
        // stored a row per output
        let beside = |of: fn(&Head) -> &Entries| -> Entries {
            let head = |(h, head)| of(head).iter().map(move |(i, j, v)| (*i, h * E + j, *v)).collect::<Entries>();
            layer.heads.iter().enumerate().flat_map(head).collect()
        };
        add("self_attn.q_proj", tensor([2 * E, D], &beside(|h| &h.looks), true));
        add("self_attn.k_proj", tensor([2 * E, D], &beside(|h| &h.looks), true));
        add("self_attn.v_proj", tensor([2 * E, D], &beside(|h| &h.reads), true));
        let writes = layer.heads.iter().enumerate();
        let writes: Entries =
            writes.flat_map(|(h, head)| head.writes.iter().map(move |(i, j, v)| (h * E + i, *j, *v))).collect();
        add("self_attn.o_proj", tensor([D, 2 * E], &writes, true));
        // the gate is 20 everywhere, where silu is the identity
        let (from, to, value) = layer.mlp.unwrap_or((0, 0, 0.0));
        add("mlp.gate_proj", tensor([1, D], &[(ONE, 0, 5.0)], true));
        add("mlp.up_proj", tensor([1, D], &[(from, 0, 1.0)], true));
        add("mlp.down_proj", tensor([D, 1], &[(0, to, value * SCALE / 20.0)], true));
        add("input_layernorm", ones());
        add("post_attention_layernorm", ones());
    }
    write_tensors(&dir.join("model.safetensors"), &tensors);
    load(&dir.0).unwrap()
}

fn zeroing(prompt: &[u32], at: AblateAt) -> AblateCall {
    AblateCall {
        asked: asked(vec![prompt.into()]),
        targets: vec![pair(2, 3)],
        unit: Unit::Head,
        components: None,
        set: SetTo::Zero,
        at,
        on_violation: OnViolation::Throw,
    }
}

fn ablated(session: &Session, prompt: &[u32], at: AblateAt) -> Vec<Effect> {
    let call = zeroing(prompt, at);
    let (components, _, causal): (Vec<Component>, _, Causal) = with_job(|job| session.ablate(&call, job)).unwrap().1;
    let n = components.len();
    let labels: Vec<String> = components.iter().map(Component::label).collect();
    let effect = |i: usize| Effect {
        label: labels[i].clone(),
        numbers: [causal.direct[i], causal.total[i], causal.norm[i]],
        mediators: labels.iter().cloned().zip(causal.mediators[i * n..(i + 1) * n].iter().copied()).collect(),
        verdict: causal.verdicts[i],
    };
    (0..n).map(effect).collect()
}

#[derive(Debug)]
struct Effect {
    label: String,
    /// D, T, N
    numbers: [f32; 3],
    mediators: Vec<(String, f32)>,
    verdict: Verdict,
}

/// A component's D, T, N and verdict, and its only mediators.
#[track_caller]
fn expect(effects: &[Effect], label: &str, numbers: [f32; 3], verdict: Verdict, mediators: &[(&str, f32)]) {
    let effect = effects.iter().find(|effect| effect.label == label).unwrap();
    let close = |a: f32, b: f32| (a - b).abs() < 2e-4;
    assert!(effect.numbers.iter().zip(numbers).all(|(a, b)| close(*a, b)), "{effect:?}, expected {numbers:?}");
    assert_eq!(effect.verdict, verdict, "{effect:?}");
    for (j, value) in &effect.mediators {
        let expected = mediators.iter().find(|(name, _)| name == j).map_or(0.0, |(_, value)| *value);
        assert!(close(*value, expected), "{label} through {j}: {value}, expected {expected}");
    }
}

fn layer(head: Head, mlp: Option<(usize, usize, f32)>) -> Layer {
    Layer { heads: [head, Head::default()], mlp }
}

#[test]
fn a_write_that_a_later_mlp_removes_is_erased() {
    let writer = layer(moving(&[(ONE, 1.0)], ANSWER), None);
    let eraser = layer(Head::default(), Some((ANSWER, ANSWER, -1.0)));
    let effects = ablated(&llama(&[writer, eraser], &[]), &[0], AblateAt::Row);
    expect(&effects, "L0H0", [1.0, 0.0, 0.0], Verdict::Erased, &[("L1 mlp", -1.0)]);
    // without the eraser the writer's 1 stays
    expect(&effects, "L1 mlp", [-1.0, -1.0, 0.0], Verdict::Confirmed, &[]);
}

/// L0H0 writes 1 along its own direction, the MLP of layer 1 the opposite, and nothing when there is nothing to remove.
#[test]
fn who_writes_and_who_erases() {
    let writer = layer(moving(&[(ONE, 1.0)], ANSWER), None);
    let eraser = layer(Head::default(), Some((ANSWER, ANSWER, -1.0)));
    let session = llama(&[writer, eraser], &[]);
    let call = |components: &[&str]| AblateCall {
        components: Some(components.iter().map(|label| label.to_string()).collect()),
        ..zeroing(&[0], AblateAt::Row)
    };
    let (components, found) = with_job(|job| session.erasure(&call(&["L0H0"]), job)).unwrap();
    assert!((found.norm - 1.0).abs() < 1e-4, "{found:?}");
    for (i, c) in components.iter().enumerate() {
        let expected = match &c.label()[..] {
            "L0H0" => [1.0, 0.0],
            "L1 mlp" => [-1.0, 0.0],
            _ => [0.0, 0.0],
        };
        let close = |a: f64, b: f64| (a - b).abs() < 1e-4;
        assert!(close(found.clean[i], expected[0]) && close(found.ablated[i], expected[1]), "{} {found:?}", c.label());
    }
    let two = error(with_job(|job| session.erasure(&call(&["L0H0", "L1H0"]), job)));
    assert_eq!(two.code(), "INVALID_ARGUMENT");
}

#[test]
fn heads_that_back_each_other_up_are_repaired() {
    // the second writes 1 less what it finds there
    let first = layer(moving(&[(ONE, 1.0)], ANSWER), None);
    let backup = layer(moving(&[(ONE, 1.0), (ANSWER, -1.0)], ANSWER), None);
    let effects = ablated(&llama(&[first, backup], &[]), &[0], AblateAt::Row);
    expect(&effects, "L0H0", [1.0, 0.0, 0.0], Verdict::Repaired, &[("L1H0", -1.0)]);
    expect(&effects, "L1H0", [0.0, 0.0, 0.0], Verdict::Silent, &[]);
}

#[test]
fn half_a_backup_is_partial_and_what_is_read_twice_is_amplified() {
    let first = layer(moving(&[(ONE, 1.0)], ANSWER), None);
    let half = layer(moving(&[(ONE, 0.6), (ANSWER, -0.6)], ANSWER), None);
    let effects = ablated(&llama(&[first.clone(), half], &[]), &[0], AblateAt::Row);
    expect(&effects, "L0H0", [1.0, 0.4, 0.0], Verdict::Partial, &[("L1H0", -0.6)]);
    let double = layer(moving(&[(ANSWER, 1.0)], ANSWER), None);
    let effects = ablated(&llama(&[first.clone(), double], &[]), &[0], AblateAt::Row);
    expect(&effects, "L0H0", [1.0, 2.0, 0.0], Verdict::Amplified, &[("L1H0", 1.0)]);
    let twice = layer(Head::default(), Some((ANSWER, ANSWER, -2.0)));
    let effects = ablated(&llama(&[first, twice], &[]), &[0], AblateAt::Row);
    expect(&effects, "L0H0", [1.0, -1.0, 0.0], Verdict::Reversed, &[("L1 mlp", -2.0)]);
}

#[test]
fn a_suppressor_is_confirmed_with_its_sign() {
    let suppressor = layer(moving(&[(ONE, -0.5)], ANSWER), None);
    let effects = ablated(&llama(&[suppressor], &[(ANSWER, 2.0)]), &[0], AblateAt::Row);
    expect(&effects, "L0H0", [-0.5, -0.5, 0.0], Verdict::Confirmed, &[]);
}

#[test]
fn a_head_that_only_feeds_another_is_silent_at_the_row_and_indirect_everywhere() {
    // looks at its own token (tokens match no other), and writes the feature where that is token 0
    let looks = (0..V).map(|t| (t, t, 2400.0)).collect();
    let feeder = layer(Head { looks, reads: vec![(0, 0, 1.0)], writes: vec![(0, FEATURE, SCALE)] }, None);
    let reader = layer(moving(&[(FEATURE, 2.0)], ANSWER), None); // the mean of two positions
    let session = llama(&[feeder, reader], &[]);
    let at_row = ablated(&session, &[0, 1], AblateAt::Row);
    expect(&at_row, "L0H0", [0.0, 0.0, 0.0], Verdict::Silent, &[]);
    expect(&at_row, "L1H0", [1.0, 1.0, 0.0], Verdict::Confirmed, &[]);
    let everywhere = ablated(&session, &[0, 1], AblateAt::All);
    expect(&everywhere, "L0H0", [0.0, 1.0, 0.0], Verdict::Indirect, &[("L1H0", 1.0)]);
}

#[test]
fn what_nothing_reads_matters_through_the_norm() {
    // 1,000 in another dimension: s is sqrt(2) times as large, so the target's 1 is 1/sqrt(2)
    let loud = layer(moving(&[(ONE, 1000.0)], FEATURE), None);
    let effects = ablated(&llama(&[loud], &[(ANSWER, 1.0)]), &[0], AblateAt::Row);
    let fallen = 0.5f32.sqrt() - 1.0;
    expect(&effects, "L0H0", [0.0, fallen, fallen], Verdict::Indirect, &[]);
}
