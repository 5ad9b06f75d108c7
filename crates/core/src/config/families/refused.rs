//! Models that are known and refused, each with the reason. Two kinds: those whose residual stream is not the sum of what
//! their components write, which no attribution by this method can take apart, and those that nobody has written yet.
//! Read off the classes of transformers 5.23.

use super::ALL;
use crate::config::RawConfig;
use crate::error::PrismError;
use crate::suggest::nearest;

/// Models whose residual stream is not the sum of what their components wrote, and why.
const NOT_ADDITIVE: &[(&[&str], &str)] = &[
    (&["openai-gpt", "xlnet", "xlm"], "the norm after each addition rescales all that was written before it (post-LN)"),
    (
        &[
            "albert",
            "bert",
            "bert-generation",
            "big_bird",
            "camembert",
            "data2vec-text",
            "deberta",
            "deberta-v2",
            "distilbert",
            "electra",
            "ernie",
            "megatron-bert",
            "rembert",
            "roberta",
            "roc_bert",
            "roformer",
            "xlm-roberta",
            "xmod",
        ],
        "post-LN: the norm after each addition rescales all that was written before it; and it is no causal decoder",
    ),
    (
        &[
            "bart",
            "bigbird_pegasus",
            "blenderbot",
            "blenderbot-small",
            "blt",
            "m2m_100",
            "marian",
            "mbart",
            "mt5",
            "musicgen",
            "musicgen_melody",
            "mvp",
            "pegasus",
            "plbart",
            "prophetnet",
            "t5",
            "trocr",
            "umt5",
            "whisper",
        ],
        "an encoder and a decoder do not share one residual stream",
    ),
    (
        &[
            "falcon_mamba",
            "mamba",
            "mamba2",
            "recurrent_gemma",
            "rwkv",
            "rwkv5",
            "rwkv6",
            "rwkv7",
            "xlstm",
            "bamba",
            "falcon_h1",
            "granitemoehybrid",
            "jamba",
            "nemotron_h",
            "zamba",
            "zamba2",
        ],
        "state-space and recurrent blocks have no heads that write to the stream",
    ),
    (
        &[
            "bailing_hybrid",
            "kimi_linear",
            "minimax",
            "olmo_hybrid",
            "qwen3_5",
            "qwen3_5_moe",
            "qwen3_5_moe_text",
            "qwen3_5_text",
            "qwen3_next",
            "qwen4_exp",
            "qwen4_exp_text",
        ],
        "linear attention is a recurrence: its layers have no patterns, and no heads that write to the stream by one",
    ),
    (
        &["lfm2", "lfm2_moe", "lfm3", "inkling_text", "inkling2_text"],
        "convolutions over positions stand between heads or layers and the stream",
    ),
    (&["gemma3n", "gemma3n_text"], "AltUp keeps several streams and predicts one from the others"),
    (
        &["deepseek_v4", "hy_v4", "hrm_text"],
        "what is written is spread over several streams, or layers are run in loops",
    ),
    (&["doge", "zaya", "beam"], "the stream itself is rescaled at every addition"),
    (&["reformer"], "reversible layers keep two streams"),
    (&["bitnet"], "a norm stands between the heads and their output matrix, and the weights are ternary"),
    (&["diffllama"], "each head is the difference of two patterns, normed before the output matrix"),
];

/// Models whose stream may be a sum, and of which some part is not implemented.
const NOT_IMPLEMENTED: &[(&[&str], &str)] = &[
    (
        &[
            "axk1",
            "axk2",
            "deepseek_v2",
            "deepseek_v3",
            "deepseek_v32",
            "dots3_note",
            "dots3_note_text",
            "glm4_moe_lite",
            "glm_moe_dsa",
            "longcat_flash",
            "minicpm3",
            "youtu",
        ],
        "latent attention (MLA: low-rank keys and values, a rotary part of their own)",
    ),
    (&["afmoe", "laguna"], "a learned gate between the heads and their output matrix"),
    (&["cpmant"], "positions as learned biases of the scores, and prefixes that are read both ways"),
    (&["ctrl"], "its embedding is scaled, and its positions are added, in an order of their own"),
    (&["apertus"], "xIELU, an activation with learned parameters"),
    (&["dbrx"], "its fused experts and attention"),
    (&["gpt_neox_japanese"], "a bias that is added behind the output matrix, in the last layer only"),
    (&["jetmoe"], "experts in place of heads"),
    (&["llama4", "llama4_text"], "chunked attention, and scores that grow with the position"),
    (&["ministral3"], "queries that grow with the position"),
    (&["mimo_v2_flash"], "values of another width than keys"),
    (&["minimax_m3_vl_text"], "sparse attention that chooses its keys"),
    (&["modernbert-decoder"], "an unembedding behind a dense layer of its own"),
    (&["nanochat"], "a rotation in the other direction, and a norm of the embedding without weights"),
    (&["phimoe"], "sparse mixing, a router that masks the runner-up"),
    (&["cohere2_moe", "kolibri1"], "their ways of mixing the experts"),
    (&["openelm", "decilm", "nemotron-nas"], "layers of different widths"),
    (&["roberta-prelayernorm", "xlm-roberta-xl"], "encoders, whose tokens see those after them"),
];

