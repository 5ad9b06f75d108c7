//! Directions, columns and certificates by hand, on numbers small enough to follow.

use super::component::{columns, sum_columns};
use super::project::{Columns, by_component, points};
use super::*;
use crate::chunk::Prompted;
use crate::config::{ModelConfig, Norm, RawConfig};
use crate::hook::{BlockPoint, HookPoint};
use crate::model::{Attention, Block, Embed, Linear, Mlp, NormLayer, Unembed};
use crate::ops::{Activation, ScoreRule, Weight};
use crate::tap::{Capture, Tap};
use candle_core::{Device, Tensor};
use std::collections::BTreeMap;
use std::sync::Arc;

fn t(values: &[f32], shape: &[usize]) -> Tensor {
    Tensor::from_slice(values, shape, &Device::Cpu).unwrap()
}

fn config(n_layers: usize) -> ModelConfig {
    let json = format!(
        r#"{{"model_type": "gpt2", "n_embd": 4, "n_head": 2, "n_layer": {n_layers}, "n_inner": 1, "vocab_size": 3}}"#
    );
    ModelConfig::resolve(RawConfig::parse("config.json", json.as_bytes()).unwrap(), false).unwrap()
}

fn weight(values: &[f32], shape: &[usize; 2]) -> Weight {
    Weight::of_rows(t(values, shape)).unwrap()
}

/// One layer, two heads of width 2, d_model 4, three tokens. What no test reads is 0.
fn model() -> Transformer {
    let norm = |gamma: &[f32], beta: &[f32]| NormLayer {
        norm: Norm::layer(1e-5),
        gamma: Some(t(gamma, &[4])),
        beta: Some(t(beta, &[4])),
    };
    let linear = |n_in: usize, n_out: usize| Linear {
        weight: weight(&vec![0.0; n_in * n_out], &[n_in, n_out]),
        bias: Some(t(&vec![0.0; n_out], &[n_out])),
    };
    #[rustfmt::skip]
    let w_o = [1.0, 0.0, 0.0, 0.0,
               0.0, 1.0, 0.0, 0.0, // head 0 above, head 1 below
               0.0, 0.0, 2.0, 0.0,
               0.0, 0.0, 0.0, 4.0];
    let attention = Attention {
        qkv: linear(4, 12),
        clip: None,
        qk_norm: None,
        rotary: None,
        has_turned: false,
        rule: ScoreRule { scale: 1.0, ..ScoreRule::default() },
        sinks: None,
        output: Linear { weight: weight(&w_o, &[4, 4]), bias: Some(t(&[2.0, 2.0, 0.0, 0.0], &[4])) },
        n_heads: 2,
        n_key_value_heads: 2,
        d_head: 2,
    };
    #[rustfmt::skip]
    let w_u = [ 1.0, 2.0,  3.0, 0.0, // token 0
                4.0, 0.0, -2.0, 1.0,
               -2.0, 1.0,  2.0, 5.0]; // the mean is [1, 1, 1, 2]
    let zero = [0.0; 4];
    Transformer {
        config: config(1),
        embed: Embed { tokens: t(&w_u, &[3, 4]), scale: 1.0, norm: None, positions: Some(t(&zero, &[1, 4])) },
        blocks: vec![Block {
            layer: 0,
            parallel: false,
            ln1: Some(norm(&zero, &zero)),
            attention,
            ln1_post: None,
            ln2: Some(norm(&zero, &zero)),
            mlp: Mlp::Plain { input: linear(4, 1), output: linear(1, 4), activation: Activation::Relu },
            ln2_post: None,
            multiplier: 1.0,
        }],
        ln_final: norm(&[2.0, -1.0, 4.0, 1.0], &[1.0, 0.5, -2.0, 3.0]),
        unembed: Unembed::new(t(&w_u, &[3, 4]), Some(t(&[10.0, 20.0, 60.0], &[3])), 0.5, None), // κ = 1/2
        kernels: crate::ops::Kernels::default(),
        device: Device::Cpu,
    }
}

fn tokens(weights: &[(u32, f64)], mean: f64) -> Resolved {
    Resolved::Tokens(TokenWeights { tokens: weights.iter().copied().collect(), mean })
}

