//! HunYuan (dense): Llama with normed queries and keys, after the rotation. Defaults: `transformers` `HunYuanDenseV1Config`.

use super::Family;
use crate::config::common::{LlamaDefaults, attention_biases, llama_like};
use crate::config::{Layout, ModelConfig, QkNorm, QkSpan, RawConfig, RotaryScaling, limits, rope};
use crate::error::Result;

pub(super) const FAMILY: Family = Family { model_type: "hunyuan_v1_dense", resolve, harmless: &["eod_token_id"] };

const DEFAULTS: LlamaDefaults = LlamaDefaults { d_vocab: 290943, eps: ("rms_norm_eps", 1e-5), ..LlamaDefaults::LLAMA };

fn resolve(raw: &RawConfig) -> Result<ModelConfig> {
    hunyuan(raw, FAMILY.model_type)
}

/// All but the MLP, which HunYuan's model with experts has otherwise.
pub(super) fn hunyuan(raw: &RawConfig, family: &'static str) -> Result<ModelConfig> {
    let mut config = llama_like(raw, family, &DEFAULTS)?;
    config.biases = attention_biases(raw)?;
    config.qk_norm = Some(QkNorm { after_rotary: true, ..QkNorm::new(config.norm, QkSpan::Head) });
    config.layout = Layout {
        qk_norm: ["layers.{l}.self_attn.query_layernorm", "layers.{l}.self_attn.key_layernorm"],
        ..Layout::LLAMA
    };
    fixed_alpha(raw, &mut config)?;
    only_as_its_class(raw)?;
    Ok(config)
}

/// Keys of published configs that its class does not read: they may only say what it does anyway.
fn only_as_its_class(raw: &RawConfig) -> Result<()> {
    raw.must_be_off("mlp_bias", "the class has no bias there")?;
    raw.must_be_off("use_cla", "the class shares no keys and values between layers")?;
    raw.must_be_on("use_qk_norm", "the class always has a norm of queries and keys")?;
    raw.must_be_on("use_rotary_pos_emb", "the class has no other positions")?;
    match raw.text("norm_type")?.as_deref() {
        None | Some("rms") => Ok(()),
        Some(_) => Err(raw.unsupported("norm_type", "the class has no other norm than rms")),
    }
}

/// Dynamic scaling with an `alpha` is not dynamic: θ is multiplied by `alpha^(dim / (dim − 2))` at every length.
fn fixed_alpha(raw: &RawConfig, config: &mut ModelConfig) -> Result<()> {
    let Some(parameters) = raw.object("rope_parameters")?.or(raw.object("rope_scaling")?) else { return Ok(()) };
    let Some(rotary) = config.rotary(0) else { return Ok(()) };
    if let (RotaryScaling::Dynamic { .. }, Some(alpha)) = (&rotary.scaling, parameters.optional_positive("alpha")?) {
        parameters.ignore(&["beta_fast", "beta_slow", "mscale", "mscale_all_dim"]);
        let dim = config.d_head as f64;
        let mut rotary = rotary.clone();
        rotary.theta *= alpha.powf(dim / (dim - 2.0));
        rotary.scaling = RotaryScaling::Default;
        config.positions = rope::every_layer(rotary, config.n_layers);
        config.n_context = raw.count("max_position_embeddings", DEFAULTS.n_context, limits::CONTEXT)?;
    }
    Ok(())
}
