//! Many directions at once, each read raw at a point of the residual stream: `value(c) = c · v` over the components
//! written up to there; their sum is the stream's own `x · v`.
//!
//! Two ways to the same numbers. Folding reads every direction through every output matrix, once for all rows; forming
//! writes every component's vector at the wanted rows, once for all directions. With few rows forming is cheaper, with
//! few directions folding; the products are counted, and the smaller count wins.

use super::certificate::{self, Certificate, Sums};
use super::component::{Component, Unit};
use super::project;
use super::stack::{self, Depth};
use crate::cancel::Cancel;
use crate::chunk::{Chunk, Row};
use crate::config::ModelConfig;
use crate::error::{PrismError, Result};
use crate::hook::{BlockPoint, HookPoint};
use crate::model::{Block, Transformer};
use crate::ops::{self, Kernels, Weight};
use crate::tap::Activations;
use crate::whole::Places;
use candle_core::{DType, Device, Tensor};
use std::collections::BTreeSet;

/// Directions whose values at a row are written together: few enough to stay in the cache until they are added up.
const TOGETHER: usize = 64;
/// Vectors of components that are multiplied with all directions at once on a CPU: what comes of them stays in the cache
/// until it is written where it belongs.
const VECTORS: usize = 384;

/// What is asked of the directions.
pub struct Probing {
    /// [directions, d_model]
    directions: Tensor,
    /// The same as a matrix by which writes are multiplied.
    weight: Weight,
    /// The point of the stream where they are read.
    at: HookPoint,
    /// The columns: layers or heads.
    unit: Unit,
}

impl Probing {
    /// Of directions [directions, d_model] for a model with these kernels.
    ///
    /// # Errors
    /// `INTERNAL`.
    pub fn new(directions: Tensor, at: HookPoint, unit: Unit, kernels: Kernels) -> Result<Self> {
        let weight = match kernels {
            Kernels::Plain => Weight::of_rows(directions.t()?.contiguous()?)?,
            Kernels::Fused(_) => Weight::turned(&directions)?,
        };
        Ok(Probing { directions, weight, at, unit })
    }
}

/// Directions at some rows.
#[derive(Default)]
pub struct Probed {
    /// What each row is.
    pub rows: Vec<Row>,
    /// [rows, directions, components], row-major
    pub values: Vec<f32>,
    /// Both sides of `Σ_c c · v = x · v`, [rows, directions].
    pub certificates: Vec<Certificate>,
}

impl Probed {
    /// Puts another part behind this one; its values lie where they belong.
    pub(crate) fn append(&mut self, mut other: Probed) {
        self.rows.append(&mut other.rows);
        self.certificates.append(&mut other.certificates);
    }

    /// That the components of every direction add up to the stream's own dot product.
    ///
    /// # Errors
    /// `INCOMPLETE`.
    pub fn check(&self) -> Result<()> {
        let per_row = self.certificates.len() / self.rows.len().max(1);
        let rows: Vec<Row> = self.rows.iter().flat_map(|row| std::iter::repeat_n(*row, per_row)).collect();
        certificate::check(&self.certificates, &rows)
    }
}

/// Directions of d_model numbers each, row after row, as a matrix.
///
/// # Errors
/// `INVALID_ARGUMENT` where there are none, or their length is not a multiple, or a number is not finite.
pub fn directions(flat: &[f32], d_model: usize, device: &Device) -> Result<Tensor> {
    let expected = format!("at least one direction of {d_model} finite numbers each, one after the other");
    if flat.is_empty() || !flat.len().is_multiple_of(d_model) {
        return Err(PrismError::argument("directions", format!("{} numbers", flat.len()), expected));
    }
    if flat.iter().any(|v| !v.is_finite()) {
        return Err(PrismError::argument("directions", "numbers that are not finite", expected));
    }
    Ok(Tensor::from_slice(flat, (flat.len() / d_model, d_model), device)?)
}

/// The components that have written at a depth.
pub fn components(config: &ModelConfig, unit: Unit, depth: Depth) -> Vec<Component> {
    Component::all(unit, config).into_iter().filter(|c| depth.has(c)).collect()
}

