//! Patching: which part of what differs between two runs makes their difference in a target F.
//!
//! ```text
//! activation patching    F′ = F(base run, with the source run's value of one place)              sweep.rs
//! path patching          F′ = F(base run, receivers reading x + Σ_senders (c_source − c_base))   paths.rs
//! normalised             (F′ − F_corrupt) / (F_clean − F_corrupt)      0: corrupted, 1: clean
//! ```
//!
//! Denoising puts values of the clean run into the corrupted one, noising the other way round. Nothing is computed twice: a
//! run after a patch enters the model behind the patched place and borrows the base run's keys and values of the positions
//! before; many such runs go through the model together (branch.rs).

mod branch;
mod paths;
mod receiver;
mod runs;
mod sweep;

pub use paths::{Paths, paths};
pub use receiver::Receiver;
pub use sweep::{Patching, Place, sweep};

use crate::attribution::Resolved;
use crate::attribution::Target;
use crate::chunk::Prompted;

/// The prompts of a call: what is patched, what the patches are taken from, and where.
pub struct Pairs {
    /// The runs that are patched; of each are kept its row and what lies between the first patch and that.
    pub base: Vec<Prompted>,
    /// The runs that values are taken from.
    pub source: Vec<Prompted>,
    /// Where, pair by pair.
    pub spots: Vec<Spots>,
    /// What is read, pair by pair.
    pub targets: Vec<Target>,
    /// Whether the base runs are the clean ones: targets are resolved in those.
    pub base_is_clean: bool,
}

/// Positions of one pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spots {
    /// Where the target is read in the base run.
    pub row: usize,
    /// The same in the source run.
    pub source_row: usize,
    /// What is patched, and from where: positions of the base run, rising, and of the source run.
    pub positions: Vec<(usize, usize)>,
}

impl Spots {
    /// Those that reach the row: what lies behind it does not change it.
    fn reaching(&self) -> &[(usize, usize)] {
        &self.positions[..self.positions.partition_point(|(base, _)| *base <= self.row)]
    }

    /// What is kept of the base run.
    pub fn of_base(&self) -> Vec<usize> {
        let first = self.reaching().first().map_or(self.row, |(base, _)| *base);
        (first..=self.row).collect()
    }

    /// What is kept of the source run, rising.
    pub fn of_source(&self) -> Vec<usize> {
        let mut all: Vec<usize> = self.reaching().iter().map(|(_, source)| *source).chain([self.source_row]).collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}

/// What patches did.
#[derive(Debug, Default)]
pub struct Patched {
    /// The target of every pair, resolved in its clean run.
    pub targets: Vec<Resolved>,
    /// F of the clean run, by pair.
    pub clean: Vec<f64>,
    /// F of the corrupted run, by pair.
    pub corrupt: Vec<f64>,
    /// F′ of every patch, pair after pair.
    pub values: Vec<f64>,
}

impl Patched {
    /// Puts another part behind this one.
    pub fn append(&mut self, mut other: Patched) {
        self.targets.append(&mut other.targets);
        self.clean.append(&mut other.clean);
        self.corrupt.append(&mut other.corrupt);
        self.values.append(&mut other.values);
    }
}