/// logit 0 less twice logit 1
fn difference() -> Resolved {
    tokens(&[(0, 1.0), (1, -2.0)], 0.0)
}

/// logit 2 less the mean
fn against_mean() -> Resolved {
    tokens(&[(2, 1.0)], -1.0)
}

fn raw() -> Resolved {
    Resolved::Direction(Arc::new([1.0, 0.0, -1.0, 2.0]))
}

fn direction(target: Resolved, norm: Option<NormTreatment>) -> Direction {
    Directions::of(&[target], norm, &model()).unwrap().of_row(0).clone()
}

// ---- direction ----

#[test]
fn the_direction_of_weighted_logits() {
    // u = ½ ([1, 2, 3, 0] − 2 [4, 0, −2, 1]) = [−3.5, 1, 3.5, −1]
    // γ ⊙ u = [−7, −1, 14, −1], mean 1.25
    // constant = u·β + ½ (10 − 2·20) = (−3.5 + 0.5 − 7 − 3) − 15
    let expected = Direction { u: vec![-8.25, -2.25, 12.75, -2.25], constant: -28.0, scaled: true };
    assert_eq!(direction(difference(), None), expected);
    assert_eq!(direction(difference(), Some(NormTreatment::Frozen)), expected);
}

#[test]
fn the_direction_against_the_mean() {
    // u = ½ ([−2, 1, 2, 5] − [1, 1, 1, 2]) = [−1.5, 0, 0.5, 1.5]
    // γ ⊙ u = [−3, 0, 2, 1.5], mean 0.125
    // constant = u·β + ½ (60 − 30) = (−1.5 − 1 + 4.5) + 15
    let expected = Direction { u: vec![-3.125, -0.125, 1.875, 1.375], constant: 17.0, scaled: true };
    assert_eq!(direction(against_mean(), None), expected);
}

#[test]
fn the_mean_alone_has_a_direction() {
    // u = −½ [1, 1, 1, 2], constant without the norm −½ · 30
    let expected = Direction { u: vec![-0.5, -0.5, -0.5, -1.0], constant: -15.0, scaled: false };
    assert_eq!(direction(tokens(&[], -1.0), Some(NormTreatment::None)), expected);
}

#[test]
fn without_the_norm_neither_gain_nor_beta_nor_scale_count() {
    let expected = Direction { u: vec![-3.5, 1.0, 3.5, -1.0], constant: -15.0, scaled: false };
    assert_eq!(direction(difference(), Some(NormTreatment::None)), expected);
}

#[test]
fn a_vector_is_read_as_it_is() {
    assert_eq!(direction(raw(), None), Direction { u: vec![1.0, 0.0, -1.0, 2.0], constant: 0.0, scaled: false });
}

#[test]
fn rows_share_a_direction_where_their_targets_are_equal() {
    let almost = tokens(&[(0, 1.0), (1, -2.0)], -1.0);
    let other_token = tokens(&[(0, 1.0), (2, -2.0)], 0.0);
    let other_weight = tokens(&[(0, 1.0), (1, -1.0)], 0.0);
    let other_vector = Resolved::Direction(Arc::new([1.0, 0.0, -1.0, 3.0]));
    let targets =
        [difference(), raw(), difference(), almost, other_token, other_weight, raw(), other_vector, difference()];
    let directions = Directions::of(&targets, None, &model()).unwrap();
    let indices: Vec<usize> = (0..9).map(|row| directions.index(row)).collect();
    assert_eq!(indices, [0, 1, 0, 2, 3, 4, 1, 5, 0]);
    let matrix: Vec<&[f64]> = directions.all().collect();
    assert_eq!(matrix.len(), 6);
    assert_eq!(matrix[..2], [[-8.25, -2.25, 12.75, -2.25], [1.0, 0.0, -1.0, 2.0]]);
    assert_eq!(directions.of_row(6).u, [1.0, 0.0, -1.0, 2.0]);
}

// ---- columns ----

