//! Directories that hold a model in a form that cannot be read: each is refused by its name, with what to do.

mod common;

use common::*;
use serde_json::{Value, json as object};

#[track_caller]
fn refused(dir: &TempDir, code: &str) -> Value {
    let error = refusal(&dir.0);
    assert_eq!(error.code(), code, "{error}");
    error.details()
}

/// `CHECKPOINT_INVALID` for this file because of what `found` says; the message says what would do.
#[track_caller]
fn invalid(dir: &TempDir, file: &str, found: &str, remedy: &str) {
    let details = refused(dir, "CHECKPOINT_INVALID");
    assert!(details["file"].as_str().unwrap().ends_with(file), "expected {file} in {details}");
    assert!(details["found"].as_str().unwrap().contains(found), "expected {found:?} in {details}");
    assert!(details["expected"].as_str().unwrap().contains(remedy), "expected {remedy:?} in {details}");
}

/// The gpt2 fixture without its weights.
fn without_weights() -> TempDir {
    let dir = TempDir::copy_of("gpt2");
    std::fs::remove_file(dir.join("model.safetensors")).unwrap();
    dir
}

// ---- other formats ----

#[test]
fn weights_of_other_programs_are_refused_by_name() {
    for (name, found, remedy) in [
        ("model-q4_k_m.gguf", "GGUF", "gguf_file"),
        ("Model.GGUF", "GGUF", "gguf_file"),
        ("ggml-model.ggml", "GGML", "made from"),
        ("model.onnx", "ONNX", "exported from"),
        ("flax_model.msgpack", "Flax", "from_flax"),
        ("tf_model.h5", "TensorFlow", "from_tf"),
        ("model.nemo", "NeMo", "Hugging Face format"),
        ("weights.npz", "MLX", "save_pretrained"),
        ("consolidated.safetensors", "Mistral", "Hugging Face format"),
    ] {
        let dir = without_weights();
        dir.write(name, "x");
        invalid(&dir, name, found, remedy);
        std::fs::remove_file(dir.join("config.json")).unwrap(); // as such directories mostly come
        invalid(&dir, name, found, remedy);
        let dir = TempDir::copy_of("gpt2"); // beside weights that can be read, it does not matter
        dir.write(name, "x");
        load(&dir.0).unwrap();
    }
}

#[test]
fn shards_without_an_index_are_not_guessed_at() {
    let dir = TempDir::copy_of("gpt2_sharded");
    std::fs::remove_file(dir.join("model.safetensors.index.json")).unwrap();
    assert_eq!(refused(&dir, "CHECKPOINT_MISSING")["missing"], "model.safetensors.index.json");
}

#[test]
fn an_adapter_is_refused_with_and_without_a_model() {
    for (files, named) in [
        (&["adapter_config.json", "adapter_model.safetensors"][..], "adapter_config.json"),
        (&["adapter_model.safetensors"], "adapter_model.safetensors"),
        (&["adapter_config.json", "adapter_model.bin"], "adapter_config.json"),
    ] {
        for dir in [without_weights(), TempDir::copy_of("gpt2")] {
            files.iter().for_each(|name| dir.write(name, "{}"));
            invalid(&dir, named, "an adapter", "merge_and_unload");
        }
    }
}

#[test]
fn a_file_is_known_by_its_content_not_its_name() {
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n";
    for (bytes, found, remedy) in [
        (pointer.as_bytes(), "git-LFS pointer", "git lfs pull"),
        (b"GGUF\x03\0\0\0\x23\x01\0\0\0\0\0\0", "GGUF", "made from"),
        (b"\x89HDF\r\n\x1a\n\0\0\0\0", "HDF5", "save_pretrained"),
        (b"<!DOCTYPE html><html>", "a page", "download"),
        (b"\n  <html lang=\"en\">", "a page", "download"),
    ] {
        let dir = TempDir::copy_of("gpt2");
        dir.write("model.safetensors", bytes);
        invalid(&dir, "model.safetensors", found, remedy);
        let dir = TempDir::copy_of("gpt2_sharded");
        dir.write("model-00002-of-00005.safetensors", bytes);
        invalid(&dir, "model-00002-of-00005.safetensors", found, remedy);
    }
}

