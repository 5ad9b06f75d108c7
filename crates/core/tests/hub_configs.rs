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
    ("biogpt", [24, 16, 16, 1024, 64, 4096, 1024, 0]),
    ("cerebras-gpt-111m", [10, 12, 12, 768, 64, 3072, 2048, 0]),
    ("codegen-350m", [20, 16, 16, 1024, 64, 4096, 2048, 10_000]),
    ("command-r", [40, 64, 64, 8192, 128, 22528, 8192, 8_000_000]),
    ("deepseek-llm-7b", [30, 32, 32, 4096, 128, 11008, 4096, 10_000]),
    ("dialogpt-medium", [24, 16, 16, 1024, 64, 4096, 1024, 0]),
    ("distilgpt2", [6, 12, 12, 768, 64, 3072, 1024, 0]),
    ("falcon-40b", [60, 128, 8, 8192, 64, 32768, 2048, 10_000]),
    ("falcon-7b", [32, 71, 1, 4544, 64, 18176, 2048, 10_000]),
    ("falcon-rw-1b", [24, 32, 32, 2048, 64, 8192, 2048, 0]),
    ("gemma-2-2b", [26, 8, 4, 2304, 256, 9216, 8192, 10_000]),
    ("gemma-2b", [18, 8, 1, 2048, 256, 16384, 8192, 10_000]),
    ("gemma-3-1b", [26, 4, 1, 1152, 256, 6912, 32768, 10_000]),
    ("gemma-7b", [28, 16, 16, 3072, 256, 24576, 8192, 10_000]),
    ("glm-4-9b-0414", [40, 32, 2, 4096, 128, 13696, 32768, 10_000]),
    ("glm-4-9b-hf", [40, 32, 2, 4096, 128, 13696, 131_072, 10_000]),
    ("gpt-j-6b", [28, 16, 16, 4096, 256, 16384, 2048, 10_000]),
    ("gpt-neo-1.3b", [24, 16, 16, 2048, 128, 8192, 2048, 0]),
    ("gpt-neo-125m", [12, 12, 12, 768, 64, 3072, 2048, 0]),
    ("gpt-neox-20b", [44, 64, 64, 6144, 96, 24576, 2048, 10_000]),
    ("gpt2", [12, 12, 12, 768, 64, 3072, 1024, 0]),
    ("gpt2-medium", [24, 16, 16, 1024, 64, 4096, 1024, 0]),
    ("gpt2-xl", [48, 25, 25, 1600, 64, 6400, 1024, 0]),
    ("granite-3.0-1b-a400m", [24, 16, 8, 1024, 64, 512, 4096, 10_000]),
    ("granite-3.0-2b", [40, 32, 8, 2048, 64, 8192, 4096, 10_000]),
    ("llama-2-7b", [32, 32, 32, 4096, 128, 11008, 4096, 10_000]),
    ("llama-2-7b-32k", [32, 32, 32, 4096, 128, 11008, 32768, 10_000]),
    ("llama-3-8b", [32, 32, 8, 4096, 128, 14336, 8192, 500_000]),
    ("llama-3.1-8b", [32, 32, 8, 4096, 128, 14336, 131_072, 500_000]),
    ("llama-3.2-1b", [16, 32, 8, 2048, 64, 8192, 131_072, 500_000]),
    ("llama-7b-decapoda", [32, 32, 32, 4096, 128, 11008, 2048, 10_000]),
    ("minitron-4b", [32, 24, 8, 3072, 128, 9216, 4096, 10_000]),
    ("mistral-7b", [32, 32, 8, 4096, 128, 14336, 32768, 10_000]),
    ("mistral-7b-instruct-v0.2", [32, 32, 8, 4096, 128, 14336, 32768, 1_000_000]),
    ("mixtral-8x7b", [32, 32, 8, 4096, 128, 14336, 32768, 1_000_000]),
    ("mpt-30b", [48, 64, 64, 7168, 112, 28672, 8192, 0]),
    ("mpt-7b", [32, 32, 32, 4096, 128, 16384, 2048, 0]),
    ("olmo-1b", [16, 16, 16, 2048, 128, 8192, 2048, 10_000]),
    ("olmo-2-7b", [32, 32, 32, 4096, 128, 11008, 4096, 500_000]),
    ("olmoe-1b-7b", [16, 16, 16, 2048, 128, 1024, 4096, 10_000]),
    ("opt-1.3b", [24, 32, 32, 2048, 64, 8192, 2048, 0]),
    ("opt-125m", [12, 12, 12, 768, 64, 3072, 2048, 0]),
    ("persimmon-8b", [36, 64, 64, 4096, 64, 16384, 16384, 25_000]),
    ("phi-1_5", [24, 32, 32, 2048, 64, 8192, 2048, 10_000]),
    ("phi-2", [32, 32, 32, 2560, 80, 10240, 2048, 10_000]),
    ("phi-3-medium-128k-su", [40, 40, 10, 5120, 128, 17920, 131_072, 10_000]),
    ("phi-3-mini-128k", [32, 32, 32, 3072, 96, 8192, 131_072, 10_000]),
    ("phi-3-mini-4k", [32, 32, 32, 3072, 96, 8192, 4096, 10_000]),
    ("phi-4-mini", [32, 24, 8, 3072, 128, 8192, 131_072, 10_000]),
    ("pythia-160m", [12, 12, 12, 768, 64, 3072, 2048, 10_000]),
    ("pythia-70m", [6, 8, 8, 512, 64, 2048, 2048, 10_000]),
    ("qwen1.5-0.5b", [24, 16, 16, 1024, 64, 2816, 32768, 1_000_000]),
    ("qwen1.5-moe-a2.7b", [24, 16, 16, 2048, 128, 1408, 8192, 1_000_000]),
    ("qwen2-0.5b", [24, 14, 2, 896, 64, 4864, 131_072, 1_000_000]),
    ("qwen2.5-7b", [28, 28, 4, 3584, 128, 18944, 131_072, 1_000_000]),
    ("qwen3-0.6b", [28, 16, 8, 1024, 128, 3072, 40960, 1_000_000]),
    ("qwen3-30b-a3b", [48, 32, 4, 2048, 128, 768, 40960, 1_000_000]),
    ("smollm-135m", [30, 9, 3, 576, 64, 1536, 2048, 10_000]),
    ("smollm2-135m", [30, 9, 3, 576, 64, 1536, 8192, 100_000]),
    ("smollm3-3b", [36, 16, 4, 2048, 128, 11008, 65536, 5_000_000]),
    ("solar-10.7b", [48, 32, 8, 4096, 128, 14336, 4096, 10_000]),
    ("stablelm-2-1_6b", [24, 32, 32, 2048, 64, 5632, 4096, 10_000]),
    ("stablelm-3b-4e1t", [32, 32, 32, 2560, 80, 6912, 4096, 10_000]),
    ("starcoder2-3b", [30, 24, 2, 3072, 128, 12288, 16384, 999_999]),
    ("starcoderbase-1b", [24, 16, 1, 2048, 128, 8192, 8192, 0]),
    ("tinyllama-1.1b", [22, 32, 4, 2048, 64, 5632, 2048, 10_000]),
    ("xglm-564m", [24, 16, 16, 1024, 64, 4096, 2048, 0]),
    ("yi-6b", [32, 32, 4, 4096, 128, 11008, 4096, 5_000_000]),
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

