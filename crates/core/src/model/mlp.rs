//! The MLP: `act(x W_in + b_in) W_out + b_out`, gated: `(act(x W_gate) ⊙ x W_up) W_out`, or several of those of which a
//! router chooses: `Σ_e g_e E_e(x)`, and perhaps one that every token gets: `+ σ(x w) E(x)`.

use super::Linear;
use crate::config::{ClampedSwiglu, Gating};
use crate::error::Result;
use crate::hook::BlockPoint::*;
use crate::hook::HookPoint;
use crate::ops::Activation;
use crate::tap::Tap;
use candle_core::{D, Tensor};

/// The MLP of one block.
pub enum Mlp {
    /// One hidden layer.
    Plain {
        /// W_in [d_model, d_mlp], b_in
        input: Linear,
        /// Between the two.
        activation: Activation,
        /// W_out [d_mlp, d_model], b_out
        output: Linear,
    },
    /// One hidden layer, gated.
    Gated(Gated),
    /// A router and what it chooses from.
    Experts(Experts),
}

/// A gated hidden layer.
pub struct Gated {
    /// Gate and up side by side: [d_model, 2 d_mlp], biases
    pub gate_up: Linear,
    /// Of the gate.
    pub activation: Activation,
    /// In its place, the clamped form of gpt-oss.
    pub swiglu: Option<ClampedSwiglu>,
    /// W_out [d_mlp, d_model], b_out
    pub output: Linear,
}

/// Experts and their router.
pub struct Experts {
    /// [d_model, n_experts], bias
    pub router: Linear,
    /// How logits become gates.
    pub gating: Gating,
    /// How many experts a token gets.
    pub top_k: usize,
    /// All of them.
    pub experts: Vec<Gated>,
    /// One that every token gets.
    pub shared: Option<SharedExpert>,
}

/// An expert that every token gets, times the sigmoid of its score.
pub struct SharedExpert {
    /// [d_model, 1]
    pub score: Linear,
    /// The expert.
    pub expert: Gated,
}

/// A hidden layer of an MLP at some rows, as it enters the sum: `values W_out + weight · b_out`.
pub struct HiddenLayer<'a> {
    /// What multiplies W_out, an expert's gate inside; 0 at rows that the expert does not get: [rows, d_mlp]
    pub values: Tensor,
    /// W_out, b_out
    pub output: &'a Linear,
    /// An expert's gate, [rows, 1]; 1 without.
    pub weight: Option<Tensor>,
}

impl Mlp {
    /// x [rows, d_model] → what the MLP computes, [rows, d_model].
    ///
    /// # Errors
    /// `INTERNAL` where shapes do not fit.
    pub fn forward(&self, x: &Tensor, l: usize, tap: &mut Tap) -> Result<Tensor> {
        let at = |point| HookPoint::Block(l, point);
        match self {
            Mlp::Plain { input, activation, output } => {
                let pre = tap.rows(at(MlpPre), input.forward(x)?)?;
                output.forward(&tap.rows(at(MlpPost), activation.apply(&pre)?)?)
            }
            Mlp::Gated(gated) => {
                let (gate, up) = gated.gate_and_up(x)?;
                let gate = tap.rows(at(MlpPre), gate)?;
                let up = tap.rows(at(MlpPreLinear), up)?;
                gated.output.forward(&tap.rows(at(MlpPost), gated.hidden(&gate, &up)?)?)
            }
            Mlp::Experts(experts) => {
                let gates = tap.rows(at(RouterWeights), experts.gates(x)?)?;
                let mixed = experts.mixed(x, &gates)?;
                match &experts.shared {
                    Some(shared) => Ok((mixed + shared.forward(x)?)?),
                    None => Ok(mixed),
                }
            }
        }
    }
}

impl SharedExpert {
    fn hidden_layer(&self, x: &Tensor) -> Result<HiddenLayer<'_>> {
        let share = self.share(x)?;
        let values = self.expert.hidden_of(x)?.broadcast_mul(&share)?;
        Ok(HiddenLayer { values, output: &self.expert.output, weight: Some(share) })
    }

    fn share(&self, x: &Tensor) -> Result<Tensor> {
        Ok((self.score.forward(x)?.neg()?.exp()? + 1.0)?.recip()?)
    }

    /// `σ(x w) E(x)`
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(self.expert.forward(x)?.broadcast_mul(&self.share(x)?)?)
    }
}

