//! Direct logit attribution: how much every component of the residual stream adds to a logit.
//!
//! ```text
//! x = embed + pos_embed + Σ_l Σ_h head(l,h) + Σ_l attn_bias(l) + Σ_l mlp(l)        the stream is a sum
//! attribution(c) = (c · ũ) / s                                                      direction.rs, project.rs
//! Σ_c attribution(c) + constant = Σ_t w_t logit_t                                   certificate.rs
//! ```
//!
//! `s` is the scale of the final norm, held at its value of the run; `ũ` is the target's direction in the stream.

mod certificate;
mod component;
mod convention;
mod direction;
pub mod lens;
pub mod probe;
mod project;
pub mod sources;
mod stack;
pub mod summary;
mod target;
mod top;
pub mod top_tokens;
mod vocabulary;

pub use certificate::{Certificate, OnViolation};
pub(crate) use certificate::{certify_sums, check as check_certificates};
pub use component::{Component, ExpertId, Kind, Unit};
pub(crate) use component::{fine_columns, sum_columns};
pub use convention::Convention;
pub use direction::{Direction, NormTreatment};
pub(crate) use direction::{Directions, before, dot, host};
pub use stack::Depth;
pub use target::{Against, Answer, Resolved, Target, TokenWeights};
pub(crate) use target::{measure, resolve_rows};
pub(crate) use vocabulary::Largest;
pub use vocabulary::Scored;
pub(crate) use {project::points as component_points, stack::stack as residual_stack};

use crate::cancel::Cancel;
use crate::chunk::{Chunk, Observed, Row};
use crate::config::ModelConfig;
use crate::error::{PrismError, Result};
use crate::hook::HookPoint;
use crate::model::{Output, Transformer};
use crate::tap::Activations;
use crate::whole::{Places, Whole};
use certificate::Sums;
use std::collections::BTreeSet;

/// Tokens of the vocabulary that are scanned together.
pub(crate) fn vocabulary_block(config: &ModelConfig) -> usize {
    vocabulary::BLOCK.min(config.d_vocab)
}

/// What to compute, besides prompts and targets.
#[derive(Debug, Clone)]
pub struct Options {
    /// The columns.
    pub unit: Unit,
    /// With `Unit::Neuron`: of every row the neurons to keep of each sign; all without.
    pub top: Option<usize>,
    /// Whether the value bias counts in the heads.
    pub convention: Convention,
    /// What is done with the final norm. `None` is [`NormTreatment::Frozen`], and the only choice for a direction.
    pub norm: Option<NormTreatment>,
    /// Whether a row beyond its tolerance is an error.
    pub on_violation: OnViolation,
}

impl Options {
    /// How many columns are computed; those of `top` are chosen among them.
    pub(crate) fn width(&self, config: &ModelConfig) -> usize {
        Component::n_listed(self.unit, config, self.convention.has_attn_bias(config))
    }

    /// The activations that attribution needs, at the wanted rows.
    pub(crate) fn points(&self, model: &Transformer) -> BTreeSet<HookPoint> {
        project::points(model, self.unit).into_iter().chain(self.convention.points(&model.config)).collect()
    }
}

/// Attributions of some rows.
#[derive(Debug, Default)]
pub struct Attribution {
    /// What each row is.
    pub rows: Vec<Row>,
    /// What each row attributes, resolved.
    pub targets: Vec<Resolved>,
    /// [rows, components], row-major.
    pub values: Vec<f32>,
    /// What the columns are, where they are not all of the unit's.
    pub components: Option<Vec<Component>>,
    /// What no component writes, [rows].
    pub constant: Vec<f64>,
    /// Both sides of the completeness equation and their tolerance, [rows].
    pub certificates: Vec<Certificate>,
    /// `measured` of the logits after the model's cap, [rows]; NaN where that would take all of them (`against: 'mean'`).
    pub after_cap: Vec<f64>,
}

impl Attribution {
    /// Puts another part behind this one.
    pub fn append(&mut self, mut other: Attribution) {
        self.rows.append(&mut other.rows);
        self.targets.append(&mut other.targets);
        self.values.append(&mut other.values);
        self.components = self.components.take().or(other.components);
        self.constant.append(&mut other.constant);
        self.certificates.append(&mut other.certificates);
        self.after_cap.append(&mut other.after_cap);
    }
}

