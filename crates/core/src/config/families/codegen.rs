//! CodeGen: GPT-J with queries, values and keys in four blocks of one matrix. Defaults: `transformers` `CodeGenConfig`.

use super::{Family, gpt2, gptj};
use crate::config::{Layout, MlpNames, ModelConfig, Orientation, Qkv, RawConfig};
use crate::error::Result;

pub(super) const FAMILY: Family = Family { model_type: "codegen", resolve, harmless: gptj::HARMLESS };

const LAYOUT: Layout = Layout {
    pos_embed: None,
    ln2: None,
    qkv: Qkv::InFourBlocks("h.{l}.attn.qkv_proj"),
    attn_out: "h.{l}.attn.out_proj",
    mlp: MlpNames::Plain(["h.{l}.mlp.fc_in", "h.{l}.mlp.fc_out"]),
    orientation: Orientation::OutIn,
    harmless: &["h.{l}.attn.causal_mask", "h.{l}.attn.bias", "h.{l}.attn.masked_bias"],
    ..gpt2::LAYOUT
};

fn resolve(raw: &RawConfig) -> Result<ModelConfig> {
    let config = gptj::gptj_like(raw, FAMILY.model_type, LAYOUT)?;
    if !config.n_heads.is_multiple_of(4) {
        return Err(raw.invalid("n_head", config.n_heads, "a multiple of 4, the blocks of the fused matrix"));
    }
    Ok(config)
}