/// Reads every direction at the wanted rows of a chunk. The values go to `places`, [directions, components] of a row each; the
/// rest is returned.
///
/// # Errors
/// Those of the forward pass.
pub(crate) fn probe(
    model: &Transformer,
    chunk: Chunk,
    probing: &Probing,
    depth: Depth,
    cancel: &Cancel,
    places: Places,
) -> Result<Probed> {
    let mut points = project::points(model, Unit::Head);
    points.insert(probing.at);
    let Some(observed) = chunk.forward(model, points, BTreeSet::new(), cancel)? else { return Ok(Probed::default()) };
    let activations = &observed.activations;
    let n_rows = observed.rows.len();
    let n_directions = probing.directions.dim(0)?;
    let fine = components(&model.config, Unit::Head, depth);
    let coarse = (probing.unit == Unit::Layer).then(|| layer_columns(&model.config, &fine, depth));

    let mut written = Written { places, coarse, n_components: fine.len(), sums: Vec::new(), heads: Vec::new() };
    if folding_is_cheaper(&model.config, n_rows, n_directions) {
        let read = fold(model, activations, probing, depth)?;
        let read = ops::Rows::of(&read.to_device(&Device::Cpu)?)?;
        let read = read.numbers()?;
        for row in read.chunks_exact(n_directions * fine.len()) {
            written.write(n_directions, |to| to.copy_from_slice(row))?;
        }
    } else {
        form(model, activations, probing, depth, |row| {
            for first in (0..n_directions).step_by(TOGETHER) {
                let some = first..n_directions.min(first + TOGETHER);
                written.write(some.len(), |to| ops::turn(model.kernels, row, n_directions, some, to))?;
            }
            Ok(())
        })?;
    }

    let measured = ops::project_wide(model.kernels, activations.kept(probing.at)?, &probing.directions)?;
    let constant = vec![0.0; measured.len()];
    let certificates = certificate::certify(certificate::relative(model.dtype()), &written.sums, &constant, &measured);
    Ok(Probed { rows: observed.rows, values: Vec::new(), certificates })
}

/// Values where they stay, and their sums.
struct Written<'a> {
    places: Places<'a>,
    /// For each component that is read its column, where columns are layers.
    coarse: Option<Vec<usize>>,
    /// How many are read.
    n_components: usize,
    /// Of every row and direction.
    sums: Vec<Sums>,
    /// What is read of some directions, where columns are layers.
    heads: Vec<f32>,
}

impl Written<'_> {
    /// The next directions of a row: `fill` gets the place of [directions, components] and writes all of it.
    fn write(&mut self, n_directions: usize, fill: impl FnOnce(&mut [f32])) -> Result<()> {
        let n = n_directions * self.n_components;
        let Some(coarse) = &self.coarse else {
            let values = self.places.piece(n)?;
            fill(values);
            self.sums.extend(values.chunks_exact(self.n_components).map(Sums::of));
            return Ok(());
        };
        self.heads.resize(n, 0.0);
        fill(&mut self.heads);
        for values in self.heads.chunks_exact(self.n_components) {
            self.sums.push(Sums::of(values));
            let values: Vec<f64> = values.iter().map(|v| f64::from(*v)).collect();
            let of_layers = super::component::sum_columns(&values, coarse);
            self.places.piece(of_layers.len())?.copy_from_slice(&of_layers);
        }
        Ok(())
    }
}

/// For each fine component, its column among the layers' components up to a depth.
fn layer_columns(config: &ModelConfig, fine: &[Component], depth: Depth) -> Vec<usize> {
    let all = super::component::columns(&Component::all(Unit::Head, config), Unit::Layer, config);
    let coarse = Component::all(Unit::Layer, config);
    let kept: Vec<usize> = (0..coarse.len()).filter(|i| depth.has(&coarse[*i])).collect();
    let heads = Component::all(Unit::Head, config);
    let of = heads.iter().zip(all).filter(|(c, _)| fine.contains(c));
    of.filter_map(|(_, column)| kept.iter().position(|k| *k == column)).collect()
}

/// Counts of products: folding costs `d²` per direction and layer and one pass over z per row, forming `d²` per row and
/// layer and `d` per row, component and direction.
fn folding_is_cheaper(config: &ModelConfig, rows: usize, directions: usize) -> bool {
    let (layers, d) = (config.n_layers as f64, config.d_model as f64);
    let z = (config.n_heads * config.d_head) as f64;
    let (rows, directions) = (rows as f64, directions as f64);
    let components = Component::count(Unit::Head, config) as f64;
    let fold = directions * layers * z * d + rows * directions * layers * (z + 2.0 * d);
    let form = rows * layers * z * d + rows * components * directions * d;
    fold < form
}

/// Every write at the wanted rows, then all directions at once: hands what is read of each row to `each`, row by row,
/// [components, directions].
fn form(
    model: &Transformer,
    activations: &Activations,
    probing: &Probing,
    depth: Depth,
    mut each: impl FnMut(&[f32]) -> Result<()>,
) -> Result<()> {
    let writes = stack::writes(model, activations, Unit::Head, depth)?;
    let n_rows = writes[0].dim(0)?;
    let n_components = writes.iter().map(|part| part.dim(1)).sum::<candle_core::Result<usize>>()?;
    let at_once = if model.device.is_cpu() { (VECTORS / n_components).max(1) } else { n_rows };
    for first in (0..n_rows).step_by(at_once) {
        let rows = |part: &Tensor| part.narrow(0, first, at_once.min(n_rows - first));
        let some = Tensor::cat(&writes.iter().map(rows).collect::<candle_core::Result<Vec<_>>>()?, 1)?;
        let read = ops::linear(model.kernels, &some.flatten_to(1)?, &probing.weight, None)?;
        let read = ops::Rows::of(&read.to_device(&Device::Cpu)?)?;
        read.numbers()?.chunks_exact(n_components * probing.weight.n_out()).try_for_each(&mut each)?;
    }
    Ok(())
}

