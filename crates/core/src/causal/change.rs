//! What a component's replacement changes where the component writes: the stream behind its sublayer, at the kept rows of
//! a chunk, from what the clean run left there. What lies in front is as it was, so it is not computed again.

use super::plan::Site;
use super::reference::{Replacement, Values};
use crate::attribution::{Component, Kind, host};
use crate::batch::{Entry, Resume};
use crate::chunk::{Chunk, Observed};
use crate::error::{PrismError, Result};
use crate::hook::{BlockPoint, HookPoint};
use crate::model::{Block, Transformer};
use crate::ops;
use crate::tap::Activations;
use candle_core::Tensor;

/// What one component's replacement changes.
pub(super) struct Change {
    at: Entry,
    /// [kept rows, d_model]
    stream: Tensor,
    pub own: Own,
}

/// What the changed sublayer writes, at every kept row.
pub(super) enum Own {
    /// An embedding: [kept, d_model].
    Embed { column: usize, write: Vec<f32> },
    /// An MLP: [kept, d_model].
    Mlp { layer: usize, write: Vec<f32> },
    /// Attention, from z [kept, H e], the scales of the norm behind it, and whether its bias is there.
    Attention { layer: usize, z: Vec<f32>, scales: Option<Vec<f64>>, has_bias: Vec<bool> },
}

/// What the clean run left, and what takes the place of components.
pub(super) struct Clean<'a> {
    model: &'a Transformer,
    activations: &'a Activations,
    /// Where components are replaced, [kept]; `None`: everywhere.
    mask: Option<Vec<bool>>,
    values: Option<Values>,
}

impl Change {
    /// How a site's run enters the model.
    pub fn resume(&self, site: &Site) -> Result<Resume> {
        Ok(Resume { at: self.at, stream: self.stream.narrow(0, site.kept, site.positions.len())? })
    }
}

impl<'a> Clean<'a> {
    pub fn new(
        model: &'a Transformer,
        chunk: Chunk,
        observed: &'a Observed,
        sites: &[Site],
        replacement: &Replacement,
    ) -> Result<Self> {
        let mut mask = vec![false; observed.rows.len()];
        for site in sites {
            mask[site.kept..site.kept + site.changed.len()].copy_from_slice(&site.changed);
        }
        let mask = (!mask.iter().all(|changed| *changed)).then_some(mask);
        let values = replacement.at(&observed.rows, chunk)?;
        Ok(Clean { model, activations: &observed.activations, mask, values })
    }

    /// The change that a component's replacement makes.
    pub fn change(&self, component: &Component) -> Result<Change> {
        let block = || {
            let problem = || format!("{} has no layer", component.label());
            let missing = || PrismError::Internal { place: "ablation".into(), problem: problem() };
            component.layer.map(|l| &self.model.blocks[l]).ok_or_else(missing)
        };
        match component.kind {
            Kind::Embed => self.embedding(0),
            Kind::PosEmbed => self.embedding(1),
            Kind::Mlp => self.mlp(block()?),
            _ => self.attention(block()?, component),
        }
    }

    fn embedding(&self, column: usize) -> Result<Change> {
        let point = [HookPoint::Embed, HookPoint::PosEmbed][column];
        let other = self.activations.rows([HookPoint::PosEmbed, HookPoint::Embed][column]);
        let clean = self.activations.kept(point)?;
        let write = self.masked(self.value(point, clean)?, clean)?;
        let stream = match other {
            Some(other) => ops::add(self.model.kernels, &write, other)?,
            None => write.clone(),
        };
        let write = write.flatten_all()?.to_vec1()?;
        Ok(Change { at: Entry::before(0), stream, own: Own::Embed { column, write } })
    }

