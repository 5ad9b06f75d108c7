//! Reads what components write along the direction of each row, in the clean run and after changes: `c·ũ / s`, with s of the
//! clean run throughout. Heads are read through their output matrix, `z(l,h)·(W_O[h] ũ)`, so no write is formed.

use super::change::Own;
use crate::attribution::{Component, Directions, Unit, before, dot, host};
use crate::config::ModelConfig;
use crate::error::Result;
use crate::hook::{BlockPoint, HookPoint};
use crate::model::{Block, Transformer};
use crate::ops::{self, Kernels};
use crate::tap::Activations;
use candle_core::{Device, Tensor};

/// Reads along the directions of some rows.
pub(super) struct Reader<'a> {
    config: &'a ModelConfig,
    directions: &'a Directions,
    /// s of the final norm in the clean run, by row; 1 for a direction that is read raw.
    scales: Vec<f64>,
    layers: Vec<Layer>,
}

/// The directions through a layer's attention, one of each per direction.
struct Layer {
    /// `W_O ũ′`, [H e]
    heads: Vec<Vec<f64>>,
    /// `b_O·ũ′`
    bias: Vec<f64>,
    /// `β·ũ` of a norm behind attention
    beta: Vec<f64>,
}

/// What a layer's attention is read from at one row.
struct Attended<'a> {
    /// [H e]
    z: &'a [f32],
    /// s_post; 1 without a norm behind attention.
    scale: f64,
    /// Whether the output bias is there.
    has_bias: bool,
}

impl<'a> Reader<'a> {
    /// For rows that are these of the kept ones.
    pub fn new(
        model: &'a Transformer,
        directions: &'a Directions,
        activations: &Activations,
        kept: &[u32],
    ) -> Result<Self> {
        let scales = host(activations.kept(HookPoint::FinalScale)?)?;
        let scale =
            |(row, kept): (usize, &u32)| if directions.of_row(row).scaled { scales[*kept as usize] } else { 1.0 };
        let layers =
            model.blocks.iter().map(|block| Layer::new(block, directions, model.kernels)).collect::<Result<_>>()?;
        Ok(Reader { config: &model.config, directions, scales: kept.iter().enumerate().map(scale).collect(), layers })
    }

    /// Fine components: heads one by one.
    pub fn n_fine(&self) -> usize {
        Component::count(Unit::Head, self.config)
    }

    fn n_embeddings(&self) -> usize {
        1 + usize::from(self.config.positions.are_added())
    }

    /// The columns of a layer: heads, bias, MLP.
    fn first_of(&self, layer: usize) -> usize {
        self.n_embeddings() + layer * (self.config.n_heads + usize::from(self.config.has_attn_bias()) + 1)
    }

    fn mlp_of(&self, layer: usize) -> usize {
        self.first_of(layer + 1) - 1
    }

    /// Every fine component of the clean run at its rows, [rows, fine].
    pub fn clean(&self, activations: &Activations, kept: &[u32]) -> Result<Vec<f64>> {
        let n = self.n_fine();
        let mut all = vec![0.0; kept.len() * n];
        let index = Tensor::new(kept, activations.kept(HookPoint::Embed)?.device())?;
        let at_rows = |point: HookPoint| -> Result<Option<Tensor>> {
            Ok(activations.rows(point).map(|all| all.index_select(&index, 0)).transpose()?)
        };
        let rows: Vec<usize> = (0..kept.len()).collect();
        for (column, point) in [HookPoint::Embed, HookPoint::PosEmbed].into_iter().enumerate() {
            if let Some(write) = at_rows(point)? {
                self.writes(column, &write, &rows, &mut all)?;
            }
        }
        for l in 0..self.layers.len() {
            let at = |point| at_rows(HookPoint::Block(l, point));
            if let Some(z) = at(BlockPoint::Z)? {
                self.attentions(l, &z, at(BlockPoint::Ln1PostScale)?.as_ref(), &rows, &mut all)?;
            }
            if let Some(write) = at(BlockPoint::MlpOut)? {
                self.writes(self.mlp_of(l), &write, &rows, &mut all)?;
            }
        }
        Ok(all)
    }

    /// Overwrites what layers behind a change write; rows that are not under way in a layer yet keep what they have.
    /// `rows`: the row of each kept one, `all`: [kept, fine].
    pub fn read_into(&self, activations: &Activations, rows: &[usize], all: &mut [f64]) -> Result<()> {
        for l in 0..self.layers.len() {
            let at = |point| activations.rows(HookPoint::Block(l, point));
            if let Some(z) = at(BlockPoint::Z) {
                self.attentions(l, z, at(BlockPoint::Ln1PostScale), rows, all)?;
            }
            if let Some(write) = at(BlockPoint::MlpOut) {
                self.writes(self.mlp_of(l), write, rows, all)?;
            }
        }
        Ok(())
    }

    /// `x′·ũ (1/s − 1/s′)` of final streams, [kept]; 0 for directions that are read raw.
    pub fn norms(&self, activations: &Activations, rows: &[usize], stream: &Tensor) -> Result<Vec<f64>> {
        let primed = host(activations.kept(HookPoint::FinalScale)?)?;
        let d_model = self.config.d_model;
        let stream = stream.flatten_all()?.to_vec1::<f32>()?;
        let norm = |(k, row): (usize, &usize)| {
            let direction = self.directions.of_row(*row);
            let x = read(&stream[k * d_model..(k + 1) * d_model], &direction.u);
            if direction.scaled { x * (1.0 / self.scales[*row] - 1.0 / primed[k]) } else { 0.0 }
        };
        Ok(rows.iter().enumerate().map(norm).collect())
    }