/// Runs the prompts of a chunk once and attributes at the wanted positions; one target per prompt. The values go to
/// `places`, a row of [`Options::width`] numbers each; the rest is returned.
///
/// # Errors
/// Those of the forward pass, `POSITION_RANGE` where a target needs a next token that is not there, `INCOMPLETE` where
/// a certificate fails.
pub(crate) fn attribute(
    model: &Transformer,
    chunk: Chunk,
    targets: &[Target],
    options: &Options,
    cancel: &Cancel,
    places: Places,
) -> Result<Attribution> {
    let Some(observed) = chunk.forward(model, options.points(model), BTreeSet::new(), cancel)? else {
        return Ok(Attribution::default());
    };
    let Observed { rows, activations, output, .. } = observed;
    let targets = target::resolve(&rows, chunk, targets, &output, &model.unembed)?;
    to_places(model, rows, targets, &activations, &output, options, places)
}

/// The target of every row of a chunk, from what the forward pass left behind at the same rows.
///
/// # Errors
/// As [`attribute`].
pub(crate) fn resolve_targets(
    chunk: Chunk,
    targets: &[Target],
    output: &Output,
    model: &Transformer,
) -> Result<Vec<Resolved>> {
    target::resolve(&chunk.rows(), chunk, targets, output, &model.unembed)
}

/// Attributes from what a forward pass left behind: the points of [`project::points`] and its output, at the same rows.
pub(crate) fn from_activations(
    model: &Transformer,
    rows: Vec<Row>,
    targets: Vec<Resolved>,
    activations: &Activations,
    output: &Output,
    options: &Options,
) -> Result<Attribution> {
    let mut whole = Whole::new(rows.len(), options.width(&model.config));
    let places = whole.places([rows.len()])?.remove(0);
    let attribution = to_places(model, rows, targets, activations, output, options, places)?;
    Ok(Attribution { values: whole.numbers()?, ..attribution })
}

/// The same with the values where they are to lie.
pub(crate) fn to_places(
    model: &Transformer,
    rows: Vec<Row>,
    targets: Vec<Resolved>,
    activations: &Activations,
    output: &Output,
    options: &Options,
    mut places: Places,
) -> Result<Attribution> {
    let config = &model.config;
    let directions = Directions::of(&targets, options.norm, model)?;
    let fine = project::fine(options.unit);
    let columns = project::by_component(model, activations, &directions, fine, options.convention)?;
    let constant: Vec<f64> = (0..rows.len()).map(|row| directions.of_row(row).constant).collect();
    let measured = target::measure(&targets, output, &model.unembed)?;
    let after_cap = measured.iter().map(|m| m.after_cap).collect();
    let measured: Vec<f64> = measured.iter().map(|m| m.value).collect();

    let has_attn_bias = options.convention.has_attn_bias(config);
    let listed = || Component::listed(fine, config, has_attn_bias);
    let coarse = (options.unit != fine).then(|| component::columns(&listed(), options.unit, config));
    let mut sums = vec![Sums::default(); rows.len()];
    let mut is_finite = Vec::with_capacity(rows.len());
    for (row, sums) in sums.iter_mut().enumerate() {
        let place = places.row()?;
        match &coarse {
            None => columns.write_row(row, place),
            Some(coarse) => {
                place.copy_from_slice(&sum_columns(&columns.row(row).flatten().copied().collect::<Vec<_>>(), coarse))
            }
        }
        columns.row(row).for_each(|piece| sums.add(piece));
        is_finite.push(are_finite(place, sums.magnitude));
    }
    let certificates = certificate::certify(certificate::relative(model.dtype()), &sums, &constant, &measured);
    check_finite(&is_finite, &certificates, &rows)?;
    if options.on_violation == OnViolation::Throw && options.norm != Some(NormTreatment::None) {
        certificate::check(&certificates, &rows)?;
    }
    let is_usual = options.unit != fine || has_attn_bias == config.has_attn_bias();
    let components = (!is_usual).then(listed);
    Ok(Attribution { rows, targets, values: Vec::new(), components, constant, certificates, after_cap })
}

/// Whether all numbers are, of which the magnitudes in f64 add up to this: none is larger.
fn are_finite(values: &[f32], magnitude: f64) -> bool {
    magnitude <= f64::from(f32::MAX) || values.iter().all(|v| v.is_finite())
}

/// That every column and both sides of every certificate are finite: only then does the certificate say something.
fn check_finite(columns: &[bool], certificates: &[Certificate], rows: &[Row]) -> Result<()> {
    let is_finite = |(columns, c): (&bool, &Certificate)| *columns && c.total.is_finite() && c.measured.is_finite();
    match columns.iter().zip(certificates).position(|row| !is_finite(row)) {
        None => Ok(()),
        Some(i) => Err(PrismError::NotFinite { first: "the attribution".into(), prompt: rows[i].prompt }),
    }
}

#[cfg(test)]
mod tests;
