//! What loading takes: never more than the weights and 64 MB, whatever type and order they are stored in. Each
//! checkpoint is loaded in a process of its own, whose largest resident size the kernel knows.
#![cfg(target_os = "linux")]

mod common;

use common::*;
use logit_prism_core::session::LoadOptions;
use serde_json::{Value, json as object};
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::Command;

const CHILD: &str = "LOGIT_PRISM_LOADS";
const THREADS: &str = "LOGIT_PRISM_LOADS_ON";
const SPARE: u64 = 64_000_000;

/// Name and shape of a tensor.
type Stored = (String, Vec<usize>);

/// Sizes: each matrix is larger than what may be spare, so that one second copy of one of them is too much.
const D: usize = 3072;
const M: usize = 4096;
const V: usize = 6400;

fn stored(names: &[(&str, &[usize])]) -> Vec<Stored> {
    names.iter().map(|(name, shape)| (name.to_string(), shape.to_vec())).collect()
}

fn llama_config(model_type: &str, more: Value) -> Value {
    let mut config = object!({
        "model_type": model_type, "hidden_size": D, "intermediate_size": M, "num_hidden_layers": 1,
        "num_attention_heads": 24, "num_key_value_heads": 24, "vocab_size": V, "tie_word_embeddings": true,
    });
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    config
}

fn llama_tensors(rest: &[(&str, &[usize])]) -> Vec<Stored> {
    let all: [(&str, &[usize]); 5] = [
        ("model.embed_tokens.weight", &[V, D]),
        ("model.layers.0.self_attn.o_proj.weight", &[D, D]),
        ("model.layers.0.input_layernorm.weight", &[D]),
        ("model.layers.0.post_attention_layernorm.weight", &[D]),
        ("model.norm.weight", &[D]),
    ];
    stored(&[&all, rest].concat())
}

const QKV: [(&str, &[usize]); 3] = [
    ("model.layers.0.self_attn.q_proj.weight", &[D, D]),
    ("model.layers.0.self_attn.k_proj.weight", &[D, D]),
    ("model.layers.0.self_attn.v_proj.weight", &[D, D]),
];

const MLP: [(&str, &[usize]); 3] = [
    ("model.layers.0.mlp.gate_proj.weight", &[M, D]),
    ("model.layers.0.mlp.up_proj.weight", &[M, D]),
    ("model.layers.0.mlp.down_proj.weight", &[D, M]),
];

/// Writes a checkpoint of zeros, which takes no room on the disk, and checks a load of it.
#[track_caller]
fn check(dtype: &str, config: Value, tensors: Vec<Stored>) {
    check_on(2, dtype, config, tensors);
}

#[track_caller]
fn check_on(threads: usize, dtype: &str, config: Value, mut tensors: Vec<Stored>) {
    let dir = TempDir::new();
    dir.write("config.json", config.to_string());
    tensors.sort();
    write_zeros(&dir.join("model.safetensors"), dtype, &tensors);
    let numbers: usize = tensors.iter().map(|(_, shape)| shape.iter().product::<usize>()).sum();
    let copies = tensors.iter().filter(|(name, _)| name == "lm_head.weight" && config["tie_word_embeddings"] == true);
    let tied_twice = copies.count() * V * D;
    // weights lie in panels of 16 columns: a router of two experts is filled up
    let routers = tensors.iter().filter(|(name, shape)| *shape == [2, D] && name.ends_with(".weight")).count();
    let weights = 4 * (numbers - tied_twice + routers * 14 * D) as u64;
    assert!(weights >= 300_000_000, "{weights} bytes are too few to tell");

    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "loads_what_it_is_told", "--nocapture"])
        .env(CHILD, &dir.0)
        .env(THREADS, threads.to_string())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&child.stdout).into_owned() + &String::from_utf8_lossy(&child.stderr);
    let figures = text.lines().find_map(|line| line.split_once("loaded: ")).unwrap_or_else(|| panic!("{text}")).1;
    let [taken, peak, seconds]: [f64; 3] =
        figures.split(' ').map(|n| n.parse().unwrap()).collect::<Vec<_>>().try_into().unwrap();
    assert_eq!(taken as u64, weights, "the weights that the session counts");
    println!(
        "{} {dtype}: {:.0} MB, {:.0} MB beside them, {seconds:.2} s",
        config["model_type"],
        weights / 1_000_000,
        (peak - weights as f64) / 1e6
    );
    assert!(peak as u64 <= weights + SPARE, "{peak} bytes for {weights} bytes of weights");
}

