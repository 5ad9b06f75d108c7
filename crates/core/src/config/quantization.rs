//! Quantised checkpoints. Their weights are codes that only the method's own kernels read; each method is refused by its
//! name, with the way to weights that can be read.

use super::RawConfig;
use crate::error::{PrismError, Result};
use serde_json::Value;
use std::path::Path;

/// What config.json says itself, and where the method's name stands below it. The second key is that of old
/// compressed-tensors checkpoints, the third that of MLX.
const KEYS: [&str; 3] = ["quantization_config", "compression_config", "quantization"];

/// What bitsandbytes wrote at the top level before there was a `quantization_config`.
const OLD_SWITCHES: [&str; 2] = ["load_in_8bit", "load_in_4bit"];

/// Files beside the weights: of AutoGPTQ, AutoAWQ and ModelOpt.
const FILES: [&str; 3] = ["quantize_config.json", "quant_config.json", "hf_quant_config.json"];

/// Limit of such a file, in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// How weights of a method become F32, F16 or BF16 again.
fn remedy(method: &str) -> String {
    let with = |config: &str| format!("from_pretrained(…, quantization_config={config}(dequantize=True))");
    let first = match method {
        "fp8" => with("FineGrainedFP8Config"),
        "mxfp4" => with("Mxfp4Config"),
        "bitsandbytes" | "gptq" | "awq" | "hqq" => "from_pretrained, model.dequantize()".into(),
        "compressed-tensors" | "compressed_tensors" => {
            "from_pretrained(…, quantization_config=CompressedTensorsConfig(run_compressed=False))".into()
        }
        _ => String::new(),
    };
    let make =
        if first.is_empty() { first } else { format!(", or make them: in transformers {first}, save_pretrained") };
    format!("weights quantised by {method} are not read; take the checkpoint that it was made from{make}")
}

/// The method that an object names, and the key that names it.
fn method(object: &Value) -> (&'static str, String) {
    let on = |key: &str| object[key] == true;
    match (&object["quant_method"], &object["quant_library"]) {
        (Value::String(name), _) => (".quant_method", name.to_lowercase()),
        (_, Value::String(name)) => (".quant_library", name.to_lowercase()),
        // bitsandbytes wrote no name at first
        _ if on("load_in_4bit") => (".load_in_4bit", "bitsandbytes".into()),
        _ if on("load_in_8bit") => (".load_in_8bit", "bitsandbytes".into()),
        _ => ("", "a method that is not named".into()),
    }
}

/// That the config says nothing of quantised weights.
///
/// # Errors
/// `CONFIG_UNSUPPORTED` with the key and the method, `CONFIG_INVALID` where a switch is none.
pub(super) fn check(raw: &RawConfig) -> Result<()> {
    for key in KEYS {
        if let Some(value) = raw.value(key) {
            let (below, method) = method(&value);
            return Err(raw.unsupported(&format!("{key}{below}"), &remedy(&method)));
        }
    }
    OLD_SWITCHES.iter().try_for_each(|key| raw.must_be_off(key, &remedy("bitsandbytes")))
}

/// That no file beside the weights says that they are quantised.
///
/// # Errors
/// `CONFIG_UNSUPPORTED` with what the file says, `CONFIG_INVALID` where it cannot be read.
pub fn check_files(dir: &Path) -> Result<()> {
    for (name, method) in FILES.into_iter().zip(["gptq", "awq", "modelopt"]) {
        let path = dir.join(name);
        if std::fs::symlink_metadata(&path).is_err() {
            continue;
        }
        let file = path.display().to_string();
        let bytes = crate::checkpoint::read_small(&path, MAX_BYTES, |found| PrismError::ConfigInvalid {
            file: file.clone(),
            key: "the file".into(),
            found,
            expected: "at most 1 MiB".into(),
        })?;
        let raw = RawConfig::parse(&file, &bytes)?;
        let says = |key: &&&str| raw.has(key);
        let key = ["quant_method", "quantization", "bits", "w_bit"].iter().find(says).unwrap_or(&"quant_method");
        let named = raw.text("quant_method").ok().flatten();
        return Err(raw.unsupported(key, &remedy(&named.unwrap_or_else(|| method.into()))));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn refusal(config: Value) -> Option<(String, String, String)> {
        let raw = RawConfig::parse("config.json", config.to_string().as_bytes()).unwrap();
        let details = check(&raw).err().map(|e| (e.code() == "CONFIG_UNSUPPORTED").then(|| e.details()).unwrap());
        details.map(|d| {
            let text = |key: &str| d[key].as_str().unwrap().to_string();
            (text("key"), text("value"), text("reason"))
        })
    }

    #[test]
    fn every_method_is_refused_by_its_name() {
        for method in [
            "gptq",
            "awq",
            "bitsandbytes",
            "fp8",
            "fbgemm_fp8",
            "mxfp4",
            "compressed-tensors",
            "hqq",
            "aqlm",
            "eetq",
            "quanto",
            "torchao",
            "modelopt",
            "a_method_of_next_year",
        ] {
            for key in KEYS {
                let (key_found, value, reason) =
                    refusal(json!({ "model_type": "llama", key: { "quant_method": method, "bits": 4 } })).unwrap();
                assert_eq!((key_found, value), (format!("{key}.quant_method"), format!("{method:?}")));
                assert!(reason.contains(&format!("by {method} ")), "{reason}");
                assert!(reason.contains("take the checkpoint that it was made from"), "{reason}");
            }
        }
        let (_, _, reason) = refusal(json!({ "quantization_config": { "quant_method": "mxfp4" } })).unwrap();
        assert!(reason.contains("Mxfp4Config(dequantize=True)"), "{reason}");
    }

    #[test]
    fn bitsandbytes_without_a_name_is_known_by_its_switch() {
        let nested =
            refusal(json!({ "quantization_config": { "load_in_8bit": true, "load_in_4bit": false } })).unwrap();
        assert_eq!((nested.0.as_str(), nested.1.as_str()), ("quantization_config.load_in_8bit", "true"));
        assert!(nested.2.contains("bitsandbytes"), "{}", nested.2);
        for key in OLD_SWITCHES {
            let top = refusal(json!({ key: true })).unwrap();
            assert_eq!((top.0.as_str(), top.1.as_str()), (key, "true"));
            assert_eq!(refusal(json!({ key: false })), None);
        }
    }

    #[test]
    fn what_says_nothing_is_harmless_and_what_says_little_is_not() {
        assert_eq!(refusal(json!({ "quantization_config": null, "compression_config": null })), None);
        for value in [json!({}), json!("4bit"), json!([]), json!({ "quant_method": null })] {
            assert_eq!(refusal(json!({ "quantization_config": value })).unwrap().0, "quantization_config", "{value}");
        }
    }
}
