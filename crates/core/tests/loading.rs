//! A directory as a checkpoint: its tensors against its config, its shards against their index, and what is refused.
//!
//! The rules of loading, each with the test that fails when it is removed (`config/` and the tokenizer have their own):
//!
//! | rule | test |
//! |---|---|
//! | header ≤ 16 MiB, inside the file, one readable object | header.rs: `a_header_has_at_most_16_mib`, `files_shorter_…`, `what_is_not_an_object_…` |
//! | ≤ 65,536 tensors; names of 1 to 512 printable bytes | header.rs: `there_are_at_most_65536_tensors`, `names_are_short_and_printable` |
//! | rank ≤ 8, dims ≤ 2^40, products and offsets checked | header.rs: `shapes_have_limits`, `products_that_overflow_…`, `offsets_that_overflow_…` |
//! | ranges as long as type and shape say, contiguous, to the end | header.rs: `every_type_of_the_format_has_its_size`, `holes_overlaps_and_leftovers_…` |
//! | no name twice, in a file or between shards | header.rs: `what_is_not_an_object_…`; here: `a_tensor_in_two_shards_…`, `an_index_is_a_map_of_texts` |
//! | every tensor there, of the config's shape, F32, F16 or BF16 | `a_missing_tensor_…`, `a_tensor_of_another_shape_…`, `other_types_are_refused` |
//! | nothing left over but harmless buffers | `weights_that_nothing_uses_…`, `buffers_are_left_alone_…` |
//! | index ≤ 16 MiB, plain names, agrees with headers both ways | `an_index_is_a_map_of_texts`, `shards_are_plain_names_…`, `index_and_shards_agree_both_ways` |
//! | only regular files; none is waited for | files.rs: `pipes_and_directories_…`, `a_pipe_in_the_place_of_a_file_…` |
//! | links only into the repository's `blobs`, also at the moment of opening | files.rs: `other_links_…`, `a_link_that_leaves_…`, `a_link_in_the_place_of_a_file_…` |
//! | the same length and time before and after, of the file that was opened | files.rs: `a_file_that_changed_…`, `a_file_that_changes_while_it_is_loaded_…`, `a_small_file_that_changes_…` |
//! | memory ≤ weights + 64 MB; weights that do not fit are not begun | load_memory.rs; running.rs: `weights_that_do_not_fit_…` |
//! | config.json ≤ 1 MiB, sizes limited, unknown keys refused | `a_config_is_one_object_…`, `sizes_have_limits`, `a_key_that_nobody_knows_…` |
//! | pickles are never opened, whatever their name | `pickles_are_never_opened`; formats.rs: `a_pickle_is_one_whatever_its_name` |
//! | other formats, adapters and quantised weights by name | formats.rs |

mod common;

use common::*;
use logit_prism_core::config::{ModelConfig, RawConfig};
use logit_prism_core::session::LoadOptions;
use serde_json::{Value, json as object};

const QKV: &str = "transformer.h.1.attn.c_attn.weight";
const INDEX: &str = "model.safetensors.index.json";

#[track_caller]
fn check(dir: &TempDir, code: &str) -> Value {
    let error = refusal(&dir.0);
    assert_eq!(error.code(), code, "{error}");
    error.details()
}

/// `CHECKPOINT_INVALID` because of what `found` says.
#[track_caller]
fn invalid(dir: &TempDir, file: &str, found: &str) {
    let details = check(dir, "CHECKPOINT_INVALID");
    assert!(details["found"].as_str().unwrap().contains(found), "expected {found:?} in {details}");
    assert!(details["file"].as_str().unwrap().ends_with(file), "expected {file} in {details}");
}

/// One F32 tensor, all 0.
fn zeros(shape: &[usize]) -> (String, Vec<usize>, Vec<u8>) {
    ("F32".into(), shape.into(), vec![0; 4 * shape.iter().product::<usize>()])
}

// ---- tensors ----

