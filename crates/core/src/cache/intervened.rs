//! Which interventions leave the stream a sum of what the components wrote: an attribution is refused behind the others.

use super::Cache;
use crate::attribution::{Convention, Unit};
use crate::error::{PrismError, Result};
use crate::hook::{BlockPoint::*, HookPoint};
use crate::intervene::Record;
use crate::model::{Mlp, Transformer};

impl Cache {
    /// That at every kept position the stream is the sum of the components of this unit, and, where a convention is
    /// given, that logits are read from it through the final norm, and the convention's split stands.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` with the point and the reason.
    pub(super) fn check_is_sum(&self, model: &Transformer, unit: Unit, convention: Option<Convention>) -> Result<()> {
        for record in &self.interventions {
            let broken = record.points.iter().find_map(|point| Some((point, broken(*point, model, unit, convention)?)));
            let Some((point, (reason, only_there))) = broken else { continue };
            if only_there && !self.reads_where(record)? {
                continue;
            }
            let found = format!("a run with an intervention at '{point}': {reason}");
            let expected = "one whose interventions lie at other positions, or where the components' sum stays whole";
            return Err(PrismError::argument("run", found, expected));
        }
        Ok(())
    }

    /// Whether an intervention lies at a kept position.
    fn reads_where(&self, record: &Record) -> Result<bool> {
        for (i, prompt) in self.prompts.iter().enumerate().filter(|(i, _)| record.is_of(*i)) {
            let set = record.positions.of(i, prompt.ids.len())?;
            if prompt.positions.iter().any(|position| set.contains(position)) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Why an intervention leaves no sum of components, and whether only at its own positions.
fn broken(
    point: HookPoint,
    model: &Transformer,
    unit: Unit,
    convention: Option<Convention>,
) -> Option<(&'static str, bool)> {
    let HookPoint::Block(l, at) = point else {
        let frozen = point == HookPoint::FinalNormalized && convention.is_some();
        return frozen.then_some(("logits are no longer read from the stream through its norm", true));
    };
    let block = &model.blocks[l];
    let reason = match at {
        ResidPre | ResidMid | ResidPost => "the stream is no longer the sum of what the components wrote",
        AttnOut | Ln1PostNormalized => "what attention adds is no longer the sum of its heads",
        MlpOut | Ln2PostNormalized if unit == Unit::Neuron => "what the MLP adds is no longer the sum of its neurons",
        // the hidden layers of experts are computed again from what the MLP reads, which is kept behind a norm of its own
        MlpIn if unit == Unit::Neuron && matches!(block.mlp, Mlp::Experts(_)) && block.ln2.is_none() => {
            "what the experts read is not kept"
        }
        V if convention == Some(Convention::TransformerLens) => {
            return Some(("values no longer hold the part that this convention counts as bias", false));
        }
        Pattern | Z if convention == Some(Convention::TransformerLens) => {
            "heads no longer hold the part that this convention counts as bias"
        }
        _ => return None,
    };
    Some((reason, true))
}
