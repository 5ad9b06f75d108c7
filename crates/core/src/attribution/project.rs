//! `attribution(c) = (c · ũ) / s` for every component, projection first: the direction is folded through each output
//! matrix once, `f(l,h) = W_O(l)[h] ũ`, so that a head costs `z(l,h) · f(l,h)` per row and no head's write is formed.
//!
//! Where attention's output goes through a norm before it is added, `γ ⊙ (raw − mean) / s_post + β`, the norm is held
//! at its scale `s_post` of the run: every part of `raw` is read along `ũ′ = γ ⊙ ũ` (less its mean for a layer norm),
//! divided by `s_post`, and β is part of the bias.

use super::direction::{Directions, before, dot, host};
use crate::config::ModelConfig;
use crate::error::{PrismError, Result};
use crate::hook::{BlockPoint, HookPoint};
use crate::model::{Block, Transformer};
use crate::ops;
use crate::tap::Activations;
use candle_core::{DType, Device, Tensor};
use std::collections::BTreeSet;

/// The activations that attribution needs, at the wanted rows.
pub(super) fn points(config: &ModelConfig) -> BTreeSet<HookPoint> {
    let of_layer = |l| [BlockPoint::Z, BlockPoint::Ln1PostScale, BlockPoint::MlpOut].map(|p| HookPoint::Block(l, p));
    let all = [HookPoint::Embed, HookPoint::PosEmbed, HookPoint::FinalScale].into_iter();
    let all = all.chain((0..config.n_layers).flat_map(of_layer));
    all.filter(|point| point.absent(config).is_none()).collect()
}

/// The attribution of every component of `Unit::Head`, in the order of `Component::all`: [rows, components], row-major.
///
/// # Errors
/// `INTERNAL` where an activation is not there.
pub(super) fn by_head(model: &Transformer, activations: &Activations, directions: &Directions) -> Result<Vec<f64>> {
    let config = &model.config;
    let reader = Reader { directions, scales: host(kept(activations, HookPoint::FinalScale)?)?, activations };

    let mut columns = vec![reader.write(HookPoint::Embed)?];
    if HookPoint::PosEmbed.absent(config).is_none() {
        columns.push(reader.write(HookPoint::PosEmbed)?);
    }
    for block in &model.blocks {
        let through = reader.through(block)?;
        columns.extend(reader.heads(block, &through, &model.device)?);
        if config.has_attn_bias() {
            columns.push(reader.bias(block, &through)?);
        }
        columns.push(reader.write(HookPoint::Block(block.layer, BlockPoint::MlpOut))?);
    }
    let rows = 0..reader.scales.len();
    Ok(rows.flat_map(|row| columns.iter().map(move |column| column[row])).collect())
}

/// Reads writes along each row's direction.
struct Reader<'a> {
    directions: &'a Directions,
    /// s of the final norm at each row.
    scales: Vec<f64>,
    activations: &'a Activations,
}

/// What lies between attention's raw output and the stream.
struct Through {
    /// ũ as the raw output sees it: ũ′, times the block's multiplier; one per direction.
    directions: Vec<Vec<f64>>,
    /// s_post at each row; 1 without a norm.
    scales: Vec<f64>,
}

impl Reader<'_> {
    /// `(c · ũ) / s` of a write that was kept as it was added, [rows, d_model].
    fn write(&self, point: HookPoint) -> Result<Vec<f64>> {
        let write: Vec<Vec<f64>> = kept(self.activations, point)?.to_dtype(DType::F64)?.to_vec2()?;
        Ok(write.iter().enumerate().map(|(row, c)| dot(c, &self.directions.of_row(row).u) / self.scale(row)).collect())
    }

    /// The directions and scales by which parts of attention's raw output are read.
    fn through(&self, block: &Block) -> Result<Through> {
        let scaled = |mut u: Vec<f64>| {
            u.iter_mut().for_each(|u| *u *= block.multiplier);
            u
        };
        let Some(post) = &block.ln1_post else {
            let directions = self.directions.all().map(|u| scaled(u.to_vec())).collect();
            return Ok(Through { directions, scales: vec![1.0; self.scales.len()] });
        };
        let directions = self.directions.all().map(|u| Ok(scaled(before(u, post)?))).collect::<Result<_>>()?;
        let scales = host(kept(self.activations, HookPoint::Block(block.layer, BlockPoint::Ln1PostScale))?)?;
        Ok(Through { directions, scales })
    }

    /// `z(l,h) · f(l,h) / (s s_post)` with `f(l,h) = W_O(l)[h] ũ′`, for z [rows, H, e]: one column per head.
    fn heads(&self, block: &Block, through: &Through, device: &Device) -> Result<Vec<Vec<f64>>> {
        let z = kept(self.activations, HookPoint::Block(block.layer, BlockPoint::Z))?;
        let z: Vec<Vec<f64>> = z.flatten_from(1)?.to_dtype(DType::F64)?.to_vec2()?;
        let attention = &block.attention;
        let flat: Vec<f32> = through.directions.iter().flatten().map(|u| *u as f32).collect();
        let directions = Tensor::from_vec(flat, (through.directions.len(), attention.output.weight.dim(1)?), device)?;
        let f = ops::project(&directions, &attention.output.weight)?; // [directions, H e]
        let f: Vec<Vec<f64>> = f.to_dtype(DType::F64)?.to_vec2()?;
        let column = |h: usize| {
            let head = h * attention.d_head..(h + 1) * attention.d_head;
            let read = |(row, z): (usize, &Vec<f64>)| {
                let f = &f[self.directions.index(row)];
                dot(&z[head.clone()], &f[head.clone()]) / (self.scale(row) * through.scales[row])
            };
            z.iter().enumerate().map(read).collect()
        };
        Ok((0..attention.n_heads).map(column).collect())
    }

    /// What attention writes and no head does: `b_O`, read as the heads are, and the β of a norm behind them.
    fn bias(&self, block: &Block, through: &Through) -> Result<Vec<f64>> {
        let bias = block.attention.output.bias.as_ref().map(host).transpose()?;
        let beta = block.ln1_post.as_ref().and_then(|post| post.beta.as_ref()).map(host).transpose()?;
        let read = |row| {
            let of_bias = bias
                .as_ref()
                .map_or(0.0, |b| dot(b, &through.directions[self.directions.index(row)]) / through.scales[row]);
            let of_beta = beta.as_ref().map_or(0.0, |b| dot(b, &self.directions.of_row(row).u) * block.multiplier);
            (of_bias + of_beta) / self.scale(row)
        };
        Ok((0..self.scales.len()).map(read).collect())
    }

    fn scale(&self, row: usize) -> f64 {
        if self.directions.of_row(row).scaled { self.scales[row] } else { 1.0 }
    }
}

fn kept(activations: &Activations, point: HookPoint) -> Result<&Tensor> {
    let missing = || PrismError::Internal { place: "attribution".into(), problem: format!("{point} was not kept") };
    activations.rows(point).ok_or_else(missing)
}
