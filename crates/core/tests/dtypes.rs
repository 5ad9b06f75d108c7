//! Weights in smaller types than f32: what a GPU multiplies in. The CPU refuses them for users, for it has no such products;
//! here it computes with the same rounding around its own, so that all but the products is tested without a GPU.

mod common;

use candle_core::{DType, Device};
use common::*;
use logit_prism_core::attribution::{Attribution, Options, Target};
use logit_prism_core::cancel::Cancel;
use logit_prism_core::checkpoint::Checkpoint;
use logit_prism_core::chunk::Prompted;
use logit_prism_core::config::{ModelConfig, RawConfig};
use logit_prism_core::device::{DeviceName, WeightDtype};
use logit_prism_core::model::{self, Transformer};
use logit_prism_core::ops::Kernels;
use logit_prism_core::run::{self, Job, Place};
use logit_prism_core::session::LoadOptions;
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
    let (config, checkpoint) = opened(dir);
    model::load(config, &checkpoint, &Device::Cpu, dtype, |_| Ok(())).unwrap()
}

/// The attributions that a reference asks for.
fn attributed(model: &Transformer, reference: &Value) -> Attribution {
    let call = reference_call(reference);
    let prompted = |ids: Vec<u32>| Prompted::new(ids.as_slice(), vec![ids.len() - 1]);
    let prompts: Vec<Prompted> = ids(&reference["prompts"]).into_iter().map(prompted).collect();
    let id = |token: &_| if let logit_prism_core::tokenizer::Token::Id(id) = token { Ok(*id) } else { unreachable!() };
    let targets: Vec<Target> = call.targets.iter().map(|target| target.try_map(id).unwrap()).collect();
    let pool = run::pool(Some(1)).unwrap();
    let place = Place { model, pool: &pool, memory_limit: None };
    let job = Job { cancel: &Cancel::default(), progress: &|_, _| {} };
    let options: &Options = &call.options;
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
