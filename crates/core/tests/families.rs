//! Every family and every variant of its config against float64 references that `transformers` made: logits, patterns,
//! the stream after every block, every attribution at the last and at every position, the certificate, every hook.

mod common;

use candle_core::{DType, Device, Tensor};
use common::*;
use logit_prism_core::attribution::{Attribution, Component, Kind, Unit};
use logit_prism_core::config::{ModelConfig, RawConfig};
use logit_prism_core::hook::{BlockPoint, HookPoint};
use logit_prism_core::rows::Positions;
use logit_prism_core::session::Session;
use serde_json::{Value, json as object};
use std::collections::BTreeSet;

/// An f32 forward pass of models this small is this close; the promise to users is 1e-4.
const TOLERANCE: f64 = 2e-5;

fn check(name: &str) {
    for session in load_everywhere(&fixture(name)) {
        let session = session.unwrap_or_else(|e| panic!("{name}: {e}"));
        let reference = json(&fixture(name).join("reference.json"));
        let mut worst = last_positions(&session, &reference).max(first_prompt(&session, &reference));
        worst = worst.max(every_position(&session, &reference));
        if fixture(name).join("hooks.safetensors").exists() {
            worst = worst.max(hooks(&session, &reference, name));
        }
        println!("{name}, {}, {:?}: largest error {worst:.1e}", session.device, session.transformer.kernels);
    }
}

/// What the reference says of a component; `at` picks the row from whatever it holds per component.
fn expected(component: &Component, reference: &Value, suffix: &str, at: impl Fn(&Value) -> f64) -> f64 {
    let of = |name: &str| &reference[format!("{name}{suffix}")];
    let (l, h) = (component.layer.unwrap_or(0), component.index.unwrap_or(0));
    match component.kind {
        Kind::Embed => at(of("embed")),
        Kind::PosEmbed => at(of("pos_embed")),
        Kind::Head => at(&of("head")[l][h]),
        Kind::AttnBias => at(&of("attn_bias")[l]),
        Kind::Mlp => at(&of("mlp")[l]),
        other => panic!("no {other:?} column in the unit of heads"),
    }
}

fn last_positions(session: &Session, reference: &Value) -> f64 {
    let result = attribute(session, &reference_call(reference)).unwrap();
    let components = Component::all(Unit::Head, &session.transformer.config);
    let mut worst = 0f64;
    for (i, of_row) in reference["attributions"].as_array().unwrap().iter().enumerate() {
        let columns: Vec<f64> = components.iter().map(|c| expected(c, of_row, "", |v| v.as_f64().unwrap())).collect();
        absent_is_zero(&components, of_row);
        worst = worst.max(close(&format!("prompt {i}"), row(&result, i, components.len()), &columns, TOLERANCE));
        let number = |name: &str| numbers(&of_row[name]);
        let certificate = result.certificates[i];
        worst = worst.max(close("constant", [result.constant[i]], &number("constant"), TOLERANCE));
        worst = worst.max(close("measured", [certificate.measured], &number("logit_difference"), TOLERANCE));
        worst = worst.max(close("total", [certificate.total], &number("logit_difference"), TOLERANCE));
        close("after the cap", [result.after_cap[i]], &number("logit_difference_of_model"), TOLERANCE);
    }
    for (i, prompt) in ids(&reference["prompts"]).into_iter().enumerate() {
        let seen = observe(session, prompt, &[]).unwrap();
        close("last logits", wide(&seen.logits(0).unwrap().1), &numbers(&reference["logits_last"][i]), TOLERANCE);
    }
    worst
}

/// A component that has no column has nothing to write.
fn absent_is_zero(components: &[Component], of_row: &Value) {
    for (kind, name) in [(Kind::PosEmbed, "pos_embed"), (Kind::AttnBias, "attn_bias")] {
        if components.iter().all(|c| c.kind != kind) {
            assert!(numbers(&of_row[name]).iter().all(|v| *v == 0.0), "{name} is missing");
        }
    }
}

fn row(result: &Attribution, i: usize, n: usize) -> Vec<f64> {
    wide(&result.values[i * n..(i + 1) * n])
}

