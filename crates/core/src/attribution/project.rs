//! `attribution(c) = (c · ũ) / s` for every component, projection first: the direction is folded through each output
//! matrix once, `f = W ũ`, so that input number `i` of a matrix writes `a_i · f_i / s` per row and no write is formed. A
//! neuron is one such number, a head the sum over its own: `z(l,h) · f(l,h)` with `f(l,h) = W_O(l)[h] ũ`.
//!
//! Where a sublayer's output goes through a norm before it is added, `γ ⊙ (raw − mean) / s_post + β`, the norm is held
//! at its scale `s_post` of the run: every part of `raw` is read along `ũ′ = γ ⊙ ũ` (less its mean for a layer norm),
//! divided by `s_post`, and β is part of the bias.

use super::component::Unit;
use super::convention::{Convention, common_value, row_sums};
use super::direction::{Directions, before, dot, host};
use crate::config::ModelConfig;
use crate::error::Result;
use crate::hook::{BlockPoint, HookPoint};
use crate::model::{Block, Linear, NormLayer, Transformer};
use crate::ops::{self, Kernels};
use crate::tap::Activations;
use candle_core::{DType, Device, Tensor};
use std::collections::BTreeSet;

/// The activations that attribution by `unit` needs, at the wanted rows.
pub(crate) fn points(model: &Transformer, unit: Unit) -> BTreeSet<HookPoint> {
    let config = &model.config;
    let all = [HookPoint::Embed, HookPoint::PosEmbed, HookPoint::FinalScale].into_iter();
    let all = all.chain(model.blocks.iter().flat_map(|block| {
        let at = |point| HookPoint::Block(block.layer, point);
        let attention = [at(BlockPoint::Z), at(BlockPoint::Ln1PostScale)];
        let mlp = match unit {
            Unit::Neuron => [vec![at(BlockPoint::Ln2PostScale)], block.hidden_points()].concat(),
            Unit::Head | Unit::Layer => vec![at(BlockPoint::MlpOut)],
        };
        attention.into_iter().chain(mlp)
    }));
    all.filter(|point| point.absent(config).is_none()).collect()
}

/// The unit in which [`by_component`] computes: a layer's attention is a sum of heads.
pub(super) fn fine(unit: Unit) -> Unit {
    if unit == Unit::Neuron { unit } else { Unit::Head }
}

/// The attribution of every component of a fine unit, in the order of `Component::all`.
///
/// # Errors
/// `INTERNAL` where an activation is not there.
pub(super) fn by_component(
    model: &Transformer,
    activations: &Activations,
    directions: &Directions,
    unit: Unit,
    convention: Convention,
) -> Result<Columns> {
    let reader = Reader::new(activations, directions, model.kernels)?;
    let mut columns = reader.embeddings(&model.config)?;
    for block in &model.blocks {
        columns.extend(reader.attention(block, &model.config, convention)?);
        columns.extend(match unit {
            Unit::Neuron => reader.neurons(block, &model.config)?,
            _ => vec![reader.write(HookPoint::Block(block.layer, BlockPoint::MlpOut))?],
        });
    }
    Ok(Columns(columns))
}

/// Columns of rows, some neighbouring ones together: as they are computed.
#[derive(Debug)]
pub(super) struct Columns(Vec<Group>);

/// Some neighbouring columns: [rows, width], row-major.
#[derive(Debug)]
struct Group {
    width: usize,
    values: Vec<f64>,
}

impl Columns {
    /// A row from its first column to its last, piece by piece.
    pub fn row(&self, row: usize) -> impl Iterator<Item = &[f64]> {
        self.0.iter().map(move |group| &group.values[row * group.width..][..group.width])
    }

    /// The same in f32, to a place of that width.
    pub fn write_row(&self, row: usize, to: &mut [f32]) {
        let mut at = 0;
        for piece in self.row(row) {
            to[at..at + piece.len()].iter_mut().zip(piece).for_each(|(to, value)| *to = *value as f32);
            at += piece.len();
        }
    }
}

/// Reads writes along each row's direction.
pub(super) struct Reader<'a> {
    directions: &'a Directions,
    /// s of the final norm at each row.
    scales: Vec<f64>,
    activations: &'a Activations,
    kernels: Kernels,
}

