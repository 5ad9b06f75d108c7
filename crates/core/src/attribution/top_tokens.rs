//! Every token at once: for each component the tokens of the whole vocabulary that it raises and lowers most, the final
//! norm held at its scale of the run. A value is the component's attribution to the token's logit less that to the mean
//! of all logits, so that what moves all logits alike does not count.

use super::component::{Component, Unit};
use super::direction::dot;
use super::project;
use super::stack::{Depth, stack};
use super::vocabulary::{Largest, Scored, blocks};
use crate::cancel::Cancel;
use crate::chunk::{Chunk, Row};
use crate::error::{PrismError, Result};
use crate::hook::HookPoint;
use crate::model::{Transformer, check_finite};
use candle_core::{DType, Tensor};
use std::collections::BTreeSet;

/// What is asked.
pub struct Wanted {
    /// The components.
    pub unit: Unit,
    /// Of those, only these columns, rising; all without.
    pub columns: Option<Vec<usize>>,
    /// How many tokens each way.
    pub k: usize,
    /// Tokens that are left out.
    pub masked: BTreeSet<u32>,
}

/// Tokens of every row and component.
#[derive(Default)]
pub struct TopTokens {
    /// What each row is.
    pub rows: Vec<Row>,
    /// Raised most, largest first: [rows · components].
    pub raised: Vec<Vec<Scored>>,
    /// Lowered most, most negative first: [rows · components].
    pub lowered: Vec<Vec<Scored>>,
}

impl TopTokens {
    /// Puts another part behind this one.
    pub fn append(&mut self, mut other: TopTokens) {
        self.rows.append(&mut other.rows);
        self.raised.append(&mut other.raised);
        self.lowered.append(&mut other.lowered);
    }
}

/// Ranks the vocabulary for every component at the wanted rows of a chunk.
///
/// # Errors
/// Those of the forward pass; `ABORTED` between two blocks of the vocabulary.
pub fn top_tokens(model: &Transformer, chunk: Chunk, wanted: &Wanted, cancel: &Cancel) -> Result<TopTokens> {
    let points = project::points(model, wanted.unit);
    let Some(observed) = chunk.forward(model, points, BTreeSet::new(), cancel)? else {
        return Ok(TopTokens::default());
    };
    let mut writes = stack(model, &observed.activations, wanted.unit, Depth::all(model))?;
    if let Some(columns) = &wanted.columns {
        let columns: Vec<u32> = columns.iter().map(|c| *c as u32).collect();
        writes = writes.index_select(&Tensor::new(columns, writes.device())?, 1)?;
    }
    let n_components = writes.dim(1)?;
    let scales = observed.activations.kept(HookPoint::FinalScale)?.unsqueeze(1)?;
    let read = model.ln_final.linear_part(&writes, &scales)?.flatten_to(1)?; // [rows · components, d_model]
    check_finite(&read, || "the attribution".into(), |i| observed.rows[i / n_components].prompt)?;

    let n = read.dim(0)?;
    let means = means(model, &read)?;
    let mut largest: Vec<[Largest; 2]> = (0..n).map(|_| [Largest::new(wanted.k), Largest::new(wanted.k)]).collect();
    blocks(&model.unembed, &read, false, |start, products| {
        cancel.check()?;
        let width = products.len() / n;
        for ((row, mean), [raised, lowered]) in products.chunks_exact(width).zip(&means).zip(&mut largest) {
            for (i, product) in row.iter().enumerate() {
                let (token, value) = ((start + i) as u32, product - mean);
                if wanted.masked.is_empty() || !wanted.masked.contains(&token) {
                    raised.offer(token, value);
                    lowered.offer(token, -value);
                }
            }
        }
        Ok(())
    })?;
    let mut result = TopTokens { rows: observed.rows, ..TopTokens::default() };
    for [raised, lowered] in largest {
        result.raised.push(raised.finish());
        let negated = |s: Scored| Scored { value: -s.value, ..s };
        result.lowered.push(lowered.finish().into_iter().map(negated).collect());
    }
    Ok(result)
}

/// The mean over the vocabulary of every row's products with W_U.
fn means(model: &Transformer, read: &Tensor) -> Result<Vec<f32>> {
    let mean = &model.unembed.mean_column()?.weight;
    let rows: Vec<Vec<f64>> = read.to_dtype(DType::F64)?.to_vec2()?;
    Ok(rows.iter().map(|row| (model.unembed.logit_scale * dot(row, mean)) as f32).collect())
}

/// The columns of `unit` that these labels name.
///
/// # Errors
/// `INVALID_ARGUMENT` with the nearest labels.
pub fn columns(labels: &[String], unit: Unit, model: &Transformer) -> Result<Vec<usize>> {
    let known: Vec<String> = Component::all(unit, &model.config).iter().map(Component::label).collect();
    let of = |label: &String| {
        known.iter().position(|k| k == label).ok_or_else(|| {
            let nearest = crate::suggest::nearest(label, known.iter().cloned()).join(", ");
            PrismError::argument(
                "components",
                format!("'{label}'"),
                format!("components of the model; nearest: {nearest}"),
            )
        })
    };
    let columns: BTreeSet<usize> = labels.iter().map(of).collect::<Result<_>>()?;
    Ok(columns.into_iter().collect())
}
