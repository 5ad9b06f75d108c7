//! Weights in smaller types than f32: what a GPU multiplies in. The CPU refuses them for users, for it has no such products;
//! here it computes with the same rounding around its own, so that all but the products is tested without a GPU.

mod common;

use candle_core::{DType, Device};
use common::*;
use logit_prism_core::attribution::{Attribution, Component, OnViolation, Options, Target, Unit};
use logit_prism_core::cancel::Cancel;
use logit_prism_core::causal::{self, Ablating, Plan, Replacement};
use logit_prism_core::checkpoint::Checkpoint;
use logit_prism_core::chunk::{Chunk, Prompted};
use logit_prism_core::config::{ModelConfig, RawConfig};
use logit_prism_core::device::{DeviceName, WeightDtype};
use logit_prism_core::model::{self, Transformer};
use logit_prism_core::ops::Kernels;
use logit_prism_core::patch::{self, Pairs, Patching, Paths, Place as PatchAt, Receiver, Spots};
use logit_prism_core::run::{self, Job, Place};
use logit_prism_core::session::LoadOptions;
use logit_prism_core::tokenizer::Token;
use serde_json::Value;
use std::path::Path;

/// With the certificate's tolerance; numbers of the unrounded weights in float64 are further off, for weights and stream are
/// rounded in every layer.
const SMALL: [(WeightDtype, f64); 2] = [(WeightDtype::Bf16, 2.5e-3), (WeightDtype::F16, 3e-4)];
const FURTHER: f64 = 4.0;

fn opened(dir: &Path) -> (ModelConfig, Checkpoint) {
    let raw = RawConfig::parse("config.json", &std::fs::read(dir.join("config.json")).unwrap()).unwrap();
    (ModelConfig::resolve(raw, false).unwrap(), Checkpoint::open(dir).unwrap())
}

fn loaded(dir: &Path, dtype: WeightDtype) -> Transformer {
    loaded_on(&Device::Cpu, dir, dtype)
}

fn loaded_on(device: &Device, dir: &Path, dtype: WeightDtype) -> Transformer {
    let (config, checkpoint) = opened(dir);
    model::load(config, &checkpoint, device, dtype, |_| Ok(())).unwrap()
}

/// The CPU, and a GPU where there is one.
fn devices() -> Vec<Device> {
    std::iter::once(Device::Cpu).chain(test_gpu().map(|gpu| gpu.open().unwrap())).collect()
}

/// The attributions that a reference asks for.
fn attributed(model: &Transformer, reference: &Value) -> Attribution {
    let call = reference_call(reference);
    let targets = call.targets.iter().map(by_ids).collect();
    attributed_at_last(model, ids(&reference["prompts"]), targets, &call.options)
}

/// The target of tokens that are given as ids.
fn by_ids(target: &Target<Token>) -> Target {
    target.try_map(|token| if let Token::Id(id) = token { Ok(*id) } else { unreachable!() }).unwrap()
}

fn attributed_at_last(
    model: &Transformer,
    prompts: Vec<Vec<u32>>,
    targets: Vec<Target>,
    options: &Options,
) -> Attribution {
    let prompted = |ids: Vec<u32>| Prompted::new(ids.as_slice(), vec![ids.len() - 1]);
    let prompts: Vec<Prompted> = prompts.into_iter().map(prompted).collect();
    let pool = run::pool(Some(1)).unwrap();
    let place = Place { model, pool: &pool, memory_limit: None };
    let job = Job { cancel: &Cancel::default(), progress: &|_, _| {} };
    run::attribute(&place, &prompts, &targets, options, 256, &job).unwrap()
}

