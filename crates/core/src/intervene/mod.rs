//! Interventions: values that are replaced while the forward pass goes by, and everything behind them computed from the
//! new ones. An [`Edit`] is resolved: one hook point, one head or neuron or all, the positions of one prompt, and what
//! is to stand there. [`Edits`] are those of a batch; the tap applies them, before a value is kept and handed on.

mod edits;
mod record;

pub use edits::{Edits, Received};
pub(crate) use edits::{select, set_cells};
pub use record::Record;

use crate::error::{PrismError, Result};
use crate::hook::{BlockPoint::*, Dim, HookPoint};
use candle_core::Tensor;

/// One value to change in a run of one prompt.
#[derive(Debug, Clone)]
pub struct Edit {
    /// Where.
    pub point: HookPoint,
    /// One head, key/value head or neuron; the whole width without.
    pub index: Option<usize>,
    /// Positions of the prompt, rising; of scores and patterns the query's.
    pub positions: Vec<usize>,
    /// What is to stand there.
    pub action: Action,
}

/// What an edit does to the values at its positions. Tensors are [positions, width], or [1, width] for all positions
/// alike; the width of a point is all that it has at one position, row-major.
#[derive(Debug, Clone)]
pub enum Action {
    /// 0
    Zero,
    /// The value, times this.
    Scale(f64),
    /// The value, and this added.
    Add(Tensor),
    /// This.
    Replace(Tensor),
}

/// A point's numbers at one position: `cells` of `width` each, where an index chooses a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cells {
    /// Heads, key/value heads or neurons.
    pub cells: usize,
    /// Numbers of one.
    pub width: usize,
}

impl Cells {
    /// Of a value of these sizes, whose first axis, or second for scores and patterns, is the position.
    pub(crate) fn of(point: HookPoint, shape: &[usize]) -> Self {
        match *shape {
            [heads, _, keys] if point.is_square() => Cells { cells: heads, width: keys },
            [_, cells, width] => Cells { cells, width },
            [_, cells] => Cells { cells, width: 1 },
            _ => Cells { cells: 1, width: 1 },
        }
    }

    /// Numbers at one position, of one cell or of all.
    pub fn numbers(self, index: Option<usize>) -> usize {
        if index.is_some() { self.width } else { self.cells * self.width }
    }

    /// Of values [positions, cells, width] those of one cell or of all: [positions, numbers].
    ///
    /// # Errors
    /// `INTERNAL` where shapes do not fit.
    pub fn select(self, values: &Tensor, index: Option<usize>) -> Result<Tensor> {
        let values = values.reshape(((), self.cells, self.width))?;
        let chosen = index.map_or(Ok(values.clone()), |i| values.narrow(1, i, 1))?;
        Ok(chosen.contiguous()?.flatten_from(1)?)
    }
}

/// A value with the position as its first axis: scores and patterns have the head there.
pub(crate) fn positions_first(point: HookPoint, value: &Tensor) -> Result<Tensor> {
    Ok(if point.is_square() { value.transpose(0, 1)?.contiguous()? } else { value.clone() })
}

impl HookPoint {
    /// Whether its values are [head, query_pos, key_pos].
    pub fn is_square(self) -> bool {
        self.dims().contains(&Dim::QueryPos)
    }

    /// Whether it has heads, or key/value heads.
    pub fn has_heads(self) -> bool {
        self.dims().iter().any(|dim| matches!(dim, Dim::Head | Dim::KvHead))
    }

    /// Whether it has neurons.
    pub fn has_neurons(self) -> bool {
        self.dims().contains(&Dim::DMlp)
    }

    /// Why nothing can be set there; `None` where something can.
    fn fixed(self) -> Option<&'static str> {
        match self {
            HookPoint::FinalScale | HookPoint::Block(_, Ln1Scale | Ln1PostScale | Ln2Scale | Ln2PostScale) => {
                Some("a point that is read on from: nothing reads a norm's scale; set hook_normalized")
            }
            HookPoint::Block(_, HeadResult) => {
                Some("a point that is read on from: hook_result is made of hook_z; set that, or hook_attn_out")
            }
            _ => None,
        }
    }

    /// That something can be set there; `argument` is for the message.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`.
    pub fn check_can_be_set(self, argument: impl Into<String>) -> Result<()> {
        match self.fixed() {
            Some(expected) => Err(PrismError::argument(argument, format!("'{self}'"), expected)),
            None => Ok(()),
        }
    }

    /// The point that a reference run keeps of what is set here: itself, or for a receiver the stream that is read there.
    pub fn read_from(self, parallel: bool) -> HookPoint {
        match self {
            HookPoint::Block(l, QInput | KInput | VInput) => HookPoint::Block(l, ResidPre),
            HookPoint::Block(l, MlpIn) => HookPoint::Block(l, if parallel { ResidPre } else { ResidMid }),
            other => other,
        }
    }
}
