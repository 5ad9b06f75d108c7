//! What was done to a run, as its result says it and a file keeps it.

use crate::config::ModelConfig;
use crate::error::Result;
use crate::hook::HookPoint;
use crate::rows::Positions;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// One intervention of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// The prompt that it was made in; every prompt without.
    pub prompt: Option<usize>,
    /// Where, in the order of the forward pass.
    pub points: BTreeSet<HookPoint>,
    /// One head or key/value head.
    pub head: Option<usize>,
    /// One neuron.
    pub neuron: Option<usize>,
    /// Where in the prompt: `Last`, `All` or `Of`.
    pub positions: Positions,
    /// What was set, in words.
    pub set: String,
}

/// The same as it is written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt: Option<usize>,
    at: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    head: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    neuron: Option<usize>,
    position: Place,
    set: String,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Place {
    Name(Name),
    List(Vec<i64>),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Name {
    Last,
    All,
}

impl Record {
    /// Whether it was made in a prompt.
    pub fn is_of(&self, prompt: usize) -> bool {
        self.prompt.is_none_or(|only| only == prompt)
    }

    /// Records as JSON text: `[{ prompt?, at, head?, neuron?, position, set }]`.
    pub fn to_json(records: &[Record]) -> String {
        let written: Vec<Written> = records.iter().map(Record::written).collect();
        serde_json::to_string(&written).unwrap_or_default()
    }

    /// Reads what [`Record::to_json`] wrote; `None` where it is no such text, or names a point that the model lacks.
    pub fn from_json(text: &str, config: &ModelConfig) -> Option<Vec<Record>> {
        let written: Vec<Written> = serde_json::from_str(text).ok()?;
        written.into_iter().map(|record| record.read(config).ok()).collect()
    }

    fn written(&self) -> Written {
        let position = match &self.positions {
            Positions::Last => Place::Name(Name::Last),
            Positions::Of(list) => Place::List(list.clone()),
            Positions::All | Positions::PerPrompt(_) => Place::Name(Name::All),
        };
        let Record { prompt, head, neuron, set, .. } = self.clone();
        Written { prompt, at: self.points.iter().map(HookPoint::to_string).collect(), head, neuron, position, set }
    }
}

impl Written {
    fn read(self, config: &ModelConfig) -> Result<Record> {
        let points = self.at.iter().map(|name| HookPoint::matching_written(name, config));
        let points = points.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect();
        let positions = match self.position {
            Place::Name(Name::Last) => Positions::Last,
            Place::Name(Name::All) => Positions::All,
            Place::List(list) => Positions::Of(list),
        };
        let Written { prompt, head, neuron, set, .. } = self;
        Ok(Record { prompt, points, head, neuron, positions, set })
    }
}