    /// Overwrites what the changed sublayer itself writes at a kept row.
    pub fn overwrite(&self, row: usize, kept: usize, own: &Own, all: &mut [f64]) {
        match own {
            Own::Embed { column, write } => all[*column] = self.write(row, kept, write),
            Own::Mlp { layer, write } => all[self.mlp_of(*layer)] = self.write(row, kept, write),
            Own::Attention { layer, z, scales, has_bias } => {
                let width = z.len() / has_bias.len();
                let attended = Attended {
                    z: &z[kept * width..(kept + 1) * width],
                    scale: scales.as_ref().map_or(1.0, |scales| scales[kept]),
                    has_bias: has_bias[kept],
                };
                self.attention(*layer, row, attended, &mut all[self.first_of(*layer)..]);
            }
        }
    }

    fn write(&self, row: usize, kept: usize, write: &[f32]) -> f64 {
        let d_model = self.config.d_model;
        read(&write[kept * d_model..(kept + 1) * d_model], &self.directions.of_row(row).u) / self.scales[row]
    }

    /// Writes [kept or fewer, d_model] into one column.
    fn writes(&self, column: usize, write: &Tensor, rows: &[usize], all: &mut [f64]) -> Result<()> {
        let write = ops::Rows::of(&write.to_device(&Device::Cpu)?)?; // sums in f64 are the host's
        let numbers = write.numbers()?;
        let n = self.n_fine();
        for (k, row) in rows.iter().enumerate().take(write.n) {
            let c = &numbers[k * write.stride..][..write.width];
            all[k * n + column] = read(c, &self.directions.of_row(*row).u) / self.scales[*row];
        }
        Ok(())
    }

    /// The heads and the bias of a layer from its z, [kept or fewer, H, e].
    fn attentions(&self, l: usize, z: &Tensor, scales: Option<&Tensor>, rows: &[usize], all: &mut [f64]) -> Result<()> {
        let z = ops::Rows::of(&z.to_device(&Device::Cpu)?)?;
        let numbers = z.numbers()?;
        let scales = scales.map(host).transpose()?;
        let (n, first) = (self.n_fine(), self.first_of(l));
        for (k, row) in rows.iter().enumerate().take(z.n) {
            let scale = scales.as_ref().map_or(1.0, |scales| scales[k]);
            let attended = Attended { z: &numbers[k * z.stride..][..z.width], scale, has_bias: true };
            self.attention(l, *row, attended, &mut all[k * n + first..]);
        }
        Ok(())
    }

    fn attention(&self, l: usize, row: usize, attended: Attended, all: &mut [f64]) {
        let (layer, direction, s) = (&self.layers[l], self.directions.index(row), self.scales[row]);
        let e = self.config.d_head;
        let heads = attended.z.chunks_exact(e).zip(layer.heads[direction].chunks_exact(e));
        for ((z, f), head) in heads.zip(&mut *all) {
            *head = read(z, f) / (s * attended.scale);
        }
        if self.config.has_attn_bias() {
            let bias = if attended.has_bias { layer.bias[direction] / attended.scale } else { 0.0 };
            all[self.config.n_heads] = (bias + layer.beta[direction]) / s;
        }
    }
}

impl Layer {
    fn new(block: &Block, directions: &Directions, kernels: Kernels) -> Result<Self> {
        let through = |u: &[f64]| -> Result<Vec<f64>> {
            let u = block.ln1_post.as_ref().map_or_else(|| Ok(u.to_vec()), |post| before(u, post))?;
            Ok(u.into_iter().map(|u| u * block.multiplier).collect())
        };
        let through = directions.all().map(through).collect::<Result<Vec<_>>>()?;
        let output = &block.attention.output;
        let flat: Vec<f32> = through.iter().flatten().map(|u| *u as f32).collect();
        let flat = Tensor::from_vec(flat, (through.len(), output.weight.n_out()), output.weight.device())?;
        let heads = ops::fold(kernels, &flat, &output.weight)?.to_dtype(candle_core::DType::F64)?.to_vec2()?;
        let bias = output.bias.as_ref().map(host).transpose()?;
        let bias = through.iter().map(|u| bias.as_ref().map_or(0.0, |bias| dot(bias, u))).collect();
        let beta = block.ln1_post.as_ref().and_then(|post| post.beta.as_ref()).map(host).transpose()?;
        let of_beta = |u: &[f64]| beta.as_ref().map_or(0.0, |beta| block.multiplier * dot(beta, u));
        Ok(Layer { heads, bias, beta: directions.all().map(of_beta).collect() })
    }
}

/// A dot product in f64; eight sums, so that they can be taken side by side.
fn read(values: &[f32], direction: &[f64]) -> f64 {
    const LANES: usize = 8;
    let mut sums = [0f64; LANES];
    let (values, direction) = (values.chunks_exact(LANES), direction.chunks_exact(LANES));
    let rest = values.remainder().iter().zip(direction.remainder()).map(|(v, d)| f64::from(*v) * d).sum::<f64>();
    for (values, direction) in values.zip(direction) {
        for i in 0..LANES {
            sums[i] += f64::from(values[i]) * direction[i];
        }
    }
    sums.iter().sum::<f64>() + rest
}
