//! The residual stack itself: the vector that every component of a unit wrote, so that other tools can take over.
//!
//! A head's vector is `z(l,h) W_O(l)[h]`, a neuron's `a_n W_out[n]`; through a norm behind the sublayer held at its
//! scale of the run, and times the block's multiplier, as the stream got it.

use super::component::{Component, Kind, Unit};
use crate::error::Result;
use crate::hook::{BlockPoint, HookPoint};
use crate::model::{Block, NormLayer, Transformer};
use crate::ops::Kernels;
use crate::tap::Activations;
use candle_core::Tensor;

/// How far up the stream components are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Depth {
    /// Blocks that have written all they write.
    pub blocks: usize,
    /// Whether the next block's attention has written as well.
    pub attention: bool,
}

impl Depth {
    /// Everything: the stream that enters the final norm.
    pub fn all(model: &Transformer) -> Self {
        Depth { blocks: model.config.n_layers, attention: false }
    }

    /// The depth of a point of the residual stream; `None` for other points.
    pub fn of(point: HookPoint) -> Option<Self> {
        match point {
            HookPoint::Block(l, BlockPoint::ResidPre) => Some(Depth { blocks: l, attention: false }),
            HookPoint::Block(l, BlockPoint::ResidMid) => Some(Depth { blocks: l, attention: true }),
            HookPoint::Block(l, BlockPoint::ResidPost) => Some(Depth { blocks: l + 1, attention: false }),
            _ => None,
        }
    }

    /// Whether a component has written by then.
    pub fn has(self, component: &Component) -> bool {
        let of_attention = matches!(component.kind, Kind::Head | Kind::AttnBias | Kind::Attn);
        component.layer.is_none_or(|l| l < self.blocks || (l == self.blocks && self.attention && of_attention))
    }
}

/// What every component of `unit` up to `depth` wrote at the kept rows, in the order of `Component::all`:
/// [rows, components, d_model]. It needs the points of [`super::points`].
///
/// # Errors
/// `INTERNAL` where an activation is not there.
pub(crate) fn stack(model: &Transformer, activations: &Activations, unit: Unit, depth: Depth) -> Result<Tensor> {
    Ok(Tensor::cat(&writes(model, activations, unit, depth)?, 1)?)
}

/// The same in its parts, [rows, some components, d_model] each.
///
/// # Errors
/// As [`stack`].
pub(super) fn writes(model: &Transformer, activations: &Activations, unit: Unit, depth: Depth) -> Result<Vec<Tensor>> {
    let config = &model.config;
    let embeddings = [HookPoint::Embed, HookPoint::PosEmbed].into_iter().filter(|p| p.absent(config).is_none());
    let mut writes = embeddings.map(|p| Ok(activations.kept(p)?.unsqueeze(1)?)).collect::<Result<Vec<_>>>()?;
    for block in model.blocks.iter().take(depth.blocks + usize::from(depth.attention)) {
        let attention = attention(block, activations, config.has_attn_bias(), model.kernels)?;
        match unit {
            Unit::Layer => writes.push(Tensor::cat(&attention, 1)?.sum_keepdim(1)?),
            Unit::Head | Unit::Neuron => writes.extend(attention),
        }
        if block.layer == depth.blocks {
            continue; // its attention alone has written
        }
        match unit {
            Unit::Neuron => writes.extend(neurons(model, block, activations)?),
            _ => {
                let point = HookPoint::Block(block.layer, BlockPoint::MlpOut);
                writes.push(activations.kept(point)?.unsqueeze(1)?);
            }
        }
    }
    Ok(writes)
}

/// The heads, [rows, H, d_model], and the bias, [rows, 1, d_model].
fn attention(block: &Block, activations: &Activations, has_bias: bool, kernels: Kernels) -> Result<Vec<Tensor>> {
    let z = activations.kept(HookPoint::Block(block.layer, BlockPoint::Z))?;
    let through = Through::new(block, &block.ln1_post, BlockPoint::Ln1PostScale, activations)?;
    let mut writes = vec![through.parts(&block.attention.head_results(z, kernels)?)?];
    if has_bias {
        let bias = block.attention.output.bias.as_ref().map(|b| b.reshape((1, 1, ()))).transpose()?;
        writes.push(through.bias(bias, z.dim(0)?)?);
    }
    Ok(writes)
}

/// The neurons, [rows, d_mlp, d_model] per hidden layer, and the bias.
fn neurons(model: &Transformer, block: &Block, activations: &Activations) -> Result<Vec<Tensor>> {
    let through = Through::new(block, &block.ln2_post, BlockPoint::Ln2PostScale, activations)?;
    let layers = block.hidden_layers(activations, model.kernels)?;
    let mut writes = Vec::new();
    let mut bias: Option<Tensor> = None;
    for layer in &layers {
        let parts = layer
            .values
            .unsqueeze(2)?
            .broadcast_mul(&layer.output.weight.dense()?.unsqueeze(0)?.to_dtype(layer.values.dtype())?)?;
        writes.push(through.parts(&parts)?);
        if let Some(b) = &layer.output.bias {
            let weighted = match &layer.weight {
                Some(weight) => weight.broadcast_mul(&b.unsqueeze(0)?)?.unsqueeze(1)?,
                None => b.reshape((1, 1, ()))?,
            };
            bias = Some(match bias {
                Some(sum) => (sum + weighted)?,
                None => weighted,
            });
        }
    }
    if model.config.has_mlp_bias() {
        let rows = layers.first().map_or(Ok(0), |layer| layer.values.dim(0))?;
        writes.push(through.bias(bias, rows)?);
    }
    Ok(writes)
}

/// What lies between a sublayer's raw output and the stream: a norm at its scale of the run, and the multiplier.
struct Through<'a> {
    post: Option<(&'a NormLayer, Tensor)>,
    block: &'a Block,
}

impl<'a> Through<'a> {
    fn new(block: &'a Block, post: &'a Option<NormLayer>, scale: BlockPoint, kept: &Activations) -> Result<Self> {
        let post = match post {
            Some(post) => Some((post, kept.kept(HookPoint::Block(block.layer, scale))?.unsqueeze(1)?)),
            None => None,
        };
        Ok(Through { post, block })
    }

    /// Parts of the raw output, [rows or 1, parts, d_model], as the stream gets them.
    fn parts(&self, raw: &Tensor) -> Result<Tensor> {
        let parts = match &self.post {
            Some((post, scale)) => post.linear_part(raw, scale)?,
            None => raw.clone(),
        };
        Ok(if self.block.multiplier == 1.0 { parts } else { (parts * self.block.multiplier)? })
    }

    /// The bias of the raw output and the β of the norm: [rows, 1, d_model].
    fn bias(&self, raw: Option<Tensor>, rows: usize) -> Result<Tensor> {
        let beta = self.post.as_ref().and_then(|(post, _)| post.beta.as_ref());
        let beta = beta.map(|beta| beta.reshape((1, 1, ()))? * self.block.multiplier).transpose()?;
        let d_model = self.block.attention.output.weight.n_out();
        let zero =
            Tensor::zeros((rows, 1, d_model), candle_core::DType::F32, self.block.attention.output.weight.device())?;
        let raw = match raw {
            // one bias for all rows, but each row's scale is its own
            Some(raw) => zero.broadcast_add(&self.parts(&raw.broadcast_as((rows, 1, d_model))?.contiguous()?)?)?,
            None => zero,
        };
        Ok(match beta {
            Some(beta) => raw.broadcast_add(&beta)?,
            None => raw,
        })
    }
}