    fn mlp(&self, block: &Block) -> Result<Change> {
        let layer = block.layer;
        let kept = |point| self.activations.kept(HookPoint::Block(layer, point));
        let kernels = self.model.kernels;
        let clean = kept(BlockPoint::MlpOut)?;
        let raw = self.value(HookPoint::Block(layer, BlockPoint::MlpOut), clean)?;
        let (write, _) = block.mlp_write(raw, kernels)?;
        let write = self.masked(write, clean)?;
        let mid = ops::add(kernels, kept(BlockPoint::ResidPre)?, kept(BlockPoint::AttnOut)?)?;
        let stream = ops::add(kernels, &mid, &write)?;
        let write = write.flatten_all()?.to_vec1()?;
        Ok(Change { at: Entry::before(layer + 1), stream, own: Own::Mlp { layer, write } })
    }

    fn attention(&self, block: &Block, component: &Component) -> Result<Change> {
        let layer = block.layer;
        let kept = |point| self.activations.kept(HookPoint::Block(layer, point));
        let (kernels, z) = (self.model.kernels, kept(BlockPoint::Z)?.contiguous()?);
        let replaced = self.value(HookPoint::Block(layer, BlockPoint::Z), &z)?;
        let is_zero = self.values.is_none();
        let raw = |z: &Tensor| block.attention.raw(z, kernels);
        let (changed_z, changed_raw, has_bias) = match (component.kind, component.index) {
            (Kind::Head, Some(h)) => {
                let moved = (z.narrow(1, h, 1)? - replaced.narrow(1, h, 1)?)?.squeeze(1)?;
                let changed = (raw(&z)? - block.attention.head_result(&moved, h, kernels)?)?;
                let (n_heads, from) = (z.dim(1)?, h + 1);
                let parts = [z.narrow(1, 0, h)?, replaced.narrow(1, h, 1)?, z.narrow(1, from, n_heads - from)?];
                (Tensor::cat(&parts, 1)?, changed, true)
            }
            // the bias of a reference is the same one
            (Kind::AttnBias, _) if is_zero => (z.clone(), block.attention.raw_without_bias(&z, kernels)?, false),
            (Kind::AttnBias, _) => (z.clone(), raw(&z)?, true),
            _ if is_zero => (replaced, kept(BlockPoint::AttnOut)?.zeros_like()?, false),
            _ => (replaced.clone(), raw(&replaced)?, true),
        };
        let (write, scale) = block.attention_write(changed_raw, kernels)?;
        let write = self.masked(write, kept(BlockPoint::AttnOut)?)?;
        let z = self.masked(changed_z, &z)?.flatten_all()?.to_vec1()?;
        let scales = scale.map(|s| self.masked(s, kept(BlockPoint::Ln1PostScale)?)).transpose()?;
        let scales = scales.as_ref().map(host).transpose()?;
        let rows = write.dim(0)?;
        let has_bias = (0..rows).map(|k| has_bias || !self.is_changed(k)).collect();
        let own = Own::Attention { layer, z, scales, has_bias };

        let mid = ops::add(kernels, kept(BlockPoint::ResidPre)?, &write)?;
        if !block.parallel {
            return Ok(Change { at: Entry::behind_attention(layer), stream: mid, own });
        }
        // the MLP of a parallel block does not see what its attention writes
        let stream = ops::add(kernels, &mid, kept(BlockPoint::MlpOut)?)?;
        Ok(Change { at: Entry::before(layer + 1), stream, own })
    }

    /// What takes the place of a value: zeros, or the reference's.
    fn value(&self, point: HookPoint, clean: &Tensor) -> Result<Tensor> {
        match &self.values {
            None => Ok(clean.zeros_like()?),
            Some(values) => Ok(values.kept(point)?.reshape(clean.shape())?),
        }
    }

    fn is_changed(&self, kept: usize) -> bool {
        self.mask.as_ref().is_none_or(|mask| mask[kept])
    }

    /// The changed value where components are replaced, the clean one elsewhere: [kept, …].
    fn masked(&self, changed: Tensor, clean: &Tensor) -> Result<Tensor> {
        let Some(mask) = &self.mask else { return Ok(changed) };
        let n = mask.len() as u32;
        let rows: Vec<u32> = (0..n).map(|k| if mask[k as usize] { k } else { n + k }).collect();
        let both = Tensor::cat(&[&changed, clean], 0)?;
        Ok(both.index_select(&Tensor::new(rows, both.device())?, 0)?)
    }
}