#[test]
fn components_in_the_order_of_the_columns() {
    let labels = |unit| Component::all(unit, &config(2)).iter().map(Component::label).collect::<Vec<_>>();
    let heads =
        ["embed", "pos_embed", "L0H0", "L0H1", "L0 attn_bias", "L0 mlp", "L1H0", "L1H1", "L1 attn_bias", "L1 mlp"];
    assert_eq!(labels(Unit::Head), heads);
    assert_eq!(labels(Unit::Layer), ["embed", "pos_embed", "L0 attn", "L0 mlp", "L1 attn", "L1 mlp"]);
    let of_head = Component::all(Unit::Head, &config(2))[7];
    assert_eq!(of_head, Component { kind: Kind::Head, layer: Some(1), index: Some(1), expert: None });
}

/// Two layers of one head; the second has two experts of two neurons and one of one for every token.
fn experts() -> ModelConfig {
    let json = r#"{"model_type": "qwen2_moe", "hidden_size": 4, "num_attention_heads": 1, "num_key_value_heads": 1,
        "num_hidden_layers": 2, "mlp_only_layers": [0], "intermediate_size": 3, "num_experts": 2,
        "num_experts_per_tok": 1, "moe_intermediate_size": 2, "shared_expert_intermediate_size": 1, "vocab_size": 3}"#;
    ModelConfig::resolve(RawConfig::parse("config.json", json.as_bytes()).unwrap(), false).unwrap()
}

#[test]
fn neurons_in_the_order_of_the_columns() {
    let labels = |config| Component::all(Unit::Neuron, &config).iter().map(Component::label).collect::<Vec<_>>();
    let plain = ["embed", "pos_embed", "L0H0", "L0H1", "L0 attn_bias", "L0N0", "L0 mlp_bias"];
    assert_eq!(labels(config(1)), plain);
    let experts_too =
        ["embed", "L0H0", "L0N0", "L0N1", "L0N2", "L1H0", "L1E0N0", "L1E0N1", "L1E1N0", "L1E1N1", "L1SN0"];
    assert_eq!(labels(experts()), experts_too);
    let of_shared = Component::all(Unit::Neuron, &experts())[10];
    let expected = Component { kind: Kind::Neuron, layer: Some(1), index: Some(0), expert: Some(ExpertId::Shared) };
    assert_eq!(of_shared, expected);
    assert_eq!(Component::REST.label(), "rest");
}

#[test]
fn there_are_as_many_components_as_are_counted() {
    for (config, counts) in [(config(2), [6, 10, 12]), (experts(), [5, 5, 11])] {
        for (unit, expected) in [Unit::Layer, Unit::Head, Unit::Neuron].into_iter().zip(counts) {
            assert_eq!(Component::count(unit, &config), expected, "{unit:?}");
            assert_eq!(Component::all(unit, &config).len(), expected, "{unit:?}");
        }
    }
}

#[test]
fn neurons_belong_to_their_mlp() {
    let fine = Component::all(Unit::Neuron, &experts());
    assert_eq!(columns(&fine, Unit::Head, &experts()), [0, 1, 2, 2, 2, 3, 4, 4, 4, 4, 4]);
    let fine = Component::all(Unit::Neuron, &config(1));
    assert_eq!(columns(&fine, Unit::Layer, &config(1)), [0, 1, 2, 2, 2, 3, 3]);
}

#[test]
fn a_depth_has_what_was_written_up_to_it() {
    let labels = |point| {
        let depth = Depth::of(HookPoint::Block(1, point)).unwrap();
        let all = Component::all(Unit::Head, &config(2)).into_iter().filter(move |c| depth.has(c));
        all.skip(2).map(|c| c.label()).collect::<Vec<_>>().join(", ")
    };
    let first = "L0H0, L0H1, L0 attn_bias, L0 mlp";
    assert_eq!(labels(BlockPoint::ResidPre), first);
    assert_eq!(labels(BlockPoint::ResidMid), format!("{first}, L1H0, L1H1, L1 attn_bias"));
    assert_eq!(labels(BlockPoint::ResidPost), format!("{first}, L1H0, L1H1, L1 attn_bias, L1 mlp"));
    assert_eq!(
        Depth::of(HookPoint::Block(0, BlockPoint::ResidPost)),
        Depth::of(HookPoint::Block(1, BlockPoint::ResidPre))
    );
    assert_eq!(Depth::of(HookPoint::Block(1, BlockPoint::AttnOut)), None);
    assert_eq!(Depth::of(HookPoint::Embed), None);
}