fn write_zeros(path: &Path, dtype: &str, tensors: &[Stored]) {
    let mut header = serde_json::Map::new();
    let (mut end, size) = (0, if dtype == "F32" { 4 } else { 2 });
    for (name, shape) in tensors {
        let next = end + shape.iter().product::<usize>() * size;
        header.insert(name.clone(), object!({ "dtype": dtype, "shape": shape, "data_offsets": [end, next] }));
        end = next;
    }
    let header = serde_json::to_vec(&header).unwrap();
    let mut file = File::create(path).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(&header).unwrap();
    file.set_len((8 + header.len() + end) as u64).unwrap();
}

/// A line of /proc/self/status, in bytes.
fn status(key: &str) -> u64 {
    let text = fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(key)).unwrap();
    line.trim_matches(|c: char| !c.is_ascii_digit()).parse::<u64>().unwrap() * 1024
}

/// In a child process of [`check`]: loads, and prints the bytes of the weights, the largest growth, and the time.
#[test]
fn loads_what_it_is_told() {
    let Some(dir) = std::env::var_os(CHILD) else { return };
    let threads = std::env::var(THREADS).unwrap().parse().unwrap();
    let before = status("VmRSS:");
    let start = std::time::Instant::now();
    let session =
        load_with(Path::new(&dir), &LoadOptions { threads: Some(threads), ..LoadOptions::default() }).unwrap();
    let seconds = start.elapsed().as_secs_f64();
    println!("loaded: {} {} {seconds}", session.weight_bytes, status("VmHWM:") - before);
}

#[test]
fn matrices_in_any_type_and_order() {
    let llama = || llama_tensors(&[QKV, MLP].concat());
    for dtype in ["F32", "F16", "BF16"] {
        check(dtype, llama_config("llama", object!({})), llama());
    }
    let mut twice = llama();
    twice.push(("lm_head.weight".into(), vec![V, D]));
    check("F32", llama_config("llama", object!({})), twice);

    let fused: [(&str, &[usize]); 3] = [
        ("model.layers.0.self_attn.qkv_proj.weight", &[3 * D, D]),
        ("model.layers.0.mlp.gate_up_proj.weight", &[2 * M, D]),
        ("model.layers.0.mlp.down_proj.weight", &[D, M]),
    ];
    check("BF16", llama_config("phi3", object!({})), llama_tensors(&fused));
}

#[test]
fn conv1d_matrices_and_an_unembedding_of_its_own() {
    let config = object!({
        "model_type": "gpt2", "n_embd": D, "n_inner": M, "n_layer": 1, "n_head": 24, "vocab_size": V,
        "n_positions": 64, "tie_word_embeddings": false,
    });
    let names: [(&str, &[usize]); 17] = [
        ("wte.weight", &[V, D]),
        ("wpe.weight", &[64, D]),
        ("h.0.attn.c_attn.weight", &[D, 3 * D]),
        ("h.0.attn.c_attn.bias", &[3 * D]),
        ("h.0.attn.c_proj.weight", &[D, D]),
        ("h.0.attn.c_proj.bias", &[D]),
        ("h.0.mlp.c_fc.weight", &[D, M]),
        ("h.0.mlp.c_fc.bias", &[M]),
        ("h.0.mlp.c_proj.weight", &[M, D]),
        ("h.0.mlp.c_proj.bias", &[D]),
        ("h.0.ln_1.weight", &[D]),
        ("h.0.ln_1.bias", &[D]),
        ("h.0.ln_2.weight", &[D]),
        ("h.0.ln_2.bias", &[D]),
        ("ln_f.weight", &[D]),
        ("ln_f.bias", &[D]),
        ("lm_head.weight", &[V, D]),
    ];
    check("F32", config.clone(), stored(&names));
    check_on(512, "F32", config.clone(), stored(&names)); // each with its own blocks
    check("F16", config, stored(&names));
}

