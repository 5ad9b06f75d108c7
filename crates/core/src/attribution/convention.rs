//! Which column the value bias counts in. By default a head is all that it moves, its part of the value bias included.
//! TransformerLens, with the weight processing that its users are used to, folds the value bias and the β of the norm
//! before attention out of the heads: with `v0 = β W_V + b_V`, which every position has in common,
//!
//! ```text
//! head(l,h)     ← head(l,h) − Σ_j A[q,j] · v0 W_O[h]
//! attn_bias(l)  ← attn_bias(l) + Σ_h Σ_j A[q,j] · v0 W_O[h]
//! ```
//!
//! `Σ_j A[q,j]` is 1 but for attention sinks. The sum over components is the same.

use super::direction::host;
use crate::config::ModelConfig;
use crate::error::{PrismError, Result};
use crate::hook::{BlockPoint, HookPoint};
use crate::model::Block;
use crate::ops::{self, Kernels};
use crate::tap::Activations;
use candle_core::D;

/// Where what all positions have in common of the values is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Convention {
    /// In the heads.
    #[default]
    Default,
    /// In the bias, as TransformerLens does.
    TransformerLens,
}

impl Convention {
    /// Whether attention has a column of its own for what no head moves.
    pub fn has_attn_bias(self, config: &ModelConfig) -> bool {
        let folded = config.biases.qkv || (config.layout.ln1.is_some() && config.norm.bias);
        config.has_attn_bias() || (self == Convention::TransformerLens && folded)
    }

    /// The points that it needs besides.
    pub fn points(self, config: &ModelConfig) -> impl Iterator<Item = HookPoint> {
        let needed = self == Convention::TransformerLens && config.attention_sinks;
        (0..config.n_layers).filter(move |_| needed).map(|l| HookPoint::Block(l, BlockPoint::Pattern))
    }
}

/// `v0` of every key-value head, [G e]; `None` where it is 0.
///
/// # Errors
/// `INVALID_ARGUMENT` where values are clipped, so that they are no sum.
pub(super) fn common_value(block: &Block) -> Result<Option<Vec<f64>>> {
    let attention = &block.attention;
    let (start, width) = (
        (attention.n_heads + attention.n_key_value_heads) * attention.d_head,
        attention.n_key_value_heads * attention.d_head,
    );
    let bias = attention.qkv.bias.as_ref().map(|b| b.narrow(0, start, width)).transpose()?;
    let beta = block.ln1.as_ref().and_then(|ln1| ln1.beta.as_ref());
    let through = beta.map(|beta| -> Result<_> {
        let weight = attention.qkv.weight.columns(start..start + width)?;
        Ok(ops::linear(Kernels::Plain, &beta.unsqueeze(0)?, &weight, None)?.squeeze(0)?)
    });
    let common = match (through.transpose()?, bias) {
        (Some(through), Some(bias)) => Some((through + bias)?),
        (through, bias) => through.or(bias),
    };
    let Some(common) = common else { return Ok(None) };
    if attention.clip.is_some() {
        let expected = "the default one: this model clips its values, so no part of them is common";
        return Err(PrismError::argument("convention", "transformerlens", expected));
    }
    Ok(Some(host(&common)?))
}

/// `Σ_j A[q,j]` of every kept row and head, [rows, H]; `None` where it is 1.
pub(super) fn row_sums(block: &Block, activations: &Activations) -> Result<Option<Vec<Vec<f64>>>> {
    if block.attention.sinks.is_none() {
        return Ok(None);
    }
    let point = HookPoint::Block(block.layer, BlockPoint::Pattern);
    let mut sums = Vec::new();
    for segment in 0.. {
        let Some(pattern) = activations.square(point, segment) else { break };
        if pattern.dim(1)? == 0 {
            continue; // none of its rows is kept
        }
        let of_segment = pattern.to_dtype(candle_core::DType::F64)?.sum(D::Minus1)?; // [H, rows]
        sums.extend(of_segment.t()?.contiguous()?.to_vec2::<f64>()?);
    }
    Ok(Some(sums))
}