#[test]
fn a_unit_is_a_choice_of_columns() {
    assert_eq!(
        columns(&Component::all(Unit::Head, &config(2)), Unit::Head, &config(2)),
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    );
    assert_eq!(
        columns(&Component::all(Unit::Head, &config(2)), Unit::Layer, &config(2)),
        [0, 1, 2, 2, 2, 3, 4, 4, 4, 5]
    );
}

#[test]
fn columns_are_summed_row_by_row_in_f64() {
    // 1 + 2^-30 − 1 would be 0 in f32
    let fine = [1.0, 5.0, 2f64.powi(-30), -1.0, 10.0, 20.0, 30.0, 40.0];
    assert_eq!(sum_columns(&fine, &[0, 1, 0, 0]), [2f32.powi(-30), 5.0, 80.0, 20.0]);
    assert_eq!(sum_columns(&fine[..4], &[0, 1, 2, 3]), [1.0, 5.0, 2f32.powi(-30), -1.0]);
}

// ---- projection ----

/// Two rows: s = 2 and s = 5.
fn activations() -> Activations {
    let z = [1.0, 2.0, 0.0, -1.0, 3.0, 0.0, 1.0, 1.0];
    let values = [
        (HookPoint::Embed, t(&[4.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0], &[2, 4])),
        (HookPoint::PosEmbed, t(&[0.0, 4.0, 0.0, 0.0, 0.0, 0.0, 3.0, 0.0], &[2, 4])),
        (HookPoint::Block(0, BlockPoint::Z), t(&z, &[2, 2, 2])),
        (HookPoint::Block(0, BlockPoint::MlpOut), t(&[0.0, 0.0, 4.0, 0.0, 0.0, 0.0, 0.0, 1.0], &[2, 4])),
        (HookPoint::FinalScale, t(&[2.0, 5.0], &[2, 1])),
    ];
    let capture = Capture { points: points(&model(), Unit::Head), rows: vec![0, 1], ..Capture::default() };
    assert_eq!(capture.points.iter().copied().collect::<Vec<_>>(), values.each_ref().map(|(point, _)| *point));
    let cancel = Cancel::default();
    let mut tap = Tap::new(&capture, &cancel);
    for (point, value) in values {
        tap.rows(point, value).unwrap();
    }
    tap.finish()
}

/// ũ = [−8.25, −2.25, 12.75, −2.25] at s = 2. With W_O: f = [−8.25, −2.25] for head 0, [25.5, −9] for head 1.
const DIFFERENCE: [f64; 6] = [
    -16.5,  // embed: 4 · −8.25 / 2
    -4.5,   // pos_embed: 4 · −2.25 / 2
    -6.375, // L0H0: (1 · −8.25 + 2 · −2.25) / 2
    4.5,    // L0H1: (0 · 25.5 − 1 · −9) / 2
    -10.5,  // L0 attn_bias: (2 · −8.25 + 2 · −2.25) / 2
    25.5,   // L0 mlp: 4 · 12.75 / 2
];

/// v = [1, 0, −1, 2], not scaled. f = [1, 0] for head 0, [−2, 8] for head 1.
const RAW: [f64; 6] = [2.0, -3.0, 3.0, 6.0, 2.0, 2.0];

/// Both rows, one behind the other.
fn table(columns: &Columns) -> Vec<f64> {
    (0..2).flat_map(|row| columns.row(row).flatten().copied()).collect()
}

#[test]
fn every_component_is_read_along_the_direction_of_its_row() {
    let read = |targets: &[Resolved]| {
        let directions = Directions::of(targets, None, &model()).unwrap();
        table(&by_component(&model(), &activations(), &directions, Unit::Head, Convention::Default).unwrap())
    };
    assert_eq!(read(&[difference(), raw()]), [DIFFERENCE, RAW].concat());
    // the other way round: the vector at row 0, the difference at row 1 with s = 5
    // f·z: row 0 head 0 [1, 0]·[1, 2], head 1 [−2, 8]·[0, −1]; row 1 head 0 −24.75, head 1 25.5 − 9
    let other = [4.0, 0.0, 1.0, -8.0, 2.0, -4.0, 0.0, 38.25 / 5.0, -24.75 / 5.0, 16.5 / 5.0, -21.0 / 5.0, -2.25 / 5.0];
    assert_eq!(read(&[raw(), difference()]), other);
}