/// The refusal of a `model_type` that is no family's.
pub(super) fn refusal(raw: &RawConfig, model_type: &str) -> PrismError {
    let known = |table: &'static [(&[&str], &'static str)]| {
        table.iter().find(|(types, _)| types.contains(&model_type)).map(|(_, reason)| *reason)
    };
    if let Some(reason) = known(NOT_ADDITIVE) {
        return not_additive(raw, "model_type", reason);
    }
    if let Some(reason) = known(NOT_IMPLEMENTED) {
        return raw.unsupported("model_type", &format!("not implemented: {reason}; {}", families()));
    }
    if raw.has("text_config") || raw.has("language_config") || raw.has("llm_config") {
        let reason = "a model of several modalities: save its language model as a checkpoint of its own (in transformers, \
                      model.model.language_model with the keys of text_config)";
        return raw.unsupported("model_type", &format!("{reason}; {}", families()));
    }
    if model_type.starts_with("RefinedWeb") {
        let reason = "Falcon before it was part of transformers: its repositories have a newer config.json with falcon";
        return raw.unsupported("model_type", reason);
    }
    let types = ALL.iter().map(|family| family.model_type);
    let near = match nearest(model_type, types).as_slice() {
        [] => String::new(),
        names => format!("did you mean {}? ", names.join(", ")),
    };
    let own_code = if raw.has("auto_map") { "it comes with code of its own, which is never run here; " } else { "" };
    raw.unsupported("model_type", &format!("{near}{own_code}{}", families()))
}

/// The refusal of a model that is no sum of its components.
pub(super) fn not_additive(raw: &RawConfig, key: &str, reason: &str) -> PrismError {
    raw.unsupported(key, &format!("its residual stream is not the sum of what its components write: {reason}"))
}

fn families() -> String {
    let known: Vec<_> = ALL.iter().map(|family| family.model_type).collect();
    format!("families implemented so far: {}", known.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(json: &str) -> String {
        let raw = RawConfig::parse("config.json", json.as_bytes()).unwrap();
        let model_type = raw.text("model_type").unwrap().unwrap();
        let error = super::super::find(&raw, &model_type).err().unwrap();
        assert_eq!(error.code(), "CONFIG_UNSUPPORTED");
        error.to_string()
    }

    #[test]
    fn each_name_stands_once_and_is_no_family() {
        let all: Vec<&str> =
            NOT_ADDITIVE.iter().chain(NOT_IMPLEMENTED).flat_map(|(types, _)| types.iter().copied()).collect();
        for (i, name) in all.iter().enumerate() {
            assert!(!all[..i].contains(name), "{name} stands twice");
            assert!(ALL.iter().all(|family| family.model_type != *name), "{name} is a family");
        }
    }

    #[test]
    fn reasons() {
        assert!(reason(r#"{"model_type": "xlnet"}"#).contains("post-LN"));
        assert!(reason(r#"{"model_type": "deepseek_v3"}"#).contains("MLA"));
        assert!(reason(r#"{"model_type": "lama"}"#).contains("did you mean llama"));
        assert!(reason(r#"{"model_type": "internlm2", "auto_map": {}}"#).contains("code of its own"));
        assert!(reason(r#"{"model_type": "llava", "text_config": {}}"#).contains("several modalities"));
        assert!(reason(r#"{"model_type": "RefinedWebModel"}"#).contains("falcon"));
    }
}
