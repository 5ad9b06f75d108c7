//! The MLP: `act(x W_in + b_in) W_out + b_out`, gated: `(act(x W_gate) ⊙ x W_up) W_out`, or several of those of which a
//! router chooses: `Σ_e g_e E_e(x)`, and perhaps one that every token gets: `+ σ(x w) E(x)`.

use super::Linear;
use super::attention::Pass;
use crate::config::{ClampedSwiglu, Gating};
use crate::error::Result;
use crate::hook::BlockPoint::*;
use crate::hook::HookPoint;
use crate::ops::{self, Activation, Kernels};
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

impl Mlp {
    /// x [rows, d_model] → what the MLP computes, [rows, d_model].
    ///
    /// # Errors
    /// `INTERNAL` where shapes do not fit.
    pub fn forward(&self, x: &Tensor, pass: &Pass, tap: &mut Tap) -> Result<Tensor> {
        let at = |point| HookPoint::Block(pass.layer, point);
        let kernels = pass.kernels;
        match self {
            Mlp::Plain { input, activation, output } => {
                let pre = tap.rows(at(MlpPre), input.forward(x, kernels)?)?;
                output.forward(&tap.rows(at(MlpPost), activation.apply(kernels, &pre)?)?, kernels)
            }
            Mlp::Gated(gated) => {
                let (gate, up) = gated.gate_and_up(x, kernels)?;
                let gate = tap.rows(at(MlpPre), gate)?;
                let up = tap.rows(at(MlpPreLinear), up)?;
                gated.output.forward(&tap.rows(at(MlpPost), gated.hidden(&gate, &up, kernels)?)?, kernels)
            }
            Mlp::Experts(experts) => {
                let gates = tap.rows(at(RouterWeights), experts.gates(x, kernels)?)?;
                let mixed = experts.mixed(x, &gates, kernels)?;
                match &experts.shared {
                    Some(shared) => Ok((mixed + shared.forward(x, kernels)?)?),
                    None => Ok(mixed),
                }
            }
        }
    }
}

impl SharedExpert {
    /// `σ(x w) E(x)`
    fn forward(&self, x: &Tensor, kernels: Kernels) -> Result<Tensor> {
        let share = (self.score.forward(x, kernels)?.neg()?.exp()? + 1.0)?.recip()?;
        Ok(self.expert.forward(x, kernels)?.broadcast_mul(&share)?)
    }
}

impl Gated {
    /// All of it, out of sight: an expert has no hook points of its own.
    fn forward(&self, x: &Tensor, kernels: Kernels) -> Result<Tensor> {
        let (gate, up) = self.gate_and_up(x, kernels)?;
        self.output.forward(&self.hidden(&gate, &up, kernels)?, kernels)
    }

    /// Views of one product.
    fn gate_and_up(&self, x: &Tensor, kernels: Kernels) -> Result<(Tensor, Tensor)> {
        let both = self.gate_up.forward(x, kernels)?;
        let d_mlp = both.dim(1)? / 2;
        Ok((both.narrow(1, 0, d_mlp)?, both.narrow(1, d_mlp, d_mlp)?))
    }

    /// What multiplies W_out.
    fn hidden(&self, gate: &Tensor, up: &Tensor, kernels: Kernels) -> Result<Tensor> {
        ops::gated(kernels, self.activation, self.swiglu, gate, up)
    }
}

impl Experts {
    /// The gate of every expert, 0 where it is not chosen: [rows, n_experts].
    fn gates(&self, x: &Tensor, kernels: Kernels) -> Result<Tensor> {
        let logits: Vec<Vec<f32>> = self.router.forward(x, kernels)?.to_vec2()?;
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
    fn mixed(&self, x: &Tensor, gates: &Tensor, kernels: Kernels) -> Result<Tensor> {
        let host: Vec<Vec<f32>> = gates.to_vec2()?;
        let mut sum = x.zeros_like()?;
        for (e, expert) in self.experts.iter().enumerate() {
            let rows: Vec<u32> = (0..host.len() as u32).filter(|r| host[*r as usize][e] != 0.0).collect();
            if rows.is_empty() {
                continue;
            }
            let rows = Tensor::new(rows, x.device())?;
            let out = expert.forward(&x.index_select(&rows, 0)?, kernels)?;
            let weight = gates.narrow(D::Minus1, e, 1)?.contiguous()?.index_select(&rows, 0)?;
            sum = sum.index_add(&rows, &out.broadcast_mul(&weight)?, 0)?;
        }
        Ok(sum)
    }
}