#[test]
fn a_missing_tensor_is_named_with_its_shape() {
    for (name, shape) in [
        (QKV, object!([32, 96])),
        ("transformer.h.2.mlp.c_fc.bias", object!([128])),
        ("transformer.h.0.ln_1.bias", object!([32])),
        ("transformer.ln_f.weight", object!([32])),
        ("transformer.wpe.weight", object!([64, 32])),
    ] {
        let details = check(&changed("gpt2", |t| drop(t.remove(name))), "TENSOR_MISSING");
        assert_eq!(details, object!({ "tensor": name, "expected": shape }));
    }
    let details = check(&changed("gpt2_untied", |t| drop(t.remove("lm_head.weight"))), "TENSOR_MISSING");
    assert_eq!(details, object!({ "tensor": "lm_head.weight", "expected": [131, 24] }));
}

#[test]
fn a_tensor_of_another_shape_is_refused_with_both() {
    for (name, found, expected) in [
        (QKV, vec![96, 32], object!([32, 96])), // as torch.nn.Linear would store it
        (QKV, vec![32, 95], object!([32, 96])),
        (QKV, vec![32 * 96], object!([32, 96])),
        ("transformer.wte.weight", vec![102, 32], object!([101, 32])),
        ("transformer.h.0.attn.c_proj.bias", vec![1, 32], object!([32])),
    ] {
        let dir = changed("gpt2", |t| drop(t.insert(name.into(), zeros(&found))));
        let details = check(&dir, "TENSOR_SHAPE");
        assert_eq!(details, object!({ "tensor": name, "found": found, "expected": expected }));
    }
}

#[test]
fn other_types_are_refused() {
    for (dtype, bytes) in [("F64", 8), ("I32", 4), ("I8", 1), ("F8_E4M3", 1), ("BOOL", 1)] {
        let tensor = (dtype.to_string(), vec![32, 96], vec![0; 32 * 96 * bytes]);
        let details = check(&changed("gpt2", |t| drop(t.insert(QKV.into(), tensor))), "TENSOR_DTYPE");
        assert_eq!(details, object!({ "tensor": QKV, "found": dtype }));
    }
}

#[test]
fn weights_that_nothing_uses_are_refused() {
    for name in [
        "transformer.h.3.ln_1.bias", // a layer that the config does not have
        "transformer.h.0.attn.c_attn.lora_A",
        "transformer.h.3.attn.bias", // a buffer of such a layer
        "transformer.transformer.h.0.attn.bias",
        "score.weight",
    ] {
        let details = check(&changed("gpt2", |t| drop(t.insert(name.into(), zeros(&[3])))), "TENSOR_UNEXPECTED");
        assert_eq!(details, object!({ "tensors": [name] }));
    }
    let dir = changed("gpt2", |t| ["b.x", "a.y"].iter().for_each(|n| drop(t.insert((*n).into(), zeros(&[1])))));
    assert_eq!(check(&dir, "TENSOR_UNEXPECTED")["tensors"], object!(["a.y", "b.x"]));
}

#[test]
fn buffers_are_left_alone_whatever_their_type() {
    let dir = changed("gpt2", |t| {
        t.insert("transformer.h.0.attn.bias".into(), ("U8".into(), vec![1, 1, 4, 4], vec![1; 16]));
        t.insert("transformer.h.2.attn.masked_bias".into(), ("F64".into(), vec![], vec![0; 8]));
    });
    load(&dir.0).unwrap();
    let bare = changed("gpt2_bare", |t| assert!(t.contains_key("h.0.attn.bias"), "the fixture has buffers"));
    load(&bare.0).unwrap();
}

#[test]
fn a_tied_matrix_that_differs_is_refused() {
    let dir = changed("gpt2", |t| {
        let copy = t["transformer.wte.weight"].clone();
        t.insert("lm_head.weight".into(), copy);
        edit(t, "lm_head.weight", |w| w[3000] += 1e-6);
    });
    invalid(&dir, "lm_head.weight", "differs from the token embedding");
}

// ---- shards ----

/// The sharded fixture with its index changed.
fn indexed(f: impl FnOnce(&mut Value)) -> TempDir {
    let dir = TempDir::copy_of("gpt2_sharded");
    let mut index = json(&dir.join(INDEX));
    f(&mut index);
    dir.write(INDEX, index.to_string());
    dir
}

fn shard(i: usize) -> String {
    format!("model-0000{i}-of-00005.safetensors")
}

#[test]
fn a_missing_shard_is_named() {
    let dir = TempDir::copy_of("gpt2_sharded");
    std::fs::remove_file(dir.join(&shard(3))).unwrap();
    assert_eq!(check(&dir, "CHECKPOINT_MISSING")["missing"], shard(3).as_str());
}