/// What lies between a sublayer's raw output and the stream.
pub(super) struct Through {
    /// ũ as the raw output sees it: ũ′, times the block's multiplier; one per direction.
    directions: Vec<Vec<f64>>,
    /// s_post at each row; 1 without a norm.
    scales: Vec<f64>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(activations: &'a Activations, directions: &'a Directions, kernels: Kernels) -> Result<Self> {
        Ok(Reader { directions, scales: host(activations.kept(HookPoint::FinalScale)?)?, activations, kernels })
    }

    fn embeddings(&self, config: &ModelConfig) -> Result<Vec<Group>> {
        let points = [HookPoint::Embed, HookPoint::PosEmbed].into_iter();
        points.filter(|point| point.absent(config).is_none()).map(|point| self.write(point)).collect()
    }

    /// The heads of a layer and, where there is one, the bias.
    fn attention(&self, block: &Block, config: &ModelConfig, convention: Convention) -> Result<Vec<Group>> {
        let through = self.through_attention(block)?;
        let attention = &block.attention;
        let z = self.activations.kept(HookPoint::Block(block.layer, BlockPoint::Z))?.flatten_from(1)?;
        let parts = self.parts(&z, &attention.output, &through)?;
        let heads = parts.chunks_exact(attention.d_head).map(|head| head.iter().sum()).collect();
        let mut heads = Group { width: attention.n_heads, values: heads };
        if !convention.has_attn_bias(config) {
            return Ok(vec![heads]);
        }
        let bias = attention.output.bias.as_ref().map(host).transpose()?;
        let of_raw = |row: usize, u: &[f64]| bias.as_ref().map_or(0.0, |b| self.per_scale(row, dot(b, u), &through));
        let mut bias = self.bias(block.ln1_post.as_ref(), block.multiplier, &through, of_raw)?;
        if convention == Convention::TransformerLens {
            self.move_common(block, &through, &mut heads, &mut bias)?;
        }
        Ok(vec![heads, bias])
    }

    /// Moves what all positions have in common of a layer's values from the heads to the bias: convention.rs.
    fn move_common(&self, block: &Block, through: &Through, heads: &mut Group, bias: &mut Group) -> Result<()> {
        let Some(common) = common_value(block)? else { return Ok(()) };
        let sums = row_sums(block, self.activations)?;
        let attention = &block.attention;
        let (n_heads, e) = (attention.n_heads, attention.d_head);
        let folded = self.folded(&attention.output, through)?;
        for (row, of_row) in heads.values.chunks_exact_mut(n_heads).enumerate() {
            let f = &folded[self.directions.index(row)];
            for (h, head) in of_row.iter_mut().enumerate() {
                let g = h * attention.n_key_value_heads / n_heads;
                let sum = sums.as_ref().map_or(1.0, |sums| sums[row][h]);
                let moved =
                    sum * self.per_scale(row, dot(&common[g * e..(g + 1) * e], &f[h * e..(h + 1) * e]), through);
                *head -= moved;
                bias.values[row] += moved;
            }
        }
        Ok(())
    }

    /// The neurons of a layer and, where there is one, the bias.
    fn neurons(&self, block: &Block, config: &ModelConfig) -> Result<Vec<Group>> {
        let through = self.through(&block.ln2_post, HookPoint::Block(block.layer, BlockPoint::Ln2PostScale), block)?;
        let layers = block.hidden_layers(self.activations, self.kernels)?;
        let mut columns = Vec::new();
        let mut biases: Vec<(Vec<f64>, Option<Vec<f64>>)> = Vec::new();
        for layer in &layers {
            let values = self.parts(&layer.values, layer.output, &through)?;
            columns.push(Group { width: layer.output.weight.n_in(), values });
            if let Some(bias) = &layer.output.bias {
                biases.push((host(bias)?, layer.weight.as_ref().map(host).transpose()?));
            }
        }
        if config.has_mlp_bias() {
            let of_raw = |row: usize, u: &[f64]| {
                let weighted = |(b, weight): &(Vec<f64>, Option<Vec<f64>>)| {
                    weight.as_ref().map_or(1.0, |weight| weight[row]) * dot(b, u)
                };
                self.per_scale(row, biases.iter().map(weighted).sum(), &through)
            };
            columns.push(self.bias(block.ln2_post.as_ref(), block.multiplier, &through, of_raw)?);
        }
        Ok(columns)
    }

