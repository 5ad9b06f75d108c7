//! `attribution(c) = (c · ũ) / s` for every component, projection first: the direction is folded through each output
//! matrix once, `f(l,h) = W_O(l)[h] ũ`, so that a head costs `z(l,h) · f(l,h)` per row and no head's write is formed.

use super::direction::{Directions, dot};
use crate::config::ModelConfig;
use crate::error::{PrismError, Result};
use crate::hook::{BlockPoint, HookPoint};
use crate::model::{Attention, Transformer};
use crate::ops;
use crate::tap::Activations;
use candle_core::{DType, Tensor};
use std::collections::BTreeSet;

/// The activations that attribution needs, at the wanted rows.
pub(super) fn points(config: &ModelConfig) -> BTreeSet<HookPoint> {
    let of_layer = |l| [HookPoint::Block(l, BlockPoint::Z), HookPoint::Block(l, BlockPoint::MlpOut)];
    let embeddings = [HookPoint::Embed, HookPoint::PosEmbed].into_iter().filter(|p| p.absent(config).is_none());
    embeddings.chain((0..config.n_layers).flat_map(of_layer)).chain([HookPoint::FinalScale]).collect()
}

/// The attribution of every component of `Unit::Head`, in the order of `Component::all`: [rows, components], row-major.
///
/// # Errors
/// `INTERNAL` where an activation is not there.
pub(super) fn by_head(model: &Transformer, activations: &Activations, directions: &Directions) -> Result<Vec<f64>> {
    let scales = kept(activations, HookPoint::FinalScale)?.flatten_all()?.to_dtype(DType::F64)?.to_vec1()?;
    let reader = Reader { directions, folded: directions.matrix(&model.device)?, scales };
    let at = |point| kept(activations, point);

    let mut columns = vec![reader.write(at(HookPoint::Embed)?)?];
    if HookPoint::PosEmbed.absent(&model.config).is_none() {
        columns.push(reader.write(at(HookPoint::PosEmbed)?)?);
    }
    for (l, block) in model.blocks.iter().enumerate() {
        columns.extend(reader.heads(at(HookPoint::Block(l, BlockPoint::Z))?, &block.attention)?);
        if let Some(bias) = &block.attention.output.bias {
            columns.push(reader.bias(bias)?);
        }
        columns.push(reader.write(at(HookPoint::Block(l, BlockPoint::MlpOut))?)?);
    }
    let rows = 0..reader.scales.len();
    Ok(rows.flat_map(|row| columns.iter().map(move |column| column[row])).collect())
}

/// Reads writes along each row's direction.
struct Reader<'a> {
    directions: &'a Directions,
    /// Every ũ, [directions, d_model]
    folded: Tensor,
    /// s of the final norm at each row.
    scales: Vec<f64>,
}

impl Reader<'_> {
    /// `(c · ũ) / s` of a write [rows, d_model].
    fn write(&self, write: &Tensor) -> Result<Vec<f64>> {
        let write: Vec<Vec<f64>> = write.to_dtype(DType::F64)?.to_vec2()?;
        Ok(write.iter().enumerate().map(|(row, c)| dot(c, &self.directions.of_row(row).u) / self.scale(row)).collect())
    }

    /// `(b_O · ũ) / s`: the same write at every row.
    fn bias(&self, bias: &Tensor) -> Result<Vec<f64>> {
        let bias: Vec<f64> = bias.to_dtype(DType::F64)?.to_vec1()?;
        let read = |row| dot(&bias, &self.directions.of_row(row).u) / self.scale(row);
        Ok((0..self.scales.len()).map(read).collect())
    }

    /// `z(l,h) · f(l,h) / s` with `f(l,h) = W_O(l)[h] ũ`, for z [rows, H, e]: one column per head.
    fn heads(&self, z: &Tensor, attention: &Attention) -> Result<Vec<Vec<f64>>> {
        let z: Vec<Vec<f64>> = z.flatten_from(1)?.to_dtype(DType::F64)?.to_vec2()?;
        let f = ops::project(&self.folded, &attention.output.weight)?; // [directions, H e]
        let f: Vec<Vec<f64>> = f.to_dtype(DType::F64)?.to_vec2()?;
        let column = |h: usize| {
            let head = h * attention.d_head..(h + 1) * attention.d_head;
            let read = |(row, z): (usize, &Vec<f64>)| {
                let f = &f[self.directions.index(row)];
                dot(&z[head.clone()], &f[head.clone()]) / self.scale(row)
            };
            z.iter().enumerate().map(read).collect()
        };
        Ok((0..attention.n_heads).map(column).collect())
    }

    fn scale(&self, row: usize) -> f64 {
        if self.directions.of_row(row).scaled { self.scales[row] } else { 1.0 }
    }
}

fn kept(activations: &Activations, point: HookPoint) -> Result<&Tensor> {
    let missing = || PrismError::Internal { place: "attribution".into(), problem: format!("{point} was not kept") };
    activations.rows(point).ok_or_else(missing)
}