#[test]
fn shards_are_plain_names_inside_the_directory() {
    for name in [
        "../x.safetensors",
        "/tmp/x.safetensors",
        "a/b.safetensors",
        "..",
        "x.bin",
        "x.safetensors.bin",
        ".safetensors",
        "",
        "x y.safetensors",
        "x\u{0}.safetensors",
        "ä.safetensors",
        "a\\b.safetensors",
    ] {
        let dir = indexed(|index| index["weight_map"]["transformer.wte.weight"] = name.into());
        invalid(&dir, INDEX, &format!("the shard name {name:?}"));
    }
    // any plain name will do
    let dir = indexed(|index| {
        for file in index["weight_map"].as_object_mut().unwrap().values_mut() {
            if *file == shard(2) {
                *file = "..A-9_z.safetensors".into();
            }
        }
    });
    std::fs::rename(dir.join(&shard(2)), dir.join("..A-9_z.safetensors")).unwrap();
    load(&dir.0).unwrap();
}

#[test]
fn index_and_shards_agree_both_ways() {
    let gone = indexed(|index| index["weight_map"]["transformer.extra"] = shard(1).into());
    invalid(&gone, INDEX, &format!("tensor transformer.extra, which {} does not hold", shard(1)));
    let unlisted = indexed(|index| {
        index["weight_map"].as_object_mut().unwrap().remove("transformer.h.0.ln_1.bias");
    });
    invalid(&unlisted, INDEX, "tensor transformer.h.0.ln_1.bias of model-00001-of-00005.safetensors not listed");
    let elsewhere = indexed(|index| index["weight_map"]["transformer.h.0.ln_1.bias"] = shard(2).into());
    invalid(&elsewhere, INDEX, "tensor transformer.h.0.ln_1.bias");
}

#[test]
fn a_tensor_in_two_shards_is_refused() {
    // an index lists a name once, so the second copy is one that the index does not list
    let dir = TempDir::copy_of("gpt2_sharded");
    let first = read_tensors(&dir.join(&shard(1)));
    let mut second = read_tensors(&dir.join(&shard(2)));
    second.insert("transformer.h.0.ln_1.bias".into(), first["transformer.h.0.ln_1.bias"].clone());
    write_tensors(&dir.join(&shard(2)), &second);
    invalid(&dir, INDEX, "tensor transformer.h.0.ln_1.bias of model-00002-of-00005.safetensors not listed");
}

#[test]
fn an_index_is_a_map_of_texts() {
    for text in [
        "",
        "[]",
        "{}",
        r#"{"weight_map": []}"#,
        r#"{"weight_map": {"a": 1}}"#,
        r#"{"weight_map": null}"#,
        r#"{"weight_map": {"a": "x.safetensors", "a": "x.safetensors"}}"#,
        r#"{"weight_map": {}, "weight_map": {"a": "x.safetensors"}}"#,
    ] {
        let dir = TempDir::copy_of("gpt2_sharded");
        dir.write(INDEX, text);
        invalid(&dir, INDEX, "not readable");
    }
    invalid(&indexed(|index| index["weight_map"] = object!({})), INDEX, "an empty weight_map");
    let dir = TempDir::copy_of("gpt2_sharded");
    dir.write(INDEX, [std::fs::read(dir.join(INDEX)).unwrap(), vec![b' '; 16 << 20]].concat());
    invalid(&dir, INDEX, "larger than 16777216 bytes");
}

#[test]
fn one_file_comes_before_an_index() {
    let dir = TempDir::copy_of("gpt2");
    dir.write(INDEX, "garbage");
    load(&dir.0).unwrap();
}

// ---- directories ----

#[test]
fn pickles_are_never_opened() {
    for name in ["pytorch_model.bin", "model.pt", "model.pth", "model.pkl", "model.ckpt"] {
        let dir = TempDir::copy_of("gpt2");
        std::fs::remove_file(dir.join("model.safetensors")).unwrap();
        dir.write(name, b"\x80\x04");
        let file = check(&dir, "PICKLE_REFUSED")["file"].as_str().unwrap().to_string();
        assert!(file.ends_with(name), "{file}");
        // beside weights that can be read, it does not matter
        std::fs::copy(fixture("gpt2").join("model.safetensors"), dir.join("model.safetensors")).unwrap();
        load(&dir.0).unwrap();
    }
}