#[test]
fn fused_matrices_in_another_order() {
    let neox = object!({
        "model_type": "gpt_neox", "hidden_size": D, "intermediate_size": M, "num_hidden_layers": 1,
        "num_attention_heads": 24, "vocab_size": V, "tie_word_embeddings": true,
    });
    let mut tensors = vec![("gpt_neox.embed_in.weight".into(), vec![V, D])];
    for (name, n_out, n_in) in [
        ("attention.query_key_value", 3 * D, D),
        ("attention.dense", D, D),
        ("mlp.dense_h_to_4h", M, D),
        ("mlp.dense_4h_to_h", D, M),
    ] {
        tensors.push((format!("gpt_neox.layers.0.{name}.weight"), vec![n_out, n_in]));
        tensors.push((format!("gpt_neox.layers.0.{name}.bias"), vec![n_out]));
    }
    for name in ["layers.0.input_layernorm", "layers.0.post_attention_layernorm", "final_layer_norm"] {
        tensors.extend(["weight", "bias"].map(|end| (format!("gpt_neox.{name}.{end}"), vec![D])));
    }
    check("F16", neox, tensors);

    let codegen = object!({
        "model_type": "codegen", "n_embd": D, "n_inner": M, "n_layer": 1, "n_head": 24, "vocab_size": V,
        "rotary_dim": 64, "tie_word_embeddings": false,
    });
    let names: [(&str, &[usize]); 13] = [
        ("transformer.wte.weight", &[V, D]),
        ("transformer.h.0.attn.qkv_proj.weight", &[3 * D, D]),
        ("transformer.h.0.attn.out_proj.weight", &[D, D]),
        ("transformer.h.0.mlp.fc_in.weight", &[M, D]),
        ("transformer.h.0.mlp.fc_in.bias", &[M]),
        ("transformer.h.0.mlp.fc_out.weight", &[D, M]),
        ("transformer.h.0.mlp.fc_out.bias", &[D]),
        ("transformer.h.0.ln_1.weight", &[D]),
        ("transformer.h.0.ln_1.bias", &[D]),
        ("transformer.ln_f.weight", &[D]),
        ("transformer.ln_f.bias", &[D]),
        ("lm_head.weight", &[V, D]),
        ("lm_head.bias", &[V]),
    ];
    check("BF16", codegen, stored(&names));
}

#[test]
fn experts_in_stacks_and_one_by_one() {
    let router = |name: &str| (name.to_string(), vec![2, D]);
    let gpt_oss = llama_config(
        "gpt_oss",
        object!({ "num_local_experts": 2, "num_experts_per_tok": 2, "head_dim": 128, "intermediate_size": M / 2,
            "attention_bias": false }),
    );
    let mut tensors = llama_tensors(&QKV);
    tensors.push(router("model.layers.0.mlp.router.weight"));
    tensors.extend(stored(&[
        ("model.layers.0.mlp.router.bias", &[2]),
        ("model.layers.0.self_attn.sinks", &[24]),
        ("model.layers.0.mlp.experts.gate_up_proj", &[2, D, M]),
        ("model.layers.0.mlp.experts.gate_up_proj_bias", &[2, M]),
        ("model.layers.0.mlp.experts.down_proj", &[2, M / 2, D]),
        ("model.layers.0.mlp.experts.down_proj_bias", &[2, D]),
    ]));
    check("BF16", gpt_oss, tensors);

    let experts =
        |model_type| llama_config(model_type, object!({ "num_local_experts": 2, "intermediate_size": M / 2 }));
    let mut tensors = llama_tensors(&QKV);
    tensors.push(router("model.layers.0.block_sparse_moe.router.layer.weight"));
    tensors.extend(stored(&[
        ("model.layers.0.block_sparse_moe.input_linear.weight", &[2, M, D]),
        ("model.layers.0.block_sparse_moe.output_linear.weight", &[2, D, M / 2]),
    ]));
    check("F32", experts("granitemoe"), tensors);

    let mut tensors = llama_tensors(&QKV);
    tensors.push(router("model.layers.0.block_sparse_moe.gate.weight"));
    for e in 0..2 {
        let name = |w: &str| format!("model.layers.0.block_sparse_moe.experts.{e}.{w}.weight");
        tensors.extend([(name("w1"), vec![M / 2, D]), (name("w3"), vec![M / 2, D]), (name("w2"), vec![D, M / 2])]);
    }
    check("F16", experts("mixtral"), tensors);
}