/// Which key refuses, and a word of the reason.
const REFUSED: &[(&str, &str, &str)] = &[
    ("deepseek-v2-lite", "model_type", "latent attention"),
    ("falcon-40b-refinedweb", "model_type", "newer config.json"),
    ("falcon-7b-refinedweb", "model_type", "newer config.json"),
    ("gemma-3-4b", "model_type", "text_config"),
    ("gpt-oss-20b", "quantization_config.quant_method", "mxfp4"),
    ("internlm2-7b", "model_type", "code of its own"),
    ("llama-2-7b-gptq", "quantization_config.quant_method", "gptq"),
    ("llama-3-8b-bnb-4bit", "quantization_config.quant_method", "bitsandbytes"),
    ("llava-1.5-7b", "model_type", "text_config"),
    ("mistral-7b-awq", "quantization_config.quant_method", "awq"),
    ("olmo-7b-own-code", "model_type", "families implemented"),
    ("openai-gpt", "model_type", "post-LN"),
    ("opt-350m", "do_layer_norm_before", "post-LN"),
    ("phi-1_5-mixformer", "model_type", "code of its own"),
    ("qwen-7b", "model_type", "code of its own"),
    ("santacoder", "attention_head_type", "nobody here knows"),
];

#[test]
fn what_is_refused_is_refused_by_the_key_that_says_why() {
    for (name, key, word) in REFUSED {
        let error = resolve(name).unwrap_err();
        assert_eq!((error.code(), error.details()["key"].as_str()), ("CONFIG_UNSUPPORTED", Some(*key)), "{error}");
        assert!(error.to_string().contains(word), "{error}");
    }
}

#[test]
fn none_is_left_out() {
    for entry in std::fs::read_dir(fixture("hub")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap().replace(".json", "");
        let known = KNOWN.iter().any(|(known, _)| *known == name) || REFUSED.iter().any(|(known, ..)| *known == name);
        assert!(known || name == "bloom-560m", "{name} has no test");
    }
}
