//! The operations of the forward pass, one file each: formula, body, and a naive twin in its test.
//!
//! Every operation has two bodies. `plain`: a few candle operations, on any device; the naive twin, and the way on CUDA.
//! `fused`: a kernel for the CPU, compiled for several instruction sets (`cpu/`).

mod activation;
mod add;
mod attention;
mod branches;
mod cpu;
mod linear;
mod matmul;
mod norm;
mod ragged;
mod rotary;
mod turn;
mod weight;
mod wide;

pub use activation::{Activation, gated};
pub use add::add;
pub use attention::{ScoreRule, attend, mix, pattern, scores};
pub use branches::{Branches, attend_branches};
pub use cpu::Isa;
pub(crate) use cpu::parallel::awake_until;
pub(crate) use cpu::tensor::Rows;
pub use linear::{by_part, fold, linear, project};
pub use matmul::matmul;
pub use norm::{Normed, gain_and_bias, norm};
pub use ragged::{MOST_COPIED, MOST_SCORES, View, attend_all};
pub use rotary::{Angles, frequencies, rotate};
pub(crate) use turn::turn;
pub use weight::Weight;
pub use wide::project_wide;

/// Which bodies a model runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kernels {
    /// candle's operations.
    Plain,
    /// Kernels for the CPU, with these instructions.
    Fused(Isa),
}

impl Default for Kernels {
    fn default() -> Self {
        Kernels::Fused(Isa::best())
    }
}

#[cfg(test)]
impl Kernels {
    /// Every way that the test's device has.
    pub(crate) fn all() -> Vec<Kernels> {
        let fused = if testing::device().is_cpu() { Isa::available() } else { Vec::new() };
        std::iter::once(Kernels::Plain).chain(fused.into_iter().map(Kernels::Fused)).collect()
    }
}

#[cfg(test)]
pub(crate) mod testing;