/// That every number of every row is within `4 relative (1 + A)` of the float64 reference of the unrounded weights; returns the
/// largest of those ratios.
fn compare(result: &Attribution, reference: &Value, relative: f64) -> f64 {
    let mut worst = 0f64;
    for (i, of_row) in reference["attributions"].as_array().unwrap().iter().enumerate() {
        let certificate = result.certificates[i];
        let found = wide(row_of(result, i));
        let size = 1.0 + found.iter().map(|v| v.abs()).sum::<f64>();
        assert!((certificate.tolerance / (relative * size) - 1.0).abs() < 1e-6, "the stated tolerance");
        let mut off = (certificate.measured - numbers(&of_row["logit_difference"])[0]).abs();
        if of_row["pos_embed"].is_number() {
            for (found, expected) in found.iter().zip(head_columns(of_row, |v| v.as_f64().unwrap())) {
                off = off.max((found - expected).abs());
            }
        }
        assert!(off <= FURTHER * relative * size, "row {i}: {off} of {size}");
        worst = worst.max(off / size);
    }
    worst
}

/// Serial, parallel and gated blocks, norms of both kinds and after sublayers, rotary, ALiBi, experts, stacked and single.
const FAMILIES: [&str; 10] = [
    "gpt2",
    "gpt2_untied",
    "gpt2_scaled",
    "variants/bloom_6_heads",
    "variants/cohere_qk_norm",
    "variants/gemma2_bf16",
    "variants/gpt_oss_clamp",
    "variants/gptj_tied",
    "variants/mixtral_bf16",
    "variants/phi3_longrope",
];

#[test]
fn the_certificate_holds_and_numbers_are_those_of_the_reference() {
    for name in FAMILIES {
        let reference = json(&fixture(name).join("reference.json"));
        for (dtype, relative) in SMALL {
            let model = loaded(&fixture(name), dtype);
            assert_eq!((model.dtype(), model.kernels), (dtype.of_tensors(), Kernels::Plain));
            let worst = compare(&attributed(&model, &reference), &reference, relative);
            println!("{name} in {dtype}: largest error {worst:.1e} (1 + A)");
            assert!(worst > 1e-6, "{name} in {dtype}: nothing was rounded");
        }
    }
}

/// The largest distance of some numbers from those of the reference, relative to a size.
fn farthest(found: impl IntoIterator<Item = f64>, expected: &[f64], size: f64) -> f64 {
    let found: Vec<f64> = found.into_iter().collect();
    assert_eq!(found.len(), expected.len());
    found.iter().zip(expected).map(|(f, e)| (f - e).abs() / size).fold(0.0, f64::max)
}

fn token_pair(reference: &Value) -> Target {
    let token = |name: &str| reference[name].as_u64().unwrap();
    by_ids(&pair(token("answer"), token("against")))
}

#[test]
fn ablations_certify_and_are_those_of_the_reference() {
    for family in ["gpt2", "llama", "gemma2", "gptj", "mixtral", "gpt_oss"] {
        let dir = fixture(&format!("parity/{family}"));
        let reference = json(&dir.join("ablate.json"));
        let ids: Vec<u32> = serde_json::from_value(reference["prompt"].clone()).unwrap();
        let ablations = reference["ablations"].as_array().unwrap();
        let expected = |name: &str| ablations.iter().map(|a| a[name].as_f64().unwrap()).collect::<Vec<_>>();
        for (device, (dtype, relative)) in devices().iter().flat_map(|d| SMALL.map(|small| (d, small))) {
            let model = loaded_on(device, &dir, dtype);
            let mut worst = 0f64;
            for everywhere in [false, true] {
                let last = ids.len() - 1;
                let changed = |_, n: usize| Ok(everywhere.then(|| (0..n).collect()));
                let plan = Plan::new(vec![Prompted::new(ids.as_slice(), vec![last])], changed).unwrap();
                let asked = Ablating {
                    unit: Unit::Head,
                    columns: (0..ablations.len()).collect(),
                    replacement: Replacement::Zero,
                    on_violation: OnViolation::Throw, // every certificate holds
                };
                let chunk = Chunk { first: 0, prompts: &plan.prompts };
                let targets = [token_pair(&reference)];
                let found = causal::ablate(&model, chunk, &plan.planned, &targets, &asked, &Cancel::default()).unwrap();
                // A of both runs
                let size = found.certificates.iter().map(|c| c.tolerance / relative).fold(0.0, f64::max);
                let total = expected(if everywhere { "total_all" } else { "total" });
                for (found, expected) in [(found.total, total), (found.direct, expected("direct"))] {
                    worst = worst.max(farthest(wide(&found), &expected, size));
                }
            }
            println!("{family} in {dtype}: largest error {worst:.1e} (1 + A + A′)");
            // what is rounded may choose other experts
            let experts = ["mixtral", "gpt_oss"].contains(&family);
            assert!(worst > 1e-6 && (experts || worst <= FURTHER * relative), "{family} in {dtype}: {worst}");
        }
    }
}

