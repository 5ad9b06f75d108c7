//! One model in every way that it may be stored: the numbers that come out are the same to the bit.

mod common;

use common::*;
use std::path::Path;

/// Logits of one prompt.
#[track_caller]
fn logits(dir: &Path) -> Vec<f32> {
    let session = load(dir).unwrap();
    observe(&session, vec![3, 1, 4, 1, 5, 9, 2, 6], &[]).unwrap().logits(0).unwrap().1
}

#[track_caller]
fn same(what: &str, changed: &TempDir, original: &str) {
    let (found, expected) = (logits(&changed.0), logits(&fixture(original)));
    assert!(found == expected, "{what}: {original} is another model when it is stored so");
}

// ---- names ----

#[test]
fn with_and_without_the_prefix() {
    for name in ["gpt2", "parity/llama", "parity/gpt_neox", "parity/bloom", "parity/falcon", "parity/opt", "parity/mpt"]
    {
        let config = load(&fixture(name)).unwrap().transformer.config;
        let (prefixes, head) = (config.layout.prefixes, config.layout.unembed);
        let dir = changed(name, |tensors| {
            let prefix = prefixes.iter().find(|prefix| tensors.keys().any(|key| key.starts_with(**prefix)));
            let prefix = prefix.unwrap_or_else(|| panic!("{name} has none of {prefixes:?}"));
            *tensors = std::mem::take(tensors)
                .into_iter()
                .map(|(key, tensor)| match key.strip_prefix(prefix) {
                    Some(bare) => (bare.to_string(), tensor),
                    None => {
                        assert!(key.starts_with(head), "{key}");
                        (key, tensor)
                    }
                })
                .collect();
        });
        same("without its prefix", &dir, name);
    }
}

// ---- experts ----

/// Tensors one behind the other as one, with `n` in front of their shape where `stack` says so.
fn joined(parts: Vec<(String, Vec<usize>, Vec<u8>)>, stack: bool) -> (String, Vec<usize>, Vec<u8>) {
    let (dtype, mut shape, _) = parts[0].clone();
    if stack {
        shape.insert(0, parts.len());
    } else {
        shape[0] = parts.iter().map(|(_, shape, _)| shape[0]).sum();
    }
    (dtype, shape, parts.into_iter().flat_map(|(_, _, bytes)| bytes).collect())
}

/// Puts experts that are stored one by one into the two tensors that transformers 5 holds in memory, as its
/// `save_original_format=False` writes them: gate and up one above the other, [n, 2 d_mlp, d_model].
fn stack(tensors: &mut Tensors, folder: &str, [gate, up, out]: [&str; 3], to: &str) -> usize {
    let mut layers = 0;
    for l in 0.. {
        let at = |e: usize, w: &str| format!("model.layers.{l}.{folder}.experts.{e}.{w}.weight");
        if !tensors.contains_key(&format!("model.layers.{l}.input_layernorm.weight"))
            && !tensors.contains_key(&format!("model.layers.{l}.self_attn.q_proj.weight"))
        {
            return layers;
        }
        let n = (0..).take_while(|e| tensors.contains_key(&at(*e, gate))).count();
        if n == 0 {
            continue; // a layer without experts
        }
        let mut take = |e: usize, w: &str| tensors.remove(&at(e, w)).unwrap();
        let both = (0..n).map(|e| joined(vec![take(e, gate), take(e, up)], false)).collect();
        let outs = (0..n).map(|e| take(e, out)).collect();
        tensors.insert(format!("model.layers.{l}.{to}.experts.gate_up_proj"), joined(both, true));
        tensors.insert(format!("model.layers.{l}.{to}.experts.down_proj"), joined(outs, true));
        if folder != to {
            let router = tensors.remove(&format!("model.layers.{l}.{folder}.gate.weight")).unwrap();
            tensors.insert(format!("model.layers.{l}.{to}.gate.weight"), router);
        }
        layers += 1;
    }
    unreachable!()
}

