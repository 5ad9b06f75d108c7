//! The one transformer. `forward` reads as the formula:
//!
//! ```text
//! x = embed(ids) + pos_embed(positions)
//! for every block:  x = x + attention(ln1(x));  x = x + mlp(ln2(x))      block.rs, attention.rs, mlp.rs
//! logits = unembed(ln_final(x))
//! ```
//!
//! A family differs by its [`ModelConfig`]; a branch here is worth it only where the mathematics is new.

mod attention;
mod block;
mod embed;
mod load;
mod mlp;
mod norm;
mod reads;
mod unembed;

pub use attention::{Attention, HeadWeights, QkNorms};
pub use block::Block;
pub use embed::Embed;
pub use load::{Planned, load, plan};
pub use mlp::{Experts, Gated, HiddenLayer, Mlp, SharedExpert};
pub use norm::NormLayer;
pub use reads::Reads;
pub use unembed::Unembed;

use crate::batch::{Batch, Entry};
use crate::config::ModelConfig;
use crate::device::moved;
use crate::error::{PrismError, Result};
use crate::hook::{BlockPoint, HookPoint};
use crate::ops::{self, Kernels, Weight};
use crate::tap::Tap;
use attention::{Pass, Tables};
use candle_core::{DType, Device, Tensor};
use std::ops::Range;

/// A matrix and its bias: `y = x W + b`.
pub struct Linear {
    /// [in, out]
    pub weight: Weight,
    /// [out]
    pub bias: Option<Tensor>,
}

impl Linear {
    fn forward(&self, x: &Tensor, kernels: Kernels) -> Result<Tensor> {
        ops::linear(kernels, x, &self.weight, self.bias.as_ref())
    }

    /// These columns of y only.
    fn columns(&self, x: &Tensor, columns: Range<usize>, kernels: Kernels) -> Result<Tensor> {
        let weight = self.weight.columns(columns.clone())?;
        let bias = self.bias.as_ref().map(|bias| bias.narrow(0, columns.start, columns.len())).transpose()?;
        ops::linear(kernels, x, &weight, bias.as_ref())
    }
}

/// The weights of a model, and its forward pass.
pub struct Transformer {
    /// What it was built from.
    pub config: ModelConfig,
    /// Token and position embeddings.
    pub embed: Embed,
    /// Blocks in order.
    pub blocks: Vec<Block>,
    /// The norm before the unembedding.
    pub ln_final: NormLayer,
    /// From the residual stream to logits.
    pub unembed: Unembed,
    /// Where the weights are.
    pub device: Device,
    /// Which bodies of the operations it runs: [`Transformer::run_on`].
    pub kernels: Kernels,
}

/// What comes out at the rows that the tap keeps.
pub struct Output {
    /// The residual stream after the last block, [kept rows, d_model].
    pub stream: Tensor,
    /// The same through the final norm: what the unembedding reads, [kept rows, d_model].
    pub normed: Tensor,
}

impl Output {
    /// The same on another device.
    ///
    /// # Errors
    /// `INTERNAL`.
    pub fn to_device(&self, device: &Device) -> Result<Self> {
        Ok(Output { stream: moved(&self.stream, device)?, normed: moved(&self.normed, device)? })
    }
}

impl Transformer {
    /// What weights are held and multiplied in; all else is f32.
    pub fn dtype(&self) -> DType {
        self.unembed.weight.dtype()
    }

    /// Chooses the bodies of its operations.
    pub fn run_on(&mut self, kernels: Kernels) {
        self.kernels = kernels;
        self.unembed.kernels = kernels;
    }

    /// Runs the segments of a batch and returns the final residual stream at the tap's rows.
    ///
    /// # Errors
    /// `ABORTED` between two layers, `NOT_FINITE` with the first layer whose output was not (its prompt is the index of
    /// the segment), `INTERNAL`.
    pub fn forward(&self, batch: &Batch, tap: &mut Tap) -> Result<Output> {
        let (mut under_way, mut tables) = (None, Tables::default());
        for (l, block) in self.blocks.iter().enumerate() {
            tap.cancel.check()?;
            let x = self.enter(under_way, batch, l, tap)?;
            let mut pass = Pass::new(self, batch, l, &mut tables)?;
            under_way = block.forward(x, &mut pass, tap)?;
            let Some(x) = &under_way else { continue }; // every segment enters at a later place
            let resid_post = HookPoint::Block(l, BlockPoint::ResidPost);
            check_finite(
                x,
                || resid_post.to_string(),
                |row| batch.segment_of(if tap.is_narrowed() { tap.row(row) } else { row }),
            )?;
        }
        let behind = Entry::before(self.blocks.len());
        let narrowed = under_way.map(|x| tap.select(&x)).transpose()?;
        tap.narrow();
        let stream = join(narrowed, batch, behind, tap)?;
        let stream = stream.ok_or_else(|| PrismError::argument("segments", "none", "at least one"))?;
        if stream.dim(0)? == 0 {
            // nothing is kept here: a GPU starts no kernel for nothing
            tap.selected(HookPoint::FinalScale, stream.narrow(1, 0, 1)?)?;
            let normed = tap.selected(HookPoint::FinalNormalized, stream.clone())?;
            return Ok(Output { stream, normed });
        }
        let normed = self.ln_final.forward_final(&stream, self.kernels, tap)?;
        check_finite(&normed, || "ln_final".into(), |kept| batch.segment_of(tap.row(kept)))?;
        Ok(Output { stream, normed })
    }

    /// Adds the rows of the segments that enter at layer `l`.
    fn enter(&self, under_way: Option<Tensor>, batch: &Batch, l: usize, tap: &mut Tap) -> Result<Option<Tensor>> {
        let under_way = match l == 0 && batch.has_embedded() {
            true => Some(self.embed.forward(batch, self.kernels, tap)?),
            false => under_way,
        };
        join(under_way, batch, Entry::before(l), tap)
    }
}

/// Adds the rows of the segments that enter at a place; they stand behind those under way. Where values hold the kept
/// rows only, so do these.
fn join(under_way: Option<Tensor>, batch: &Batch, at: Entry, tap: &Tap) -> Result<Option<Tensor>> {
    let mut rows: Vec<Tensor> = under_way.into_iter().collect();
    for (i, stream) in batch.entering(at) {
        rows.push(if tap.is_narrowed() { tap.kept_of(stream, batch.rows(i).start)? } else { stream.clone() });
    }
    Ok(if rows.len() < 2 { rows.pop() } else { Some(Tensor::cat(&rows, 0)?) })
}

/// That x [rows, n] is finite. Infinities and NaN survive the sum, so one number per row tells.
///
/// # Errors
/// `NOT_FINITE` with the prompt of the first row that is not.
pub(crate) fn check_finite(x: &Tensor, first: impl Fn() -> String, prompt: impl Fn(usize) -> usize) -> Result<()> {
    // a GPU would take the whole sum on one of its processors, and the sums of rows on all of them
    if x.device().is_cpu() && x.sum_all()?.to_scalar::<f32>()?.is_finite() {
        return Ok(());
    }
    let sums: Vec<f32> = x.sum(1)?.to_vec1()?;
    match sums.iter().position(|sum| !sum.is_finite()) {
        None => Ok(()), // every row is finite, only their total is too large
        Some(row) => Err(PrismError::NotFinite { first: first(), prompt: prompt(row) }),
    }
}