#[test]
fn a_pickle_is_one_whatever_its_name() {
    for bytes in [&b"\x80\x02}q\0(X\x05\0\0\0"[..], b"\x80\x04\x95\x10\0\0\0\0", b"PK\x03\x04\0\0\x08\x08\0\0"] {
        let dir = TempDir::copy_of("gpt2");
        dir.write("model.safetensors", bytes);
        let file = refused(&dir, "PICKLE_REFUSED")["file"].as_str().unwrap().to_string();
        assert!(file.ends_with("model.safetensors"), "{file}");
    }
    for name in ["pytorch_model.bin", "consolidated.00.pth", "model.pt", "MODEL.BIN", "x.pickle"] {
        let dir = without_weights();
        dir.write(name, b"\x80\x02");
        assert!(refused(&dir, "PICKLE_REFUSED")["file"].as_str().unwrap().ends_with(name));
    }
}

// ---- quantised weights ----

#[test]
fn a_file_beside_the_weights_tells() {
    for (name, text, key, method) in [
        ("quantize_config.json", r#"{"bits": 4, "group_size": 128}"#, "bits", "gptq"),
        ("quantize_config.json", r#"{"bits": 4, "quant_method": "marlin"}"#, "quant_method", "marlin"),
        ("quant_config.json", r#"{"zero_point": true, "w_bit": 4, "version": "GEMM"}"#, "w_bit", "awq"),
        ("hf_quant_config.json", r#"{"quantization": {"quant_algo": "FP8"}}"#, "quantization", "modelopt"),
        ("quantize_config.json", "{}", "quant_method", "gptq"),
    ] {
        let dir = TempDir::copy_of("gpt2");
        dir.write(name, text);
        let details = refused(&dir, "CONFIG_UNSUPPORTED");
        assert_eq!(details["key"], key);
        assert!(details["file"].as_str().unwrap().ends_with(name), "{details}");
        assert!(details["reason"].as_str().unwrap().contains(&format!("quantised by {method} ")), "{details}");
    }
    for text in ["[", "[4]", ""] {
        let dir = TempDir::copy_of("gpt2");
        dir.write("quant_config.json", text);
        refused(&dir, "CONFIG_INVALID");
    }
}

#[test]
fn the_config_tells() {
    let dir = TempDir::copy_of("gpt2");
    let mut config = json(&dir.join("config.json"));
    config["quantization_config"] = object!({ "quant_method": "bitsandbytes", "load_in_4bit": true });
    dir.write("config.json", config.to_string());
    let details = refused(&dir, "CONFIG_UNSUPPORTED");
    assert_eq!(
        (&details["key"], &details["value"]),
        (&"quantization_config.quant_method".into(), &"\"bitsandbytes\"".into())
    );
    config["quantization_config"] = Value::Null;
    dir.write("config.json", config.to_string());
    load(&dir.0).unwrap();
}

#[test]
fn where_only_the_tensors_tell_their_type_is_named() {
    const C_FC: &str = "transformer.h.1.mlp.c_fc";
    let tensor = |dtype: &str, shape: &[usize], size: usize| {
        (dtype.to_string(), shape.to_vec(), vec![0; shape.iter().product::<usize>() * size])
    };
    // GPTQ and AWQ, compressed-tensors, MXFP4: under longer names
    for (end, dtype) in [(".qweight", "I32"), (".weight_packed", "I32"), ("_blocks", "U8"), (".weight_codes", "I16")] {
        let dir = changed("gpt2", |t| {
            t.remove(&format!("{C_FC}.weight"));
            let size = [("I32", 4), ("U8", 1), ("I16", 2)].iter().find(|(d, _)| *d == dtype).unwrap().1;
            t.insert(format!("{C_FC}{end}"), tensor(dtype, &[4, 128], size));
            t.insert(format!("{C_FC}.scales"), tensor("F16", &[1, 128], 2));
        });
        let details = refused(&dir, "TENSOR_DTYPE");
        assert_eq!(details, object!({ "tensor": format!("{C_FC}{end}"), "found": dtype }));
    }
    // FP8, 8-bit and 4-bit bitsandbytes: under the weight's own name, the last in another shape
    for (dtype, shape) in [("F8_E4M3", &[32, 128][..]), ("I8", &[32, 128]), ("U8", &[2048, 1])] {
        let dir = changed("gpt2", |t| drop(t.insert(format!("{C_FC}.weight"), tensor(dtype, shape, 1))));
        let details = refused(&dir, "TENSOR_DTYPE");
        assert_eq!(details, object!({ "tensor": format!("{C_FC}.weight"), "found": dtype }));
        assert!(refusal(&dir.0).to_string().contains("quantised"), "{}", refusal(&dir.0));
    }
}
