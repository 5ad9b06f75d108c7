//! Configs with the keys and spelling of those on the hubs, most of which older versions of transformers wrote: they
//! resolve to the model that they mean, or are refused by the key that says why.

mod common;

use common::fixture;
use logit_prism_core::Result;
use logit_prism_core::config::{ModelConfig, RawConfig};

fn resolve(name: &str) -> Result<ModelConfig> {
    let path = fixture(&format!("hub/{name}.json"));
    ModelConfig::resolve(RawConfig::parse(name, &std::fs::read(path).unwrap())?, false)
}

/// Layers, heads, key-value heads, d_model, d_head, d_mlp, context, θ (0 without rotary positions).
const KNOWN: &[(&str, [usize; 8])] = &[
    ("codegen-350m", [20, 16, 16, 1024, 64, 4096, 2048, 10_000]),
    ("command-r", [40, 64, 64, 8192, 128, 22528, 8192, 8_000_000]),
    ("distilgpt2", [6, 12, 12, 768, 64, 3072, 1024, 0]),
    ("falcon-40b", [60, 128, 8, 8192, 64, 32768, 2048, 10_000]),
    ("falcon-7b", [32, 71, 1, 4544, 64, 18176, 2048, 10_000]),
    ("gemma-2-2b", [26, 8, 4, 2304, 256, 9216, 8192, 10_000]),
    ("gemma-2b", [18, 8, 1, 2048, 256, 16384, 8192, 10_000]),
    ("gemma-3-1b", [26, 4, 1, 1152, 256, 6912, 32768, 10_000]),
    ("glm-4-9b-0414", [40, 32, 2, 4096, 128, 13696, 32768, 10_000]),
    ("gpt-j-6b", [28, 16, 16, 4096, 256, 16384, 2048, 10_000]),
    ("gpt-neo-125m", [12, 12, 12, 768, 64, 3072, 2048, 0]),
    ("gpt2", [12, 12, 12, 768, 64, 3072, 1024, 0]),
    ("gpt2-medium", [24, 16, 16, 1024, 64, 4096, 1024, 0]),
    ("granite-3.0-2b", [40, 32, 8, 2048, 64, 8192, 4096, 10_000]),
    ("llama-2-7b", [32, 32, 32, 4096, 128, 11008, 4096, 10_000]),
    ("llama-3.2-1b", [16, 32, 8, 2048, 64, 8192, 131_072, 500_000]),
    ("minitron-4b", [32, 24, 8, 3072, 128, 9216, 4096, 10_000]),
    ("mistral-7b", [32, 32, 8, 4096, 128, 14336, 32768, 10_000]),
    ("mixtral-8x7b", [32, 32, 8, 4096, 128, 14336, 32768, 1_000_000]),
    ("mpt-7b", [32, 32, 32, 4096, 128, 16384, 2048, 0]),
    ("olmo-1b", [16, 16, 16, 2048, 128, 8192, 2048, 10_000]),
    ("olmo-2-7b", [32, 32, 32, 4096, 128, 11008, 4096, 500_000]),
    ("opt-125m", [12, 12, 12, 768, 64, 3072, 2048, 0]),
    ("phi-2", [32, 32, 32, 2560, 80, 10240, 2048, 10_000]),
    ("phi-3-mini-128k", [32, 32, 32, 3072, 96, 8192, 131_072, 10_000]),
    ("phi-3-mini-4k", [32, 32, 32, 3072, 96, 8192, 4096, 10_000]),
    ("pythia-160m", [12, 12, 12, 768, 64, 3072, 2048, 10_000]),
    ("qwen2-0.5b", [24, 14, 2, 896, 64, 4864, 131_072, 1_000_000]),
    ("qwen2.5-7b", [28, 28, 4, 3584, 128, 18944, 131_072, 1_000_000]),
    ("qwen3-0.6b", [28, 16, 8, 1024, 128, 3072, 40960, 1_000_000]),
    ("qwen3-30b-a3b", [48, 32, 4, 2048, 128, 768, 40960, 1_000_000]),
    ("smollm3-3b", [36, 16, 4, 2048, 128, 11008, 65536, 5_000_000]),
    ("stablelm-2-1_6b", [24, 32, 32, 2048, 64, 5632, 4096, 10_000]),
    ("starcoder2-3b", [30, 24, 2, 3072, 128, 12288, 16384, 999_999]),
    ("starcoderbase-1b", [24, 16, 1, 2048, 128, 8192, 8192, 0]),
    ("tinyllama-1.1b", [22, 32, 4, 2048, 64, 5632, 2048, 10_000]),
];

#[test]
fn configs_as_they_lie_on_the_hubs() {
    let refused: Vec<String> = KNOWN.iter().filter_map(|(name, _)| Some(format!("{}", resolve(name).err()?))).collect();
    assert!(refused.is_empty(), "{}", refused.join("\n"));
    for (name, expected) in KNOWN {
        let c = resolve(name).unwrap();
        let theta = c.rotary(0).map_or(0, |rotary| rotary.theta as usize);
        let sizes = [c.n_layers, c.n_heads, c.n_key_value_heads, c.d_model, c.d_head, c.d_mlp, c.n_context, theta];
        assert_eq!(sizes, *expected, "{name}");
    }
}

#[test]
fn bloom_has_no_longest_prompt() {
    let c = resolve("bloom-560m").unwrap();
    assert_eq!((c.n_layers, c.n_heads, c.d_model, c.d_mlp), (24, 16, 1024, 4096));
    assert!(c.n_context > 1 << 20);
}

#[test]
fn what_is_special_is_found_in_the_old_spelling() {
    let notes = |name: &str| resolve(name).unwrap().notes.join("; ");
    assert!(notes("llama-3.2-1b").contains("llama3 rotary scaling"));
    assert!(notes("phi-3-mini-128k").contains("longrope"));
    assert!(notes("pythia-160m").contains("part of each head"));
    assert!(notes("gemma-2-2b").contains("scores capped") && notes("gemma-2-2b").contains("logits capped"));
    assert!(notes("granite-3.0-2b").contains("logits × 0.125"));
    let gemma3 = resolve("gemma-3-1b").unwrap();
    assert_eq!((gemma3.windows[4], gemma3.windows[5]), (Some(512), None));
    assert_eq!((gemma3.rotary(4).unwrap().theta, gemma3.rotary(5).unwrap().theta), (10_000.0, 1_000_000.0));
    assert!(resolve("qwen2-0.5b").unwrap().windows.iter().all(Option::is_none)); // use_sliding_window is off
    assert_eq!(resolve("smollm3-3b").unwrap().rotary(3), None);
}

#[test]
fn quantised_weights_are_refused_by_name() {
    let error = resolve("gpt-oss-20b").unwrap_err();
    let key = "quantization_config.quant_method";
    assert_eq!((error.code(), error.details()["key"].as_str()), ("CONFIG_UNSUPPORTED", Some(key)));
    assert!(error.to_string().contains("mxfp4"), "{error}");
}

#[test]
fn none_is_left_out() {
    for entry in std::fs::read_dir(fixture("hub")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap().replace(".json", "");
        let elsewhere = ["bloom-560m", "gpt-oss-20b"].contains(&&*name);
        assert!(elsewhere || KNOWN.iter().any(|(known, _)| *known == name), "{name} has no test");
    }
}