#[test]
fn what_is_missing_is_named() {
    assert_eq!(check(&TempDir::new(), "CHECKPOINT_MISSING")["missing"], "config.json");
    let dir = TempDir::copy_of("gpt2");
    std::fs::remove_file(dir.join("model.safetensors")).unwrap();
    assert_eq!(check(&dir, "CHECKPOINT_MISSING")["missing"], "model.safetensors");
    let dir = TempDir::copy_of("gpt2");
    std::fs::remove_file(dir.join("config.json")).unwrap();
    assert_eq!(check(&dir, "CHECKPOINT_MISSING")["missing"], "config.json");
}

#[test]
fn what_is_no_directory_is_an_error_of_reading() {
    let dir = TempDir::copy_of("gpt2");
    for path in [dir.join("nowhere"), dir.join("config.json")] {
        let error = refusal(&path);
        assert_eq!((error.code(), &error.details()["operation"]), ("IO_ERROR", &object!("read the directory")));
    }
}

// ---- config.json ----

#[test]
fn a_config_is_one_object_of_at_most_1_mib() {
    for (text, found) in [
        (String::new(), "not readable"),
        ("[]".into(), "not readable"),
        (r#"{"n_layer": 3, "n_layer": 2}"#.into(), "\"n_layer\" occurs twice"),
        ("[".repeat(1 << 20), "not readable"),
        (format!("{{{}}}", " ".repeat(1 << 20)), "larger than 1048576 bytes"),
    ] {
        let dir = TempDir::copy_of("gpt2");
        dir.write("config.json", text);
        let details = check(&dir, "CONFIG_INVALID");
        assert!(details["found"].as_str().unwrap().contains(found), "{details}");
    }
    let dir = TempDir::copy_of("gpt2");
    let mut bytes = std::fs::read(dir.join("config.json")).unwrap();
    bytes.resize(1 << 20, b' ');
    dir.write("config.json", bytes);
    load(&dir.0).unwrap();
}

#[test]
fn a_key_that_nobody_knows_is_refused_or_recorded() {
    let dir = TempDir::copy_of("gpt2");
    let mut config = json(&dir.join("config.json"));
    config["attention_gate"] = 1.into();
    config["zeta"] = true.into();
    config["absent"] = Value::Null;
    dir.write("config.json", config.to_string());
    assert_eq!(check(&dir, "CONFIG_UNSUPPORTED")["key"], "attention_gate");
    let options = LoadOptions { allow_unknown_config: true, threads: Some(1), ..LoadOptions::default() };
    assert_eq!(load_with(&dir.0, &options).unwrap().transformer.config.unknown_keys, ["attention_gate", "zeta"]);
}

#[test]
fn sizes_have_limits() {
    let resolve = |key: &str, value: u64| {
        let mut config = object!({ "model_type": "gpt2", "n_embd": 8, "n_head": 8 });
        config[key] = value.into();
        ModelConfig::resolve(RawConfig::parse("config.json", config.to_string().as_bytes()).unwrap(), false)
    };
    for (key, limit) in [
        ("n_layer", 1024),
        ("n_embd", 1 << 18),
        ("vocab_size", 1 << 24),
        ("n_positions", 1 << 22),
        ("n_inner", 1 << 20),
    ] {
        assert!(resolve(key, limit).is_ok(), "{key}");
        for value in [0, limit + 1, u64::MAX] {
            let error = error(resolve(key, value));
            assert_eq!((error.code(), &error.details()["key"]), ("CONFIG_INVALID", &key.into()), "{key} = {value}");
        }
    }
    let heads = |n: u64| object!({ "model_type": "gpt2", "n_embd": 8194, "n_head": n }).to_string();
    let resolve = |json: String| ModelConfig::resolve(RawConfig::parse("c", json.as_bytes()).unwrap(), false);
    assert_eq!(resolve(heads(4097)).unwrap_err().details()["expected"], "a whole number from 1 to 4096"); // 8194 / 2
    assert_eq!(resolve(heads(2)).unwrap().d_head, 4097);
    let weights = resolve(object!({ "model_type": "gpt2", "n_embd": 8192, "n_head": 4096 }).to_string());
    assert_eq!(weights.unwrap().d_head, 2);
}