    /// `(c · ũ) / s` of a write that was kept as it was added, [rows, d_model].
    fn write(&self, point: HookPoint) -> Result<Group> {
        let write: Vec<Vec<f64>> = self.activations.kept(point)?.to_dtype(DType::F64)?.to_vec2()?;
        let read = |(row, c): (usize, &Vec<f64>)| dot(c, &self.directions.of_row(row).u) / self.scale(row);
        Ok(Group { width: 1, values: write.iter().enumerate().map(read).collect() })
    }

    pub(super) fn through_attention(&self, block: &Block) -> Result<Through> {
        self.through(&block.ln1_post, HookPoint::Block(block.layer, BlockPoint::Ln1PostScale), block)
    }

    /// The directions and scales by which parts of a sublayer's raw output are read.
    fn through(&self, post: &Option<NormLayer>, scale: HookPoint, block: &Block) -> Result<Through> {
        let scaled = |mut u: Vec<f64>| {
            u.iter_mut().for_each(|u| *u *= block.multiplier);
            u
        };
        let Some(post) = post else {
            let directions = self.directions.all().map(|u| scaled(u.to_vec())).collect();
            return Ok(Through { directions, scales: vec![1.0; self.scales.len()] });
        };
        let directions = self.directions.all().map(|u| Ok(scaled(before(u, post)?))).collect::<Result<_>>()?;
        Ok(Through { directions, scales: host(self.activations.kept(scale)?)? })
    }

    /// What every input number of an output matrix writes, `a_i · (W ũ′)_i / (s s_post)`, for a [rows, in]: the same shape.
    fn parts(&self, a: &Tensor, output: &Linear, through: &Through) -> Result<Vec<f64>> {
        let f = self.folded(output, through)?;
        let a = ops::Rows::of(&a.to_device(&Device::Cpu)?)?;
        let numbers = a.numbers()?;
        let mut parts = Vec::with_capacity(a.n * a.width);
        for row in 0..a.n {
            let scale = self.scale(row) * through.scales[row];
            let of_row = &numbers[row * a.stride..][..a.width];
            parts.extend(of_row.iter().zip(&f[self.directions.index(row)]).map(|(a, f)| f64::from(*a) * f / scale));
        }
        Ok(parts)
    }

    /// Every direction through an output matrix, `W ũ′`: [directions, in].
    pub(super) fn folded(&self, output: &Linear, through: &Through) -> Result<Vec<Vec<f64>>> {
        let flat: Vec<f32> = through.directions.iter().flatten().map(|u| *u as f32).collect();
        let shape = (through.directions.len(), output.weight.n_out());
        let directions = Tensor::from_vec(flat, shape, output.weight.device())?;
        Ok(ops::fold(self.kernels, &directions, &output.weight)?.to_dtype(DType::F64)?.to_vec2()?)
    }

    /// What a sublayer writes and none of its parts does: the biases of its raw output, read as the parts are
    /// (`of_raw` of a row and its ũ′), and the β of a norm behind them.
    fn bias(
        &self,
        post: Option<&NormLayer>,
        multiplier: f64,
        through: &Through,
        of_raw: impl Fn(usize, &[f64]) -> f64,
    ) -> Result<Group> {
        let beta = post.and_then(|post| post.beta.as_ref()).map(host).transpose()?;
        let read = |row| {
            let of_beta = beta.as_ref().map_or(0.0, |b| dot(b, &self.directions.of_row(row).u) * multiplier);
            of_raw(row, &through.directions[self.directions.index(row)]) + of_beta / self.scale(row)
        };
        Ok(Group { width: 1, values: (0..self.scales.len()).map(read).collect() })
    }

    /// A product with ũ′, divided by the scales that stand behind it.
    pub(super) fn per_scale(&self, row: usize, product: f64, through: &Through) -> f64 {
        product / (self.scale(row) * through.scales[row])
    }

    fn scale(&self, row: usize) -> f64 {
        if self.directions.of_row(row).scaled { self.scales[row] } else { 1.0 }
    }
}