impl Gated {
    /// All of it, out of sight: an expert has no hook points of its own.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.output.forward(&self.hidden_of(x)?)
    }

    fn hidden_of(&self, x: &Tensor) -> Result<Tensor> {
        let (gate, up) = self.gate_and_up(x)?;
        self.hidden(&gate, &up)
    }

    fn gate_and_up(&self, x: &Tensor) -> Result<(Tensor, Tensor)> {
        let both = self.gate_up.forward(x)?;
        let d_mlp = both.dim(1)? / 2;
        Ok((both.narrow(1, 0, d_mlp)?.contiguous()?, both.narrow(1, d_mlp, d_mlp)?.contiguous()?))
    }

    /// What multiplies W_out.
    fn hidden(&self, gate: &Tensor, up: &Tensor) -> Result<Tensor> {
        let Some(ClampedSwiglu { alpha, limit }) = self.swiglu else {
            return Ok((self.activation.apply(gate)? * up)?);
        };
        let gate = gate.minimum(limit)?;
        let up = up.clamp(-limit, limit)?;
        let sigmoid = ((&gate * -alpha)?.exp()? + 1.0)?.recip()?; // σ(alpha · gate)
        Ok(((up + 1.0)? * (gate * sigmoid)?)?)
    }
}

impl Experts {
    /// The gate of every expert, 0 where it is not chosen: [rows, n_experts].
    fn gates(&self, x: &Tensor) -> Result<Tensor> {
        let logits: Vec<Vec<f32>> = self.router.forward(x)?.to_vec2()?;
        let gates: Vec<f32> = logits.iter().flat_map(|row| self.gates_of(row)).collect();
        Ok(Tensor::from_vec(gates, (logits.len(), self.experts.len()), x.device())?)
    }

    /// Softmax of the logits over all experts or over the chosen, in f64; the `top_k` largest are chosen, of equals the
    /// first.
    fn gates_of(&self, logits: &[f32]) -> Vec<f32> {
        let mut order: Vec<usize> = (0..logits.len()).collect();
        order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]));
        let chosen = &order[..self.top_k];
        let max = f64::from(logits[order[0]]);
        let exp = |i: usize| (f64::from(logits[i]) - max).exp();
        let total: f64 = match self.gating {
            Gating::Softmax => (0..logits.len()).map(exp).sum(),
            Gating::SoftmaxOfChosen => chosen.iter().map(|i| exp(*i)).sum(),
        };
        (0..logits.len()).map(|i| if chosen.contains(&i) { (exp(i) / total) as f32 } else { 0.0 }).collect()
    }

    /// `Σ_e g_e E_e(x)`: every expert runs on the rows that chose it.
    fn mixed(&self, x: &Tensor, gates: &Tensor) -> Result<Tensor> {
        let chosen = Chosen::of(gates)?;
        let mut sum = x.zeros_like()?;
        for (e, expert) in self.experts.iter().enumerate() {
            if let Some((rows, weight)) = chosen.rows(e)? {
                let out = expert.forward(&x.index_select(&rows, 0)?)?;
                sum = sum.index_add(&rows, &out.broadcast_mul(&weight)?, 0)?;
            }
        }
        Ok(sum)
    }

    /// The hidden layer of every expert, the shared one last, from what the MLP reads and the gates of the run.
    ///
    /// # Errors
    /// `INTERNAL` where shapes do not fit.
    pub fn hidden_layers(&self, x: &Tensor, gates: &Tensor) -> Result<Vec<HiddenLayer<'_>>> {
        let chosen = Chosen::of(gates)?;
        let mut layers = Vec::new();
        for (e, expert) in self.experts.iter().enumerate() {
            let output = &expert.output;
            let mut values = Tensor::zeros((x.dim(0)?, output.weight.dim(0)?), x.dtype(), x.device())?;
            if let Some((rows, weight)) = chosen.rows(e)? {
                let hidden = expert.hidden_of(&x.index_select(&rows, 0)?)?.broadcast_mul(&weight)?;
                values = values.index_add(&rows, &hidden, 0)?;
            }
            layers.push(HiddenLayer { values, output, weight: Some(gates.narrow(D::Minus1, e, 1)?.contiguous()?) });
        }
        layers.extend(self.shared.as_ref().map(|shared| shared.hidden_layer(x)).transpose()?);
        Ok(layers)
    }
}

/// Which rows chose which expert.
struct Chosen<'a> {
    gates: &'a Tensor,
    host: Vec<Vec<f32>>,
}

impl<'a> Chosen<'a> {
    fn of(gates: &'a Tensor) -> Result<Self> {
        Ok(Chosen { gates, host: gates.to_vec2()? })
    }

    /// The rows of an expert and their gates [rows, 1]; `None` where no row chose it.
    fn rows(&self, e: usize) -> Result<Option<(Tensor, Tensor)>> {
        let rows: Vec<u32> = (0..self.host.len() as u32).filter(|r| self.host[*r as usize][e] != 0.0).collect();
        if rows.is_empty() {
            return Ok(None);
        }
        let rows = Tensor::new(rows, self.gates.device())?;
        let weight = self.gates.narrow(D::Minus1, e, 1)?.contiguous()?.index_select(&rows, 0)?;
        Ok(Some((rows, weight)))
    }
}
