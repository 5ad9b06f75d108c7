//! Interventions as a call says them, and how they become edits of every prompt. Everything that can be checked without
//! running is checked before the references are run.

use super::Session;
use super::asked::Asked;
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

/// An intervention that was checked against the model.
struct Declared<'a> {
    given: &'a Intervention,
    prompt: Option<usize>,
    points: Vec<HookPoint>,
    /// What it is called in messages: `interventions[2]`.
    name: String,
    /// The vector to add, [1, numbers].
    vector: Option<Tensor>,
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
                        let run = cache::run(&self.place(), group.to_vec(), wanted, asked.chunk_tokens(), &quiet)?;
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

fn run_of<'a>(given: &'a Interventions, run: usize, name: &str) -> Result<&'a Cache> {
    let found = given.runs.get(run).map(Arc::as_ref);
    found.ok_or_else(|| PrismError::argument(name, format!("run {run}"), format!("one of {} runs", given.runs.len())))
}

impl Declared<'_> {
    fn is_of(&self, prompt: usize) -> bool {
        self.prompt.is_none_or(|only| only == prompt)
    }

    /// What can be told of every prompt before a reference is run.
    fn check_prompts(&self, session: &Session, given: &Interventions, prompts: &[Prompted]) -> Result<()> {
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
    fn vector_at(&self, cells: Cells, point: HookPoint, index: Option<usize>) -> Result<Tensor> {
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
    fn source_rows(&self, run: &Cache, from: usize, point: HookPoint, i: usize, length: usize) -> Result<Vec<usize>> {
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

    fn record(&self, means: &BTreeMap<Reference, Means>) -> Record {
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
fn in_order(positions: &Positions, prompt: usize, length: usize) -> Result<Vec<usize>> {
    let one = |position: &i64| Ok(Positions::Of(vec![*position]).of(prompt, length)?[0]);
    match positions {
        Positions::Of(list) => list.iter().map(one).collect(),
        other => other.of(prompt, length),
    }
}
