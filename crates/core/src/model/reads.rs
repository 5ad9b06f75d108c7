//! Receivers of path patching: single heads that read another stream than the one that all read. What such a head
//! computes of it is computed again, and stands in place of what it computed of the stream.

use super::attention::Pass;
use super::{Attention, NormLayer};
use crate::error::Result;
use crate::hook::BlockPoint::{KInput, QInput, VInput};
use crate::hook::HookPoint;
use crate::intervene::{Cells, Received, select, set_cells};
use crate::tap::Tap;
use candle_core::Tensor;

/// What single heads read, behind the norm before attention; nothing where no edit is made at a receiver.
pub struct Reads {
    /// For their queries.
    pub q: Vec<Received>,
    /// For their keys.
    pub k: Vec<Received>,
    /// For their values.
    pub v: Vec<Received>,
}

impl Reads {
    /// From the stream that enters the block, [rows, d_model].
    ///
    /// # Errors
    /// `INTERNAL` where shapes do not fit.
    pub fn of(
        resid_pre: &Tensor,
        ln1: &Option<NormLayer>,
        attention: &Attention,
        pass: &Pass,
        tap: &Tap,
    ) -> Result<Self> {
        let read = |point, n_heads| {
            let mut received = tap.received(HookPoint::Block(pass.layer, point), n_heads, resid_pre)?;
            if let Some(ln1) = ln1 {
                for one in &mut received {
                    one.stream = ln1.forward_unseen(&one.stream, pass.kernels)?;
                }
            }
            Result::Ok(received)
        };
        let n_kv = attention.n_key_value_heads;
        Ok(Reads { q: read(QInput, attention.n_heads)?, k: read(KInput, n_kv)?, v: read(VInput, n_kv)? })
    }
}

impl Attention {
    /// Queries, keys or values [rows, heads, e] with those of single heads from what these read. `first` is the place
    /// among all heads of the projection where the value's begin.
    ///
    /// # Errors
    /// `INTERNAL` where shapes do not fit.
    pub(super) fn read_again(
        &self,
        value: Tensor,
        first: usize,
        received: &[Received],
        pass: &Pass,
        tap: &Tap,
    ) -> Result<Tensor> {
        if received.is_empty() {
            return Ok(value);
        }
        let (n_rows, cells, width) = value.dims3()?;
        let changed = value.force_contiguous()?;
        let all = changed.reshape(((), width))?;
        for Received { head, rows, stream } in received {
            let (places, given): (Vec<usize>, Vec<usize>) =
                rows.iter().enumerate().filter_map(|(i, row)| Some((tap.place(*row, n_rows)?, i))).unzip();
            if places.is_empty() {
                continue;
            }
            let column = (first + head) * width;
            let new = self.qkv.columns(&select(stream, &given)?, column..column + width, pass.kernels)?;
            set_cells(&all, Cells { cells, width }, &places, Some(*head), &self.clipped(new)?)?;
        }
        Ok(changed)
    }
}