fn first_prompt(session: &Session, reference: &Value) -> f64 {
    let n_layers = session.transformer.config.n_layers;
    let points = [BlockPoint::Pattern, BlockPoint::ResidPre, BlockPoint::ResidPost];
    let points: Vec<HookPoint> = (0..n_layers).flat_map(|l| points.map(|p| HookPoint::Block(l, p))).collect();
    let seen = observe(session, ids(&reference["prompts"]).remove(0), &points).unwrap();
    let of = &reference["first_prompt"];
    let values = |l, point| wide(&seen.values(HookPoint::Block(l, point), 0).unwrap().1);
    let mut worst = 0f64;
    for l in 0..n_layers {
        let pattern = close("pattern", values(l, BlockPoint::Pattern), &numbers(&of["pattern"][l]), TOLERANCE);
        let stream = &of["resid_pre_and_final"];
        let pre = close("resid_pre", values(l, BlockPoint::ResidPre), &numbers(&stream[l]), TOLERANCE);
        let post = close("resid_post", values(l, BlockPoint::ResidPost), &numbers(&stream[l + 1]), TOLERANCE);
        worst = worst.max(pattern).max(pre).max(post);
    }
    worst
}

fn every_position(session: &Session, reference: &Value) -> f64 {
    let mut call = reference_call(reference);
    call.asked.prompts.truncate(1);
    call.targets.truncate(1);
    call.asked.positions = Positions::All;
    let result = attribute(session, &call).unwrap();
    let mut components = Component::all(Unit::Head, &session.transformer.config);
    let n = components.len();
    let of = &reference["first_prompt"];
    let known = |c: &Component| c.kind == Kind::Head || of.get("embed_at_every_position").is_some();
    let columns: Vec<usize> = (0..n).filter(|i| known(&components[*i])).collect();
    components.retain(known);
    let mut worst = 0f64;
    for position in 0..result.rows.len() {
        let at = |c: &Component| expected(c, of, "_at_every_position", |v| v[position].as_f64().unwrap());
        let wanted: Vec<f64> = components.iter().map(at).collect();
        let all = row(&result, position, n);
        worst = worst.max(close("components", columns.iter().map(|c| all[*c]), &wanted, TOLERANCE));
        let measured = numbers(&of["logit_difference_at_every_position"][position]);
        close("measured", [result.certificates[position].measured], &measured, TOLERANCE);
    }
    worst
}

/// Every hook point that the model has, and no other, at every position of the first prompt.
fn hooks(session: &Session, reference: &Value, name: &str) -> f64 {
    let stored = candle_core::safetensors::load(fixture(name).join("hooks.safetensors"), &Device::Cpu).unwrap();
    let points = HookPoint::all(&session.transformer.config);
    let ours: BTreeSet<String> = points.iter().map(HookPoint::to_string).collect();
    let of_first = |key: &String| key.strip_prefix("0/").filter(|n| *n != "logits").map(String::from);
    assert_eq!(ours, stored.keys().filter_map(of_first).collect(), "{name}: which points exist");
    let seen = observe(session, ids(&reference["prompts"]).remove(0), &points).unwrap();
    let mut worst = 0f64;
    for point in points {
        let expected: &Tensor = &stored[&format!("0/{point}")];
        let (shape, values) = seen.values(point, 0).unwrap();
        assert_eq!(shape, expected.dims(), "{name}: {point}");
        let expected: Vec<f64> = expected.flatten_all().unwrap().to_dtype(DType::F64).unwrap().to_vec1().unwrap();
        worst = worst.max(close(&format!("{name}: {point}"), wide(&values), &expected, TOLERANCE));
    }
    worst
}

