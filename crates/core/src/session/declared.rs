//! An intervention against the model, the prompts and the runs that it takes values from.

use super::Session;
use super::interventions::{Intervention, Interventions, Reference, Set};
use crate::cache::{Axis, Cache, Means, cells_of};
use crate::chunk::Prompted;
use crate::error::{PrismError, Result};
use crate::hook::HookPoint;
use crate::intervene::{Cells, Record};
use crate::rows::Positions;
use candle_core::Tensor;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// An intervention that was checked against the model.
pub(super) struct Declared<'a> {
    pub(super) given: &'a Intervention,
    pub(super) prompt: Option<usize>,
    pub(super) points: Vec<HookPoint>,
    /// What it is called in messages: `interventions[2]`.
    pub(super) name: String,
    /// The vector to add, [1, numbers].
    pub(super) vector: Option<Tensor>,
}

/// One of the runs that interventions name.
///
/// # Errors
/// `INVALID_ARGUMENT`.
pub(super) fn run_of<'a>(given: &'a Interventions, run: usize, name: &str) -> Result<&'a Cache> {
    let found = given.runs.get(run).map(Arc::as_ref);
    found.ok_or_else(|| PrismError::argument(name, format!("run {run}"), format!("one of {} runs", given.runs.len())))
}

impl Declared<'_> {
    pub(super) fn is_of(&self, prompt: usize) -> bool {
        self.prompt.is_none_or(|only| only == prompt)
    }

    /// What can be told of every prompt before a reference is run.
    pub(super) fn check_prompts(&self, session: &Session, given: &Interventions, prompts: &[Prompted]) -> Result<()> {
        let config = &session.transformer.config;
        for (i, prompt) in prompts.iter().enumerate().filter(|(i, _)| self.is_of(*i)) {
            let length = prompt.ids.len();
            self.given.positions.of(i, length)?;
            for point in &self.points {
                match &self.given.set {
                    Set::Add(_) => {
                        self.vector_at(
                            cells_of(config, *point, length),
                            *point,
                            self.given.head.or(self.given.neuron),
                        )?;
                    }
                    Set::From { run, prompt: from, .. } => {
                        let run = run_of(given, *run, &self.name)?;
                        run.check_has(&BTreeSet::from([point.read_from(config.parallel)]), "an intervention")?;
                        self.source_rows(run, *from, *point, i, length)?;
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// The vector to add, of the right length.
    pub(super) fn vector_at(&self, cells: Cells, point: HookPoint, index: Option<usize>) -> Result<Tensor> {
        let expected = cells.numbers(index);
        match &self.vector {
            Some(vector) if vector.dim(1)? == expected => Ok(vector.clone()),
            other => {
                let n = other.as_ref().map_or(Ok(0), |vector| vector.dim(1))?;
                let expected = format!("{expected}: what '{point}' has there at one position");
                Err(PrismError::argument(format!("{}.set.add", self.name), format!("{n} numbers"), expected))
            }
        }
    }

    /// For every position that is set, rising, which of the kept positions of a run's prompt it is taken from.
    pub(super) fn source_rows(
        &self,
        run: &Cache,
        from: usize,
        point: HookPoint,
        i: usize,
        length: usize,
    ) -> Result<Vec<usize>> {
        let refused = |key: &str, found: String, expected: &str| {
            PrismError::argument(format!("{}.set.{key}", self.name), found, expected)
        };
        let of_run = || format!("one of the run's {} prompts, from 0", run.prompts.len());
        let source = run.prompts.get(from).ok_or_else(|| refused("prompt", from.to_string(), &of_run()))?;
        let choice = match &self.given.set {
            Set::From { positions: Some(positions), .. } => positions,
            _ => &self.given.positions,
        };
        let its_length = source.ids.len();
        if (point.is_square() || *choice == Positions::All) && its_length != length {
            let found = format!("a prompt of {its_length} tokens for one of {length}");
            let expected = match point.is_square() {
                true => "as many: these points have a number for every position",
                false => "as many, or positions that are named",
            };
            return Err(refused("from", found, expected));
        }
        let to = in_order(&self.given.positions, i, length)?;
        let taken = in_order(choice, from, its_length).map_err(|e| {
            let position = e.details()["position"].to_string();
            refused("position", position, &format!("a position of the run's prompt {from}, of {its_length} tokens"))
        })?;
        if to.len() != taken.len() {
            return Err(refused(
                "position",
                format!("{} positions for {}", taken.len(), to.len()),
                "as many as are set",
            ));
        }
        if point.is_square() && to != taken {
            let expected = "the same: a query's numbers belong to its position";
            return Err(refused("position", "other positions".into(), expected));
        }
        let mut pairs: Vec<(usize, usize)> = to.into_iter().zip(taken).collect();
        pairs.sort();
        let row = |(_, position): (usize, usize)| {
            let found = format!("position {position}, which the run did not keep");
            source.positions.binary_search(&position).map_err(|_| refused("position", found, "a position that it kept"))
        };
        pairs.into_iter().map(row).collect()
    }

    pub(super) fn record(&self, means: &BTreeMap<Reference, Means>) -> Record {
        let Intervention { head, neuron, positions, .. } = self.given.clone();
        let points = self.points.iter().copied().collect();
        Record { prompt: self.prompt, points, head, neuron, positions, set: self.words(means) }
    }

    /// What is set, in words.
    fn words(&self, means: &BTreeMap<Reference, Means>) -> String {
        match &self.given.set {
            Set::Zero => "zero".into(),
            Set::Scale(factor) => format!("the value times {factor}"),
            Set::Add(vector) => {
                let norm = vector.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
                format!("a vector of norm {norm:.4} added")
            }
            Set::Mean(reference, axis) => {
                let (prompts, positions) = means.get(reference).map_or((0, 0), Means::counts);
                let whose = if let Reference::Run(_) = reference { " of a run" } else { "" };
                match axis {
                    Axis::All => format!("the mean over {positions} positions of {prompts} prompts{whose}"),
                    Axis::Position => format!("the mean over {prompts} prompts{whose}, position by position"),
                }
            }
            Set::From { prompt, positions: None, .. } => format!("the value in prompt {prompt} of a run"),
            Set::From { prompt, positions: Some(positions), .. } => match positions {
                Positions::Of(list) => {
                    let list: Vec<String> = list.iter().map(i64::to_string).collect();
                    format!("the value in prompt {prompt} of a run at {}", list.join(", "))
                }
                Positions::Last => format!("the value in prompt {prompt} of a run at its last position"),
                _ => format!("the value in prompt {prompt} of a run at all positions"),
            },
        }
    }
}

/// Positions in the order in which they are given.
pub(super) fn in_order(positions: &Positions, prompt: usize, length: usize) -> Result<Vec<usize>> {
    let one = |position: &i64| Ok(Positions::Of(vec![*position]).of(prompt, length)?[0]);
    match positions {
        Positions::Of(list) => list.iter().map(one).collect(),
        Positions::PerPrompt(lists) if prompt < lists.len() => lists[prompt].iter().map(one).collect(),
        other => other.of(prompt, length),
    }
}