#[test]
fn a_norm_after_attention_is_held_at_its_scale() {
    // v = [1, 0, −1, 2] behind γ = [1, 2, 4, 2], β = [0, 1, 0, −1], times ½: γ ⊙ v = [1, 0, −4, 4], mean ¼
    let mut model = model();
    model.config.layout.ln1_post = Some("");
    model.blocks[0].multiplier = 0.5;
    let post = |norm| NormLayer {
        norm,
        gamma: Some(t(&[1.0, 2.0, 4.0, 2.0], &[4])),
        beta: Some(t(&[0.0, 1.0, 0.0, -1.0], &[4])),
    };
    let mut read = |norm: Norm| {
        model.blocks[0].ln1_post = Some(post(norm));
        let directions = Directions::of(&[raw(), raw()], None, &model).unwrap();
        let capture = Capture { points: points(&model, Unit::Head), rows: vec![0, 1], ..Capture::default() };
        let cancel = Cancel::default();
        let mut tap = Tap::new(&capture, &cancel);
        let before = activations();
        for point in points(&model, Unit::Head) {
            let value = before.rows(point).cloned().unwrap_or_else(|| t(&[4.0, 8.0], &[2, 1])); // s_post
            tap.rows(point, value).unwrap();
        }
        let all = table(&by_component(&model, &tap.finish(), &directions, Unit::Head, Convention::Default).unwrap());
        [all[2..5].to_vec(), all[8..11].to_vec()].concat() // both heads and the bias of each row
    };
    // RMS: ũ′ = [½, 0, −2, 2]; f = [½, 0] and [−4, 8]; z·f / s_post; bias [2, 2, 0, 0]·ũ′ / s_post + ½ β·v
    let rms = [0.5 / 4.0, -8.0 / 4.0, 1.0 / 4.0 - 1.0, 1.5 / 8.0, 4.0 / 8.0, 1.0 / 8.0 - 1.0];
    assert_eq!(read(Norm::rms(1e-5)), rms);
    // layer norm: ũ′ = ½ [¾, −¼, −4¼, 3¾]; f = [3/8, −1/8] and [−17/4, 15/2]; bias 2 · 3/8 − 2 · 1/8
    let layer = [0.125 / 4.0, -7.5 / 4.0, 0.5 / 4.0 - 1.0, 1.125 / 8.0, 3.25 / 8.0, 0.5 / 8.0 - 1.0];
    assert_eq!(read(Norm::layer(1e-5)), layer);
}

/// v0 = β W_V + b_V = [1, 2] + [0, 1] for head 0, [1, 2] + [0, −1] for head 1.
fn with_common_values() -> Transformer {
    let mut model = model();
    let block = &mut model.blocks[0];
    block.ln1.as_mut().unwrap().beta = Some(t(&[1.0, 0.0, 2.0, 0.0], &[4]));
    let mut weight = vec![0.0; 48];
    weight[8..12].copy_from_slice(&[1.0, 0.0, 0.0, 2.0]); // from dimension 0: β 1
    weight[32..36].copy_from_slice(&[0.0, 1.0, 0.5, 0.0]); // from dimension 2: β 2
    let mut bias = vec![9.0; 12]; // of queries and keys: not counted
    bias[8..].copy_from_slice(&[0.0, 1.0, 0.0, -1.0]);
    block.attention.qkv = Linear { weight: self::weight(&weight, &[4, 12]), bias: Some(t(&bias, &[12])) };
    model
}