macro_rules! families {
    ($module:ident, $folder:literal: $($name:ident),* $(,)?) => {
        mod $module {
            $(#[test] fn $name() { super::check(concat!($folder, "/", stringify!($name))); })*

            #[test]
            fn none_is_left_out() {
                let here = [$(stringify!($name)),*];
                for entry in std::fs::read_dir(super::fixture($folder)).unwrap() {
                    let name = entry.unwrap().file_name().into_string().unwrap();
                    assert!(here.contains(&&*name), "{name} has no test");
                }
            }
        }
    };
}

families!(parity, "parity":
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

families!(variants, "variants":
    bloom_12_heads,
    bloom_6_heads,
    codegen_8_heads,
    cohere_qk_norm,
    falcon_alibi,
    falcon_alibi_12,
    falcon_new,
    falcon_new_one_norm,
    gemma2_bf16,
    gemma3_old,
    gemma3_rope,
    gemma_gelu,
    glm4_plain,
    gpt_bigcode_multi_head,
    gpt_neo_untied,
    gpt_neox_pct,
    gpt_oss_clamp,
    gptj_tied,
    granite_tied,
    llama_rope_dynamic,
    llama_rope_linear,
    llama_rope_llama3,
    llama_rope_yarn,
    llama_rope_yarn_factor,
    llama_rope_yarn_mscale,
    mistral_window_long,
    mixtral_bf16,
    mpt_6_heads,
    nemotron_bias,
    olmo3_yarn,
    olmo_bias,
    opt_plain,
    phi3_longrope,
    phi3_longrope_old,
    phi_qk_norm,
    qwen2_window,
    qwen3_bias,
    qwen3_moe_mixed,
    smollm3_window,
    stablelm_parallel,
    starcoder2_plain,
);

families!(more, "more":
    arcee,
    biogpt,
    biogpt_untied,
    cohere2,
    cohere2_old,
    cwm,
    dots1,
    ernie4_5,
    ernie4_5_moe,
    exaone4,
    exaone4_full,
    exaone4_old,
    exaone_moe,
    flex_olmo,
    flint,
    glm,
    glm4_moe,
    glm_old,
    granite_swa,
    granitemoe,
    granitemoe_swa,
    granitemoeshared,
    helium,
    hunyuan_v1_dense,
    hunyuan_v1_dense_old,
    hunyuan_v1_moe,
    hy_v3,
    hyperclovax,
    internlm3,
    iquestcoder,
    jais2,
    mellum,
    minimax_m2,
    ministral,
    olmoe,
    olmoe_bias,
    persimmon,
    persimmon_old,
    qwen2_moe,
    qwen2_moe_mixed,
    seed_oss,
    seed_oss_bias,
    solar_open,
    vaultgemma,
    vaultgemma_gelu,
    xglm,
);

fn resolve(config: &Value) -> ModelConfig {
    let raw = RawConfig::parse("config.json", config.to_string().as_bytes()).unwrap();
    ModelConfig::resolve(raw, false).unwrap_or_else(|e| panic!("{config}: {e}"))
}

/// As far as the classes have names for them; `null` where one has none.
#[test]
fn a_missing_key_means_what_it_means_in_transformers() {
    for (model_type, expected) in json(&fixture("defaults.json")).as_object().unwrap() {
        let config = resolve(&object!({ "model_type": model_type }));
        let mut found = serde_json::to_value(&config).unwrap();
        let rotary: Vec<_> = (0..config.n_layers).filter_map(|l| config.rotary(l)).collect();
        let mut thetas: Vec<f64> = rotary.iter().map(|r| r.theta).collect();
        thetas.sort_by(f64::total_cmp);
        thetas.dedup();
        found["theta"] = object!(thetas);
        found["rotaryDim"] = object!(rotary.first().map(|r| r.dim));
        found["eps"] = object!(config.norm.eps);
        for (name, value) in expected.as_object().unwrap().iter().filter(|(_, value)| !value.is_null()) {
            assert_eq!(&found[name], value, "{model_type}: {name}");
        }
    }
}

#[test]
fn null_is_an_even_split_and_not_a_missing_key() {
    let config = resolve(&object!({ "model_type": "seed_oss", "head_dim": null, "num_key_value_heads": null,
        "hidden_size": 64, "num_attention_heads": 16 }));
    assert_eq!((config.d_head, config.n_key_value_heads), (4, 16));
    assert_eq!(resolve(&object!({ "model_type": "ministral", "sliding_window": null })).windows, [None; 32]);
}

#[test]
fn what_a_class_does_otherwise_is_refused_by_name() {
    for (model_type, key, value) in [
        ("olmoe", "clip_qkv", object!(8.0)),
        ("cohere2", "use_parallel_block", object!(false)),
        ("cohere2", "use_qk_norm", object!(true)),
        ("cohere2", "position_embedding_type", object!("rope_neox")),
        ("hunyuan_v1_dense", "use_cla", object!(true)),
        ("hunyuan_v1_dense", "norm_type", object!("layer")),
    ] {
        let raw = object!({ "model_type": model_type, key: value }).to_string();
        let refused = error(ModelConfig::resolve(RawConfig::parse("config.json", raw.as_bytes()).unwrap(), false));
        assert_eq!((refused.code(), &refused.details()["key"]), ("CONFIG_UNSUPPORTED", &object!(key)), "{refused}");
    }
}

#[test]
fn models_that_are_no_sum_are_refused_with_the_reason() {
    for entry in std::fs::read_dir(fixture("refused")).unwrap() {
        let path = entry.unwrap().path();
        let dir = TempDir::new();
        std::fs::copy(&path, dir.join("config.json")).unwrap();
        let error = refusal(&dir.0);
        assert_eq!(error.code(), "CONFIG_UNSUPPORTED", "{}: {error}", path.display());
    }
    for (name, word) in
        [("opt_post_ln", "post-LN"), ("opt_projected", "matrices"), ("mamba", "state-space"), ("t5", "encoder")]
    {
        let dir = TempDir::new();
        std::fs::copy(fixture(&format!("refused/{name}.json")), dir.join("config.json")).unwrap();
        let text = refusal(&dir.0).to_string();
        assert!(text.contains("not the sum") && text.contains(word), "{text}");
    }
}
