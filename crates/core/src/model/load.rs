//! From a checkpoint's tensors to a model. Every tensor is asked for with the shape that the config says; what is left
//! over at the end is refused. Linear layers come out as `[in, out]` whatever their orientation on disk.

use super::{Attention, Block, Embed, Linear, Mlp, NormLayer, Transformer, Unembed};
use crate::checkpoint::Checkpoint;
use crate::config::{Layout, ModelConfig, Orientation};
use crate::error::{PrismError, Result};
use candle_core::{Device, Tensor};

/// Builds the model; `progress` is called with the layers done after each one.
///
/// # Errors
/// `TENSOR_MISSING`, `TENSOR_SHAPE`, `TENSOR_DTYPE`, `TENSOR_UNEXPECTED`, `CHECKPOINT_INVALID`, `IO_ERROR`, and what
/// `progress` returns.
pub fn load(
    config: ModelConfig,
    checkpoint: &Checkpoint,
    device: &Device,
    mut progress: impl FnMut(usize) -> Result<()>,
) -> Result<Transformer> {
    let layout = &config.layout;
    let prefix = if checkpoint.contains(&format!("{}{}", layout.prefix, layout.embed)) { layout.prefix } else { "" };
    let loader = Loader { config: &config, checkpoint, prefix, device };

    let embed = loader.embed()?;
    let mut blocks = Vec::new();
    for l in 0..config.n_layers {
        blocks.push(loader.block(l)?);
        progress(l + 1)?;
    }
    let ln_final = loader.norm(layout.ln_final)?;
    let unembed = loader.unembed(&embed)?;
    checkpoint.finish(|name| {
        let bare = name.strip_prefix(prefix).unwrap_or(name);
        layout.is_harmless(bare, config.n_layers)
    })?;
    Ok(Transformer { embed, blocks, ln_final, unembed, device: device.clone(), config })
}

struct Loader<'a> {
    config: &'a ModelConfig,
    checkpoint: &'a Checkpoint,
    prefix: &'a str,
    device: &'a Device,
}

impl Loader<'_> {
    fn embed(&self) -> Result<Embed> {
        let c = self.config;
        Ok(Embed {
            tokens: self.tensor(&format!("{}{}", self.prefix, c.layout.embed), &[c.d_vocab, c.d_model])?,
            positions: self.tensor(&format!("{}{}", self.prefix, c.layout.pos_embed), &[c.n_context, c.d_model])?,
        })
    }

    fn block(&self, l: usize) -> Result<Block> {
        let c = self.config;
        let at = |pattern| Layout::at(pattern, l);
        let z_width = c.n_heads * c.d_head;
        let qkv_width = z_width + 2 * c.n_key_value_heads * c.d_head;
        Ok(Block {
            layer: l,
            ln1: self.norm(&at(c.layout.ln1))?,
            attention: Attention {
                qkv: self.linear(&at(c.layout.qkv), c.d_model, qkv_width)?,
                output: self.linear(&at(c.layout.attn_out), z_width, c.d_model)?,
                scale: c.attention_scale[l],
                n_heads: c.n_heads,
                n_key_value_heads: c.n_key_value_heads,
                d_head: c.d_head,
            },
            ln2: self.norm(&at(c.layout.ln2))?,
            mlp: Mlp {
                input: self.linear(&at(c.layout.mlp_in), c.d_model, c.d_mlp)?,
                output: self.linear(&at(c.layout.mlp_out), c.d_mlp, c.d_model)?,
                activation: c.activation,
            },
        })
    }

    fn norm(&self, name: &str) -> Result<NormLayer> {
        let vector = |end| self.tensor(&format!("{}{name}.{end}", self.prefix), &[self.config.d_model]);
        Ok(NormLayer { norm: self.config.norm, gamma: vector("weight")?, beta: vector("bias")? })
    }

    fn linear(&self, name: &str, n_in: usize, n_out: usize) -> Result<Linear> {
        let name = format!("{}{name}", self.prefix);
        let weight = format!("{name}.weight");
        let weight = match self.config.layout.orientation {
            Orientation::InOut => self.tensor(&weight, &[n_in, n_out])?,
            Orientation::OutIn => self.tensor(&weight, &[n_out, n_in])?.t()?.contiguous()?,
        };
        Ok(Linear { weight, bias: Some(self.tensor(&format!("{name}.bias"), &[n_out])?) })
    }

    /// Tied to the token embedding, or a matrix of its own. A file may hold a tied matrix once more; then it must be
    /// the same, for a different one would say that the config is wrong.
    fn unembed(&self, embed: &Embed) -> Result<Unembed> {
        let c = self.config;
        let (name, shape) = (c.layout.unembed, [c.d_vocab, c.d_model]);
        if !c.tied_embeddings {
            return Ok(Unembed::new(self.tensor(name, &shape)?, None, 1.0));
        }
        if self.checkpoint.contains(name) {
            let stored = self.tensor(name, &shape)?;
            if stored.ne(&embed.tokens)?.to_dtype(candle_core::DType::F32)?.sum_all()?.to_scalar::<f32>()? != 0.0 {
                return Err(PrismError::CheckpointInvalid {
                    file: name.into(),
                    found: "differs from the token embedding, though the config ties them".into(),
                    expected: "the same matrix, or tie_word_embeddings: false".into(),
                });
            }
        }
        Ok(Unembed::new(embed.tokens.clone(), None, 1.0))
    }

    fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        Ok(Tensor::from_vec(self.checkpoint.read(name, shape)?, shape, self.device)?)
    }
}