/// Every direction through the output matrices, then all rows at once: [rows, directions, components].
fn fold(model: &Transformer, activations: &Activations, probing: &Probing, depth: Depth) -> Result<Tensor> {
    let config = &model.config;
    let write = |point| -> Result<Tensor> {
        Ok(ops::linear(model.kernels, activations.kept(point)?, &probing.weight, None)?.unsqueeze(2)?)
    };
    let embeddings = [HookPoint::Embed, HookPoint::PosEmbed].into_iter().filter(|p| p.absent(config).is_none());
    let mut columns = embeddings.map(write).collect::<Result<Vec<_>>>()?;
    for block in model.blocks.iter().take(depth.blocks + usize::from(depth.attention)) {
        columns.extend(fold_attention(block, activations, &probing.directions, model)?);
        if block.layer < depth.blocks {
            columns.push(write(HookPoint::Block(block.layer, BlockPoint::MlpOut))?);
        }
    }
    Ok(Tensor::cat(&columns, 2)?)
}

/// The heads, [rows, directions, H], and the bias, [rows, directions, 1].
fn fold_attention(
    block: &Block,
    activations: &Activations,
    directions: &Tensor,
    model: &Transformer,
) -> Result<Vec<Tensor>> {
    let kernels = model.kernels;
    let kept = |point| activations.kept(HookPoint::Block(block.layer, point));
    let attention = &block.attention;
    let z = kept(BlockPoint::Z)?;
    let (rows, n) = (z.dim(0)?, directions.dim(0)?);
    let through = match &block.ln1_post {
        Some(post) => post.before(directions)?,
        None => directions.clone(),
    };
    let scales = match &block.ln1_post {
        Some(_) => kept(BlockPoint::Ln1PostScale)?.unsqueeze(2)?,
        None => Tensor::ones((rows, 1, 1), DType::F32, directions.device())?,
    };
    let folded = ops::fold(kernels, &through, &attention.output.weight)?; // [directions, H e]
    let folded = folded.reshape((n, attention.n_heads, attention.d_head))?.permute((1, 2, 0))?.contiguous()?;
    let heads = ops::matmul(&z.transpose(0, 1)?.contiguous()?, &folded)?; // [H, rows, directions]
    let heads = heads.permute((1, 2, 0))?.contiguous()?.broadcast_div(&scales)?;
    let mut columns = vec![(heads * block.multiplier)?];
    if model.config.has_attn_bias() {
        let mut bias = Tensor::zeros((rows, n, 1), DType::F32, directions.device())?;
        if let Some(b) = &attention.output.bias {
            let of_raw = ops::project(kernels, &through, &b.unsqueeze(0)?)?.unsqueeze(0)?; // [1, directions, 1]
            bias = bias.broadcast_add(&of_raw)?.broadcast_div(&scales)?;
        }
        if let Some(beta) = block.ln1_post.as_ref().and_then(|post| post.beta.as_ref()) {
            bias = bias.broadcast_add(&ops::project(kernels, directions, &beta.unsqueeze(0)?)?.unsqueeze(0)?)?;
        }
        columns.push((bias * block.multiplier)?);
    }
    Ok(columns)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RawConfig;

    /// GPT-2 small: 12 layers of 12 heads, d 768, 170 components.
    fn config() -> ModelConfig {
        ModelConfig::resolve(RawConfig::parse("config.json", br#"{"model_type": "gpt2"}"#).unwrap(), false).unwrap()
    }

    #[test]
    fn the_smaller_count_of_products_wins() {
        // folding: 7.08M per direction and 27,648 per direction and row; forming: 7.08M per row and 130,560 per both
        for (rows, directions, folding) in [
            (1, 1, true),  // 7.11M and 7.21M
            (1, 2, false), // 14.2M and 7.3M
            (1, 10_000, false),
            (1_000, 1, true),
            (1_000, 10, true),
            (10, 100, false),    // 735M and 201M
            (100, 100, true),    // 984M and 2,014M
            (100, 10_000, true), // 98G and 131G: so many rows that forming costs more whatever the directions
            (50, 10_000, false), // 85G and 66G
        ] {
            assert_eq!(
                folding_is_cheaper(&config(), rows, directions),
                folding,
                "{rows} rows, {directions} directions"
            );
        }
    }
}
