//! Interventions as a call says them, and how they become edits of every prompt. Everything that can be checked without
//! running is checked before the references are run.

use super::Session;
use super::asked::Asked;
use super::declared::{Declared, run_of};
use crate::cache::{self, Axis, Cache, Logits, Means, Wanted, cells_of};
use crate::chunk::Prompted;
use crate::error::{PrismError, Result};
use crate::hook::HookPoint;
use crate::intervene::{Action, Cells, Edit, Record};
use crate::rows::Positions;
use crate::run::Job;
use crate::tokenizer::Prompt;
use candle_core::Tensor;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// One intervention.
#[derive(Debug, Clone)]
pub struct Intervention {
    /// Name of a hook point, `*` standing for any characters.
    pub at: String,
    /// One head, or key/value head where the point has those.
    pub head: Option<usize>,
    /// One neuron.
    pub neuron: Option<usize>,
    /// `Last`, `All` or `Of`; of scores and patterns the query's.
    pub positions: Positions,
    /// What is to stand there.
    pub set: Set,
}

/// What an intervention sets.
#[derive(Debug, Clone)]
pub enum Set {
    /// 0
    Zero,
    /// The value times this.
    Scale(f64),
    /// The value and this vector: as many numbers as the point has at one position, of the head or neuron if one is named.
    Add(Vec<f32>),
    /// The mean over a reference.
    Mean(Reference, Axis),
    /// The value in another run.
    From {
        /// Which of [`Interventions::runs`].
        run: usize,
        /// Which of its prompts.
        prompt: usize,
        /// Its positions, one for each that is set, in their order; without, the same choice of positions.
        positions: Option<Positions>,
    },
}

/// What a mean is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reference {
    /// Which of [`Interventions::references`].
    Prompts(usize),
    /// Which of [`Interventions::runs`]: what it kept.
    Run(usize),
}

/// Interventions, in the order in which they are made.
#[derive(Debug, Clone)]
pub enum Lists {
    /// The same in every prompt.
    ForAll(Vec<Intervention>),
    /// Prompt by prompt.
    PerPrompt(Vec<Vec<Intervention>>),
}

/// What is changed in a run, and what that is taken from.
#[derive(Clone)]
pub struct Interventions {
    /// The interventions.
    pub lists: Lists,
    /// Runs that sets name.
    pub runs: Vec<Arc<Cache>>,
    /// Prompts that sets name.
    pub references: Vec<Vec<Prompt>>,
}

impl Default for Interventions {
    fn default() -> Self {
        Interventions { lists: Lists::ForAll(Vec::new()), runs: Vec::new(), references: Vec::new() }
    }
}

/// Prompts of a reference that are run together.
const GROUP: usize = 32;

impl Session {
    /// Gives every prompt its edits, and says what was done.
    ///
    /// # Errors
    /// `UNKNOWN_HOOK`, `INVALID_ARGUMENT`, `POSITION_RANGE`, `NOT_CACHED`; those of running the references.
    pub(super) fn intervene(
        &self,
        given: &Interventions,
        asked: &Asked,
        prompts: &mut [Prompted],
        job: &Job,
    ) -> Result<Vec<Record>> {
        let declared = self.declared(&given.lists, prompts.len())?;
        for one in &declared {
            one.check_prompts(self, given, prompts)?;
        }
        let means = self.means(&declared, given, asked, job)?;
        for one in &declared {
            for (i, prompt) in prompts.iter_mut().enumerate().filter(|(i, _)| one.is_of(*i)) {
                job.cancel.check()?;
                for point in &one.points {
                    let edit = self.edit(one, *point, i, prompt, given, &means)?;
                    prompt.edits.push(edit);
                }
            }
        }
        Ok(declared.iter().map(|one| one.record(&means)).collect())
    }