#[test]
fn what_positions_have_in_common_moves_to_the_bias() {
    let mut model = with_common_values();
    let directions = Directions::of(&[difference(), raw()], None, &model).unwrap();
    let read = |model: &Transformer, activations: &Activations| {
        let convention = Convention::TransformerLens;
        table(&by_component(model, activations, &directions, Unit::Head, convention).unwrap())
    };
    let moved = |columns: [f64; 6], by: [f64; 2]| {
        let [embed, pos, a, b, bias, mlp] = columns;
        [embed, pos, a - by[0], b - by[1], bias + by[0] + by[1], mlp]
    };
    // v0 · f: [1, 3]·[−8.25, −2.25] / 2 and [1, 1]·[25.5, −9] / 2; [1, 3]·[1, 0] and [1, 1]·[−2, 8]
    let expected = [moved(DIFFERENCE, [-7.5, 8.25]), moved(RAW, [1.0, 6.0])].concat();
    assert_eq!(read(&model, &activations()), expected);

    // with sinks as much of it as a row of the pattern adds up to: ½ and 1 at row 0, ¼ and ¾ at row 1
    model.blocks[0].attention.sinks = Some(t(&[0.0, 0.0], &[2]));
    let pattern = [0.25, 0.25, 0.0, 0.25, 0.5, 0.5, 0.25, 0.5]; // [head, row, key]
    let pattern = BTreeMap::from([(HookPoint::Block(0, BlockPoint::Pattern), vec![t(&pattern, &[2, 2, 2])])]);
    let before = activations();
    let rows = points(&model, Unit::Head).into_iter().map(|p| (p, before.rows(p).unwrap().clone())).collect();
    let expected = [moved(DIFFERENCE, [-3.75, 8.25]), moved(RAW, [0.25, 4.5])].concat();
    assert_eq!(read(&model, &Activations::of(rows, pattern)), expected);
}

#[test]
fn an_activation_that_was_not_kept_is_an_internal_error() {
    let directions = Directions::of(&[raw()], None, &model()).unwrap();
    let error =
        by_component(&model(), &Activations::default(), &directions, Unit::Head, Convention::Default).unwrap_err();
    assert_eq!(error.code(), "INTERNAL");
}

// ---- the whole ----

fn rows() -> Vec<Row> {
    vec![Row { prompt: 3, position: 7 }, Row { prompt: 4, position: 0 }]
}

fn whole(targets: [Resolved; 2], stream: [f32; 8], normed: [f32; 8], on_violation: OnViolation) -> Result<Attribution> {
    let output = Output { stream: t(&stream, &[2, 4]), normed: t(&normed, &[2, 4]) };
    let options = Options { unit: Unit::Layer, top: None, convention: Default::default(), norm: None, on_violation };
    from_activations(&model(), rows(), targets.into(), &activations(), &output, &options)
}

#[test]
fn both_sides_of_the_certificate_by_hand() {
    // row 0, normed [1, 0, 0, 0]: logits ½ (1 + 10), ½ (4 + 20); 5.5 − 2 · 12. Row 1: [1, 2, 3, 7]·v.
    let stream = [9.0, 9.0, 9.0, 9.0, 1.0, 2.0, 3.0, 7.0];
    let normed = [1.0, 0.0, 0.0, 0.0, 9.0, 9.0, 9.0, 9.0];
    let result = whole([difference(), raw()], stream, normed, OnViolation::Warn).unwrap();
    assert_eq!(result.values, [-16.5, -4.5, -12.375, 25.5, 2.0, -3.0, 11.0, 2.0]); // heads and bias in one column
    assert_eq!(result.constant, [-28.0, 0.0]);
    let certificates = [
        Certificate { total: -7.875 - 28.0, measured: -18.5, tolerance: 1e-5 * (1.0 + 67.875) },
        Certificate { total: 12.0, measured: 12.0, tolerance: 1e-5 * (1.0 + 18.0) },
    ];
    assert_eq!(result.certificates, certificates);
    assert_eq!(result.certificates.iter().map(Certificate::holds).collect::<Vec<_>>(), [false, true]);

    let error = whole([difference(), raw()], stream, normed, OnViolation::Throw).unwrap_err();
    let details = serde_json::json!({ "prompt": 3, "position": 7, "total": -35.875, "measured": -18.5,
                                      "tolerance": 1e-5 * 68.875, "rows": 1 });
    assert_eq!((error.code(), error.details()), ("INCOMPLETE", details));
}