#[test]
fn experts_one_by_one_or_in_stacks() {
    const NAMES: [&str; 3] = ["gate_proj", "up_proj", "down_proj"];
    for (name, folder, names) in [
        ("parity/mixtral", "block_sparse_moe", ["w1", "w3", "w2"]),
        ("parity/qwen3_moe", "mlp", NAMES),
        ("variants/qwen3_moe_mixed", "mlp", NAMES), // has layers without experts
        ("more/qwen2_moe", "mlp", NAMES),
        ("more/olmoe", "mlp", NAMES),
        ("more/flex_olmo", "mlp", NAMES),
    ] {
        let dir = changed(name, |tensors| assert!(stack(tensors, folder, names, "mlp") > 0, "{name} has no experts"));
        same("experts in stacks", &dir, name);
    }
    let dir = changed("more/granitemoe", |tensors| {
        for (from, to) in [
            ("router.layer.weight", "router.weight"),
            ("input_linear.weight", "experts.gate_up_proj"),
            ("output_linear.weight", "experts.down_proj"),
        ] {
            for l in 0..2 {
                let name = |end: &str| format!("model.layers.{l}.block_sparse_moe.{end}");
                let tensor = tensors.remove(&name(from)).unwrap();
                tensors.insert(name(to), tensor);
            }
        }
    });
    same("experts by their new names", &dir, "more/granitemoe");
}

#[test]
fn experts_in_both_forms_are_one_too_many() {
    let dir = changed("parity/mixtral", |tensors| {
        let before = tensors.clone();
        stack(tensors, "block_sparse_moe", ["w1", "w3", "w2"], "mlp");
        tensors.extend(before);
    });
    assert_eq!(refusal(&dir.0).code(), "TENSOR_UNEXPECTED");
}

// ---- types ----

/// A tensor's values in another type that holds them exactly.
fn retyped(tensors: &mut Tensors, name: &str, dtype: &str) {
    let (from, _, bytes) = tensors.get_mut(name).unwrap();
    assert_eq!(from, "BF16");
    let values = bytes.as_chunks().0.iter().map(|b| half::bf16::from_le_bytes(*b).to_f32());
    let converted: Vec<u8> = match dtype {
        "F32" => values.flat_map(f32::to_le_bytes).collect(),
        _ => values
            .flat_map(|x| {
                assert_eq!(half::f16::from_f32(x).to_f32(), x, "{name} does not fit");
                half::f16::from_f32(x).to_le_bytes()
            })
            .collect(),
    };
    (*from, *bytes) = (dtype.into(), converted);
}

#[test]
fn several_types_in_one_file() {
    let dir = changed("gpt2_bf16", |tensors| {
        for (i, name) in tensors.keys().cloned().collect::<Vec<_>>().iter().enumerate() {
            let is_norm_gain = name.contains("ln_") && name.ends_with("weight"); // near 1, so that f16 holds it
            if is_norm_gain {
                retyped(tensors, name, "F16");
            } else if i % 2 == 0 {
                retyped(tensors, name, "F32");
            }
        }
        let types: std::collections::BTreeSet<_> = tensors.values().map(|(dtype, ..)| dtype.clone()).collect();
        assert_eq!(types.len(), 3, "{types:?}");
    });
    same("F32, F16 and BF16 together", &dir, "gpt2_bf16");
}

// ---- the tied unembedding ----

#[test]
fn a_tied_matrix_may_be_there_twice() {
    let twice = |tensors: &mut Tensors| {
        let copy = tensors["transformer.wte.weight"].clone();
        assert!(tensors.insert("lm_head.weight".into(), copy).is_none());
    };
    for name in ["gpt2", "gpt2_bf16"] {
        let dir = changed(name, twice);
        same("W_E twice", &dir, name);
        assert_eq!(load(&dir.0).unwrap().weight_bytes, load(&fixture(name)).unwrap().weight_bytes);
    }
    let dir = changed("gpt2_bf16", |tensors| {
        twice(tensors);
        retyped(tensors, "lm_head.weight", "F32");
    });
    same("W_E twice, in two types", &dir, "gpt2_bf16");
}

// ---- files ----

#[test]
fn shards_that_the_index_does_not_name_are_left_alone() {
    let dir = TempDir::copy_of("gpt2_sharded");
    dir.write("model-00006-of-00005.safetensors", "left over from another save");
    same("a shard too many", &dir, "gpt2_sharded");
    std::fs::copy(fixture("gpt2").join("model.safetensors"), dir.join("consolidated.safetensors")).unwrap();
    same("Mistral's own file beside it", &dir, "gpt2_sharded");
}
