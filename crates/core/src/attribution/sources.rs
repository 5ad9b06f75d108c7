//! Heads split by where they look: `head(l,h)` is a sum over source positions `j` of `A[q,j] (v_j W_O[h])`, so with the
//! direction folded through W_O, `f(l,h)`, source `j` adds `A[q,j] (v_j · f(l,h)) / (s s_post)`. Sources sum to the head.

use super::component::{Component, Kind, Unit};
use super::convention::{Convention, common_value};
use super::direction::Directions;
use super::project::Reader;
use super::{Attribution, Options, Target, from_activations, target};
use crate::cancel::Cancel;
use crate::chunk::{Chunk, Observed};
use crate::error::{PrismError, Result};
use crate::hook::{BlockPoint, HookPoint};
use crate::model::Transformer;
use candle_core::DType;
use std::collections::{BTreeMap, BTreeSet};

/// Heads by (layer, head), in the order of the columns.
pub type Heads = Vec<(usize, usize)>;

/// Head × source position at some rows, with the attribution that they are parts of.
#[derive(Default)]
pub struct Sources {
    /// The whole attribution by heads, with its certificates.
    pub attribution: Attribution,
    /// Row by row: [heads, key_pos], row-major; `key_pos` counts all positions of the row's prompt, 0 behind the row's own.
    pub values: Vec<Vec<f32>>,
}

impl Sources {
    /// Puts another part behind this one.
    pub fn append(&mut self, mut other: Sources) {
        self.attribution.append(other.attribution);
        self.values.append(&mut other.values);
    }
}

/// The heads that these labels name; all of them without labels.
///
/// # Errors
/// `INVALID_ARGUMENT` with the nearest labels, or where one stands twice.
pub fn heads(labels: Option<&[String]>, model: &Transformer) -> Result<Heads> {
    let all = Component::all(Unit::Head, &model.config).into_iter().filter(|c| c.kind == Kind::Head);
    let known: BTreeMap<String, (usize, usize)> = all.filter_map(|c| Some((c.label(), (c.layer?, c.index?)))).collect();
    let Some(labels) = labels else {
        let mut heads: Heads = known.into_values().collect();
        heads.sort_unstable();
        return Ok(heads);
    };
    let mut seen = BTreeSet::new();
    let of = |label: &String| {
        let refused = |expected: String| PrismError::argument("heads", format!("'{label}'"), expected);
        let head = known.get(label).copied().ok_or_else(|| {
            let nearest = crate::suggest::nearest(label, known.keys().cloned());
            refused(format!(
                "heads of the model, like {}",
                if nearest.is_empty() { "L0H0".into() } else { nearest.join(", ") }
            ))
        })?;
        if seen.insert(head) { Ok(head) } else { Err(refused("each head once".into())) }
    };
    let mut heads = labels.iter().map(of).collect::<Result<Heads>>()?;
    heads.sort_unstable();
    Ok(heads)
}

/// Attributes the wanted rows of a chunk and splits `heads` by source position.
///
/// # Errors
/// Those of [`super::attribute`].
pub fn attribute_sources(
    model: &Transformer,
    chunk: Chunk,
    targets: &[Target],
    heads: &Heads,
    options: &Options,
    cancel: &Cancel,
) -> Result<Sources> {
    let layers: BTreeSet<usize> = heads.iter().map(|(l, _)| *l).collect();
    let mut points = options.points(model);
    points.extend(layers.iter().map(|l| HookPoint::Block(*l, BlockPoint::Pattern)));
    let values = layers.iter().map(|l| HookPoint::Block(*l, BlockPoint::V)).collect();
    let Some(observed) = chunk.forward(model, points, values, cancel)? else { return Ok(Sources::default()) };
    let targets = target::resolve(&observed.rows, chunk, targets, &observed.output, &model.unembed)?;
    let directions = Directions::of(&targets, options.norm, model)?;

    let mut split: Vec<Vec<f32>> = vec![Vec::new(); observed.rows.len()];
    for l in layers {
        let of_layer: Vec<usize> = heads.iter().filter(|(layer, _)| *layer == l).map(|(_, h)| *h).collect();
        for (row, values) in split_layer((model, l), chunk, &observed, &directions, &of_layer, options.convention)?
            .into_iter()
            .enumerate()
        {
            split[row].extend(values);
        }
    }
    let Observed { rows, activations, output, .. } = observed;
    let attribution = from_activations(model, rows, targets, &activations, &output, options)?;
    Ok(Sources { attribution, values: split })
}

/// The heads of one layer: per row [heads, key_pos].
fn split_layer(
    (model, l): (&Transformer, usize),
    chunk: Chunk,
    observed: &Observed,
    directions: &Directions,
    heads: &[usize],
    convention: Convention,
) -> Result<Vec<Vec<f32>>> {
    let block = &model.blocks[l];
    let reader = Reader::new(&observed.activations, directions, model.kernels)?;
    let through = reader.through_attention(block)?;
    let attention = &block.attention;
    let folded = reader.folded(&attention.output, &through)?; // [directions, H e]
    let per_group = attention.n_heads / attention.n_key_value_heads;
    let values = observed.activations.kept(HookPoint::Block(block.layer, BlockPoint::V))?; // [all rows, G, e]
    // what all positions have in common counts in the bias: convention.rs
    let common = if convention == Convention::TransformerLens { common_value(block)? } else { None };
    let e = attention.d_head;
    let missing = || PrismError::Internal { place: "sources".into(), problem: "no pattern was kept".into() };

    let mut split = Vec::with_capacity(observed.rows.len());
    let mut row = 0;
    for (segment, (prompt, span)) in chunk.prompts.iter().zip(&observed.spans).enumerate() {
        if prompt.positions.is_empty() {
            continue;
        }
        let point = HookPoint::Block(block.layer, BlockPoint::Pattern);
        let pattern = observed.activations.square(point, segment).ok_or_else(missing)?; // [H, rows, key_pos]
        let values = values.narrow(0, span.start, span.len())?;
        let of_head = heads.iter().map(|h| {
            let g = h / per_group;
            let mut v: Vec<Vec<f64>> = values.narrow(1, g, 1)?.squeeze(1)?.to_dtype(DType::F64)?.to_vec2()?;
            if let Some(common) = &common {
                v.iter_mut().for_each(|v| v.iter_mut().zip(&common[g * e..(g + 1) * e]).for_each(|(v, c)| *v -= c));
            }
            Ok((pattern.get(*h)?.to_dtype(DType::F64)?.to_vec2::<f64>()?, v))
        });
        let of_head = of_head.collect::<Result<Vec<_>>>()?;
        for i in 0..prompt.positions.len() {
            let f = &folded[directions.index(row)];
            let mut of_row = Vec::with_capacity(heads.len() * span.len());
            for (h, (pattern, v)) in heads.iter().zip(&of_head) {
                let f = &f[h * e..(h + 1) * e];
                let source = |(a, v): (&f64, &Vec<f64>)| {
                    let product = if *a == 0.0 { 0.0 } else { a * super::direction::dot(v, f) };
                    reader.per_scale(row, product, &through) as f32
                };
                of_row.extend(pattern[i].iter().zip(v).map(source));
            }
            split.push(of_row);
            row += 1;
        }
    }
    Ok(split)
}
