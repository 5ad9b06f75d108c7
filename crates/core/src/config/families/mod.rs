//! The families, a file each: from the raw keys of a config to a [`ModelConfig`], or a refusal with its reason. Each file
//! cites its transformers class for the defaults of missing keys and for the mathematics.

mod arcee;
mod biogpt;
mod bloom;
mod codegen;
mod cohere;
mod cohere2;
mod cwm;
mod dots1;
mod ernie4_5;
mod ernie4_5_moe;
mod exaone4;
mod exaone_moe;
mod falcon;
mod flex_olmo;
mod flint;
mod gemma;
mod gemma2;
mod gemma3;
mod glm;
mod glm4;
mod glm4_moe;
mod gpt2;
mod gpt_bigcode;
mod gpt_neo;
mod gpt_neox;
mod gpt_oss;
mod gptj;
mod granite;
mod granite_swa;
mod granitemoe;
mod granitemoe_swa;
mod granitemoeshared;
mod helium;
mod hunyuan_v1_dense;
mod hunyuan_v1_moe;
mod hy_v3;
mod hyperclovax;
mod internlm3;
mod iquestcoder;
mod jais2;
mod llama;
mod mellum;
mod minimax_m2;
mod ministral;
mod mistral;
mod mixtral;
mod mpt;
mod nemotron;
mod olmo;
mod olmo2;
mod olmo3;
mod olmoe;
mod opt;
mod persimmon;
mod phi;
mod phi3;
mod qwen2;
mod qwen2_moe;
mod qwen3;
mod qwen3_moe;
mod refused;
mod seed_oss;
mod smollm3;
mod solar_open;
mod stablelm;
mod starcoder2;
mod vaultgemma;
mod xglm;

use super::{ModelConfig, RawConfig};
use crate::error::Result;
use refused::not_additive;

/// A family: the `model_type` of its config and what reads it.
pub(super) struct Family {
    pub model_type: &'static str,
    pub resolve: fn(&RawConfig) -> Result<ModelConfig>,
    /// Keys that cannot change a number of the forward pass, besides those of every family.
    pub harmless: &'static [&'static str],
}

pub(super) const ALL: &[Family] = &[
    arcee::FAMILY,
    biogpt::FAMILY,
    bloom::FAMILY,
    codegen::FAMILY,
    cohere::FAMILY,
    cohere2::FAMILY,
    cwm::FAMILY,
    dots1::FAMILY,
    ernie4_5::FAMILY,
    ernie4_5_moe::FAMILY,
    exaone4::FAMILY,
    exaone_moe::FAMILY,
    falcon::FAMILY,
    flex_olmo::FAMILY,
    flint::FAMILY,
    gemma::FAMILY,
    gemma2::FAMILY,
    gemma3::FAMILY,
    glm::FAMILY,
    glm4::FAMILY,
    glm4_moe::FAMILY,
    gpt2::FAMILY,
    gpt_bigcode::FAMILY,
    gpt_neo::FAMILY,
    gpt_neox::FAMILY,
    gpt_oss::FAMILY,
    gptj::FAMILY,
    granite::FAMILY,
    granite_swa::FAMILY,
    granitemoe::FAMILY,
    granitemoe_swa::FAMILY,
    granitemoeshared::FAMILY,
    helium::FAMILY,
    hunyuan_v1_dense::FAMILY,
    hunyuan_v1_moe::FAMILY,
    hy_v3::FAMILY,
    hyperclovax::FAMILY,
    internlm3::FAMILY,
    iquestcoder::FAMILY,
    jais2::FAMILY,
    llama::FAMILY,
    mellum::FAMILY,
    minimax_m2::FAMILY,
    ministral::FAMILY,
    mistral::FAMILY,
    mixtral::FAMILY,
    mpt::FAMILY,
    nemotron::FAMILY,
    olmo::FAMILY,
    olmo2::FAMILY,
    olmo3::FAMILY,
    olmoe::FAMILY,
    opt::FAMILY,
    persimmon::FAMILY,
    phi::FAMILY,
    phi3::FAMILY,
    qwen2::FAMILY,
    qwen2_moe::FAMILY,
    qwen3::FAMILY,
    qwen3_moe::FAMILY,
    seed_oss::FAMILY,
    smollm3::FAMILY,
    solar_open::FAMILY,
    stablelm::FAMILY,
    starcoder2::FAMILY,
    vaultgemma::FAMILY,
    xglm::FAMILY,
];

/// The family of a `model_type`.
///
/// # Errors
/// `CONFIG_UNSUPPORTED`, with the reason where the model cannot be decomposed.
pub(super) fn find(raw: &RawConfig, model_type: &str) -> Result<&'static Family> {
    if let Some(family) = ALL.iter().find(|f| f.model_type == model_type) {
        return Ok(family);
    }
    Err(refused::refusal(raw, model_type))
}