#[test]
fn patches_are_those_of_the_reference() {
    for family in ["gpt2", "llama", "gemma2", "gptj"] {
        let dir = fixture(&format!("parity/{family}"));
        let given = json(&dir.join("patching.json"));
        let prompt = |name: &str| serde_json::from_value::<Vec<u32>>(given[name].clone()).unwrap();
        let (clean, corrupt) = (prompt("clean"), prompt("corrupt"));
        let row = clean.len() - 1;
        let spots = Spots { row, source_row: row, positions: (0..=row).map(|p| (p, p)).collect() };
        let pairs = Pairs {
            base: vec![Prompted::new(clean, spots.of_base())],
            source: vec![Prompted::new(corrupt, spots.of_source())],
            spots: vec![spots],
            targets: vec![token_pair(&given)],
            base_is_clean: true,
        };
        let chunk = Chunk { first: 0, prompts: &pairs.base };
        let cancel = Cancel::default();
        for (device, (dtype, relative)) in devices().iter().flat_map(|d| SMALL.map(|small| (d, small))) {
            let model = loaded_on(device, &dir, dtype);
            let options = call(vec![], vec![]).options;
            let (both, targets) = (vec![prompt("clean"), prompt("corrupt")], vec![token_pair(&given); 2]);
            let attributed = attributed_at_last(&model, both, targets, &options);
            let size: f64 = attributed.certificates.iter().map(|c| c.tolerance / relative).sum(); // A of both runs
            let mut worst = 0f64;
            for (name, patching) in [
                ("resid_pre", Patching { at: PatchAt::ResidPre, by_head: false, by_position: true }),
                ("mlp_out", Patching { at: PatchAt::MlpOut, by_head: false, by_position: true }),
                ("head", Patching { at: PatchAt::Z, by_head: true, by_position: false }),
            ] {
                let found = patch::sweep(&model, chunk, &pairs, &patching, &cancel).unwrap();
                worst = worst.max(farthest(found.values, &numbers(&given["noising"][name]), size));
            }
            for path in given["paths"].as_array().unwrap() {
                let labels = |key: &str| serde_json::from_value::<Vec<String>>(path[key].clone()).unwrap();
                let known = [Unit::Head, Unit::Layer].into_iter().flat_map(|unit| Component::all(unit, &model.config));
                let known: Vec<Component> = known.collect();
                let named = |label: &String| *known.iter().find(|c| c.label() == *label).unwrap();
                let paths = Paths {
                    senders: vec![labels("from").iter().map(named).collect()],
                    receivers: Receiver::parse(&labels("to"), &model.config).unwrap(),
                    through_mlps: path["through"] == "mlps",
                };
                let found = patch::paths(&model, chunk, &pairs, &paths, &cancel).unwrap();
                worst = worst.max(farthest(found.values, &numbers(&path["f"]), size));
            }
            println!("{family} patched in {dtype}: largest error {worst:.1e} of {size:.1}");
            assert!(worst > 1e-6 && worst <= FURTHER * relative, "{family} in {dtype}: {worst}");
        }
    }
}