#[test]
fn the_mean_is_measured_by_the_mean_logit() {
    // normed [0, 0, 0, 2]: logit 2 is ½ (10 + 60), the mean ½ (4 + 30)
    let normed = [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 2.0];
    let result = whole([difference(), against_mean()], [0.0; 8], normed, OnViolation::Warn).unwrap();
    assert_eq!(result.certificates.iter().map(|c| c.measured).collect::<Vec<_>>(), [-18.5, 18.0]);
    assert_eq!(result.after_cap, [-18.5, 18.0]); // there is no cap
}

fn certificate(total: f64, measured: f64) -> Certificate {
    Certificate { total, measured, tolerance: 0.5 }
}

#[test]
fn what_is_not_finite_is_found_in_its_row() {
    let good = [certificate(1.0, 1.0); 2];
    let prompt = |values: [[f64; 2]; 2], certificates: &[Certificate]| {
        let row = |row: [f64; 2]| are_finite(&row.map(|v| v as f32), Sums::of(&row).magnitude);
        check_finite(&values.map(row), certificates, &rows()).map_err(|e| e.details()["prompt"].as_u64())
    };
    assert_eq!(prompt([[1.0, 2.0], [3.0, 4.0]], &good), Ok(()));
    assert_eq!(prompt([[1.0, f64::NAN], [3.0, f64::INFINITY]], &good), Err(Some(3)));
    assert_eq!(prompt([[1.0, 2.0], [f64::NEG_INFINITY, 4.0]], &good), Err(Some(4)));
    assert_eq!(prompt([[1.0, 1e39], [1.0, 1.0]], &good), Err(Some(3))); // finite in f64 alone
    assert_eq!(prompt([[3e38, -3e38], [1.0, 1.0]], &good), Ok(())); // their magnitudes' sum is more than f32 holds
    assert_eq!(prompt([[1.0; 2]; 2], &[good[0], certificate(f64::NAN, 1.0)]), Err(Some(4)));
    assert_eq!(prompt([[1.0; 2]; 2], &[certificate(1.0, f64::INFINITY), good[1]]), Err(Some(3)));
}

// ---- targets ----

#[test]
fn a_target_keeps_its_form_when_its_tokens_are_mapped() {
    let double = |id: &u32| Ok(2 * id);
    let weights = Target::Weights(vec![(3, 0.5), (4, -1.0)]).try_map(double).unwrap();
    assert!(matches!(&weights, Target::Weights(w) if *w == [(6, 0.5), (8, -1.0)]));
    let sets = Target::Tokens { answer: Answer::Tokens(vec![1, 2]), against: Some(Against::Tokens(vec![5])) };
    let Target::Tokens { answer: Answer::Tokens(answer), against: Some(Against::Tokens(against)) } =
        sets.try_map(double).unwrap()
    else {
        panic!("another form")
    };
    assert_eq!((answer, against), (vec![2, 4], vec![10]));
    let failing = sets.try_map(|id| if *id == 5 { Err(PrismError::Closed { what: "model" }) } else { Ok(*id) });
    assert_eq!(failing.unwrap_err().code(), "CLOSED");
    let mean = Target::<u32>::Tokens { answer: Answer::Next, against: Some(Against::Mean) };
    let mapped = mean.try_map(double).unwrap();
    assert!(matches!(mapped, Target::Tokens { answer: Answer::Next, against: Some(Against::Mean) }));
}

#[test]
fn a_repeated_token_counts_each_time() {
    let target = Target::Tokens { answer: Answer::Tokens(vec![1, 1, 2, 0]), against: None };
    let Ok(()) = target.check(3, 4) else { panic!("refused") };
    let prompts = [Prompted::new([0], vec![0])];
    let chunk = Chunk { first: 0, prompts: &prompts };
    let output = Output { stream: t(&[0.0; 4], &[1, 4]), normed: t(&[0.0; 4], &[1, 4]) };
    let resolved = target::resolve(&chunk.rows(), chunk, &[target], &output, &model().unembed).unwrap();
    let tokens = BTreeMap::from([(0, 0.25), (1, 0.5), (2, 0.25)]);
    assert_eq!(resolved, [Resolved::Tokens(TokenWeights { tokens, mean: 0.0 })]);
}