    fn declared<'a>(&self, lists: &'a Lists, n_prompts: usize) -> Result<Vec<Declared<'a>>> {
        let mut all = Vec::new();
        match lists {
            Lists::ForAll(list) => {
                for (i, given) in list.iter().enumerate() {
                    all.push(self.declare(given, None, format!("interventions[{i}]"))?);
                }
            }
            Lists::PerPrompt(lists) => {
                if lists.len() != n_prompts {
                    let found = format!("{} lists for {n_prompts} prompts", lists.len());
                    return Err(PrismError::argument(
                        "interventions",
                        found,
                        "one list for all prompts, or one per prompt",
                    ));
                }
                for (prompt, list) in lists.iter().enumerate() {
                    for (i, given) in list.iter().enumerate() {
                        all.push(self.declare(given, Some(prompt), format!("interventions[{prompt}][{i}]"))?);
                    }
                }
            }
        }
        Ok(all)
    }

    fn declare<'a>(&self, given: &'a Intervention, prompt: Option<usize>, name: String) -> Result<Declared<'a>> {
        let config = &self.transformer.config;
        let points = HookPoint::matching_written(&given.at, config)?;
        let refused = |key: &str, found: String, expected: String| {
            Err(PrismError::argument(format!("{name}.{key}"), found, expected))
        };
        for point in &points {
            point.check_can_be_set(format!("{name}.at"))?;
            let n = cells_of(config, *point, 1).cells;
            let choices = [("head", given.head, point.has_heads()), ("neuron", given.neuron, point.has_neurons())];
            for (key, index, is_there) in choices {
                match index {
                    Some(i) if !is_there => {
                        return refused(key, i.to_string(), format!("none: '{point}' has no {key}s"));
                    }
                    Some(i) if i >= n => {
                        return refused(key, i.to_string(), format!("a whole number from 0 to {}: '{point}'", n - 1));
                    }
                    _ => {}
                }
            }
        }
        let vector = match &given.set {
            Set::Scale(factor) if !(*factor as f32).is_finite() => {
                return refused("set.scale", factor.to_string(), "a finite number".into());
            }
            Set::Add(vector) => match vector.iter().position(|v| !v.is_finite()) {
                Some(i) => return refused("set.add", format!("{} at {i}", vector[i]), "finite numbers".into()),
                None => Some(Tensor::from_slice(vector, (1, vector.len()), &self.transformer.device)?),
            },
            Set::Mean(_, Axis::All) => match points.iter().find(|point| point.is_square()) {
                Some(point) => {
                    let expected = "'position': the numbers of a query belong to its position";
                    return refused("set.axis", format!("'all' at '{point}'"), expected.into());
                }
                None => None,
            },
            _ => None,
        };
        match &given.positions {
            Positions::PerPrompt(_) => {
                refused("position", "a list for every prompt".into(), "a list of interventions for every prompt".into())
            }
            Positions::Of(list) if list.is_empty() => {
                refused("position", "an empty list".into(), "at least one position".into())
            }
            _ => Ok(Declared { given, prompt, points, name, vector }),
        }
    }

    /// The means that interventions set, reference by reference.
    fn means(
        &self,
        declared: &[Declared],
        given: &Interventions,
        asked: &Asked,
        job: &Job,
    ) -> Result<BTreeMap<Reference, Means>> {
        let parallel = self.transformer.config.parallel;
        let mut needed = BTreeMap::<Reference, (BTreeSet<(HookPoint, Axis)>, String)>::new();
        for one in declared {
            if let Set::Mean(reference, axis) = &one.given.set {
                let points = one.points.iter().map(|point| (point.read_from(parallel), *axis));
                let name = || (BTreeSet::new(), format!("{}.set.mean", one.name));
                needed.entry(*reference).or_insert_with(name).0.extend(points);
            }
        }
        let mut all = BTreeMap::new();
        for (reference, (points, name)) in needed {
            let mut means = Means::default();
            match reference {
                Reference::Run(run) => means.add(run_of(given, run, &name)?, &points, &name)?,
                Reference::Prompts(list) => {
                    let prompts = given.references.get(list).filter(|list| !list.is_empty());
                    let prompts =
                        prompts.ok_or_else(|| PrismError::argument(&name, "no prompts", "at least one prompt"))?;
                    let asked = Asked { prompts: prompts.clone(), positions: Positions::All, ..asked.clone() };
                    let prompts = self.prepare(&asked, job)?;
                    let quiet = Job { cancel: job.cancel, progress: &|_, _| {} };
                    for group in prompts.chunks(GROUP) {
                        let kept = points.iter().map(|(point, _)| *point).collect();
                        let wanted = Wanted { points: kept, logits: Logits::None };
                        let run =
                            cache::run(&self.place(), group.to_vec(), wanted, asked.chunk_tokens(self.device), &quiet)?;
                        means.add(&run, &points, &name)?;
                    }
                }
            }
            all.insert(reference, means);
        }
        Ok(all)
    }

    /// What one intervention does at one point of one prompt.
    fn edit(
        &self,
        one: &Declared,
        point: HookPoint,
        i: usize,
        prompt: &Prompted,
        given: &Interventions,
        means: &BTreeMap<Reference, Means>,
    ) -> Result<Edit> {
        let (config, device) = (&self.transformer.config, &self.transformer.device);
        let source = point.read_from(config.parallel);
        let index = one.given.head.or(one.given.neuron);
        let length = prompt.ids.len();
        let positions = one.given.positions.of(i, length)?;
        // a receiver's heads read what its source has no heads for
        let replace = |taken: cache::Taken, rows: &[usize], key: &str| -> Result<Action> {
            let expected = cells_of(config, source, length);
            if taken.cells != expected {
                let shown = |cells: Cells| format!("{} × {}", cells.cells, cells.width);
                let found = format!("values of shape {} at '{source}'", shown(taken.cells));
                return Err(PrismError::argument(format!("{}.set.{key}", one.name), found, shown(expected)));
            }
            let values = taken.at(rows, if source == point { index } else { None })?;
            let heads = if source != point && index.is_none() && point.has_heads() {
                cells_of(config, point, length).cells
            } else {
                1
            };
            Ok(Action::Replace(if heads > 1 { values.repeat((1, heads))? } else { values }))
        };
        let action = match &one.given.set {
            Set::Zero => Action::Zero,
            Set::Scale(factor) => Action::Scale(*factor),
            Set::Add(_) => Action::Add(one.vector_at(cells_of(config, point, length), point, index)?),
            Set::Mean(reference, axis) => {
                let name = format!("{}.set.mean", one.name);
                let found = means.get(reference).map(|means| means.at((source, *axis), &positions, &name, device));
                let taken =
                    found.unwrap_or_else(|| Err(PrismError::argument(name, "no reference", "prompts or a run")))?;
                let rows: Vec<usize> = (0..taken.values.dim(0)?).collect();
                replace(taken, &rows, "mean")?
            }
            Set::From { run, prompt: from, .. } => {
                let run = run_of(given, *run, &one.name)?;
                let rows = one.source_rows(run, *from, point, i, length)?;
                replace(run.taken(source, *from)?, &rows, "from")?
            }
        };
        Ok(Edit { point, index, positions, action })
    }
}