#[test]
fn only_what_the_stream_is_multiplied_with_is_rounded() {
    let model = loaded(&fixture("gpt2"), WeightDtype::Bf16);
    let block = &model.blocks[0];
    for linear in [&block.attention.qkv, &block.attention.output] {
        assert_eq!(linear.weight.dtype(), DType::BF16);
        assert_eq!(linear.bias.as_ref().unwrap().dtype(), DType::F32);
    }
    assert_eq!(model.embed.tokens.dtype(), DType::BF16);
    assert_eq!(model.embed.positions.as_ref().unwrap().dtype(), DType::F32);
    assert_eq!(model.ln_final.gamma.as_ref().unwrap().dtype(), DType::F32);
}

#[test]
fn a_checkpoint_of_a_type_is_held_exactly_in_it() {
    for (name, dtype) in [("gpt2_bf16", WeightDtype::Bf16), ("gpt2_f16", WeightDtype::F16)] {
        let [small, wide] = [dtype, WeightDtype::F32].map(|dtype| loaded(&fixture(name), dtype));
        let of = |model: &Transformer| {
            flat(&model.blocks[1].attention.output.weight.dense().unwrap().to_dtype(DType::F32).unwrap())
        };
        assert_eq!(of(&small), of(&wide));
    }
}

#[test]
fn bytes_are_planned_as_they_will_be_held() {
    let (config, checkpoint) = opened(&fixture("gpt2"));
    let plan = |dtype| model::plan(&config, &checkpoint, dtype).unwrap();
    let (wide, small) = (plan(WeightDtype::F32), plan(WeightDtype::Bf16));
    // what stays f32: biases of 3 + 1 + 4 + 1 widths, two norms of two vectors, and behind the blocks one norm and W_pos
    let kept = 4 * (3 * (9 * 32 + 4 * 32) + 2 * 32 + 64 * 32);
    assert_eq!(small.bytes, (wide.bytes - kept) / 2 + kept);
    assert_eq!((wide.bytes, wide.numbers), (4 * small.numbers, small.numbers));
    assert_eq!((wide.largest, small.largest), (4 * 32 * 128, 4 * 32 * 128));
    assert_eq!(wide.transient_bytes(&Device::Cpu, 2), small.transient_bytes(&Device::Cpu, 2));
}

#[test]
fn what_half_precision_cannot_hold_is_refused() {
    let dir = changed("gpt2", |tensors| {
        let (_, _, bytes) = tensors.get_mut("transformer.wte.weight").unwrap();
        bytes[28..32].copy_from_slice(&70_000f32.to_le_bytes());
    });
    let (config, checkpoint) = opened(&dir.0);
    let load = |dtype| model::load(config.clone(), &checkpoint, &Device::Cpu, dtype, |_| Ok(())).map(drop);
    let refused = error(load(WeightDtype::F16));
    assert_eq!(refused.code(), "INVALID_ARGUMENT");
    assert!(refused.to_string().contains("70000 is among the weights"), "{refused}");
    load(WeightDtype::Bf16).unwrap();
}

#[test]
fn the_cpu_refuses_them_for_users() {
    for (dtype, _) in SMALL {
        let refused = load_with(&fixture("gpt2"), &LoadOptions { dtype, ..LoadOptions::default() });
        assert_eq!(error(refused).code(), "INVALID_ARGUMENT");
    }
}

/// On a GPU, where there is one.
#[test]
fn a_gpu_multiplies_in_them() {
    let Some(device @ DeviceName::Cuda(_)) = test_gpu() else { return };
    for name in FAMILIES {
        let reference = json(&fixture(name).join("reference.json"));
        for (dtype, relative) in SMALL {
            let options = LoadOptions { device, dtype, ..LoadOptions::default() };
            let session = load_with(&fixture(name), &options).unwrap();
            compare(&attribute(&session, &reference_call(&reference)).unwrap(), &reference, relative);
        }
    }
}
