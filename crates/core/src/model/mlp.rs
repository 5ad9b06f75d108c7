//! The MLP: `act(x W_in + b_in) W_out + b_out`, gated: `(act(x W_gate) ⊙ x W_up) W_out`, or several of those of which a
//! router chooses: `Σ_e g_e E_e(x)`, and perhaps one that every token gets: `+ E(x)` or `+ σ(x w) E(x)`.

use super::Linear;
use super::attention::Pass;
use crate::config::{ClampedSwiglu, Gating, Routing};
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
    Experts(Box<Experts>),
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
    /// What else changes choice and gates.
    pub routing: Routing,
    /// A number per expert, added to its score for the choice.
    pub correction: Option<Vec<f64>>,
    /// How many experts a token gets.
    pub top_k: usize,
    /// All of them.
    pub experts: Vec<Gated>,
    /// One that every token gets.
    pub shared: Option<SharedExpert>,
}

/// An expert that every token gets, times the sigmoid of its score where it has one.
pub struct SharedExpert {
    /// [d_model, 1]
    pub score: Option<Linear>,
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
    fn hidden_layer(&self, x: &Tensor, kernels: Kernels) -> Result<HiddenLayer<'_>> {
        let (values, share) = (self.expert.hidden_of(x, kernels)?, self.share(x, kernels)?);
        let values = share.as_ref().map_or(Ok(values.clone()), |share| values.broadcast_mul(share))?;
        Ok(HiddenLayer { values, output: &self.expert.output, weight: share })
    }

    /// `σ(x w)`, where the expert has a score.
    fn share(&self, x: &Tensor, kernels: Kernels) -> Result<Option<Tensor>> {
        let share = |score: &Linear| Ok((score.forward(x, kernels)?.neg()?.exp()? + 1.0)?.recip()?);
        self.score.as_ref().map(share).transpose()
    }

    /// `E(x)`, or `σ(x w) E(x)`
    fn forward(&self, x: &Tensor, kernels: Kernels) -> Result<Tensor> {
        let out = self.expert.forward(x, kernels)?;
        Ok(match self.share(x, kernels)? {
            Some(share) => out.broadcast_mul(&share)?,
            None => out,
        })
    }
}

impl Gated {
    /// All of it, out of sight: an expert has no hook points of its own.
    fn forward(&self, x: &Tensor, kernels: Kernels) -> Result<Tensor> {
        self.output.forward(&self.hidden_of(x, kernels)?, kernels)
    }

    fn hidden_of(&self, x: &Tensor, kernels: Kernels) -> Result<Tensor> {
        let (gate, up) = self.gate_and_up(x, kernels)?;
        self.hidden(&gate, &up, kernels)
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

    /// The scores of the chosen experts, over their sum where the gating says so, times the routing's scale; in f64.
    fn gates_of(&self, logits: &[f32]) -> Vec<f32> {
        let scores = self.scores(logits);
        let chosen = self.chosen(logits, &scores);
        let total: f64 = match self.gating {
            Gating::Softmax | Gating::Sigmoid => 1.0,
            Gating::SoftmaxOfChosen | Gating::SigmoidOfChosen => chosen.iter().map(|i| scores[*i]).sum(),
        };
        let gate = |i: usize| (self.routing.scale * scores[i] / total) as f32;
        (0..logits.len()).map(|i| if chosen.contains(&i) { gate(i) } else { 0.0 }).collect()
    }

    /// Softmax of the logits over all experts, or the sigmoid of each.
    fn scores(&self, logits: &[f32]) -> Vec<f64> {
        let wide = logits.iter().map(|x| f64::from(*x));
        match self.gating {
            Gating::Sigmoid | Gating::SigmoidOfChosen => wide.map(|x| 1.0 / (1.0 + (-x).exp())).collect(),
            Gating::Softmax | Gating::SoftmaxOfChosen => {
                let max = wide.clone().fold(f64::NEG_INFINITY, f64::max);
                let exp: Vec<f64> = wide.map(|x| (x - max).exp()).collect();
                let total: f64 = exp.iter().sum();
                exp.iter().map(|e| e / total).collect()
            }
        }
    }

    /// The `top_k` experts with the largest scores, corrected where the model has a correction; of equals the one with
    /// the larger logit, then the first.
    fn chosen(&self, logits: &[f32], scores: &[f64]) -> Vec<usize> {
        let mut by: Vec<f64> = scores.to_vec();
        if let Some(correction) = &self.correction {
            by.iter_mut().zip(correction).for_each(|(score, c)| *score += c);
        }
        if let Some([n, kept]) = self.routing.groups {
            keep_groups(&mut by, n, kept);
        }
        let mut order: Vec<usize> = (0..by.len()).collect();
        order.sort_by(|a, b| by[*b].total_cmp(&by[*a]).then(logits[*b].total_cmp(&logits[*a])));
        order.truncate(self.top_k);
        order
    }

    /// `Σ_e g_e E_e(x)`: every expert runs on the rows that chose it.
    fn mixed(&self, x: &Tensor, gates: &Tensor, kernels: Kernels) -> Result<Tensor> {
        let chosen = Chosen::of(gates)?;
        let mut sum = x.zeros_like()?;
        for (e, expert) in self.experts.iter().enumerate() {
            if let Some((rows, weight)) = chosen.rows(e)? {
                let out = expert.forward(&x.index_select(&rows, 0)?, kernels)?;
                sum = sum.index_add(&rows, &out.broadcast_mul(&weight)?, 0)?;
            }
        }
        Ok(sum)
    }

    /// The hidden layer of every expert, the shared one last, from what the MLP reads and the gates of the run.
    ///
    /// # Errors
    /// `INTERNAL` where shapes do not fit.
    pub fn hidden_layers(&self, x: &Tensor, gates: &Tensor, kernels: Kernels) -> Result<Vec<HiddenLayer<'_>>> {
        let chosen = Chosen::of(gates)?;
        let mut layers = Vec::new();
        for (e, expert) in self.experts.iter().enumerate() {
            let output = &expert.output;
            let mut values = Tensor::zeros((x.dim(0)?, output.weight.n_in()), x.dtype(), x.device())?;
            if let Some((rows, weight)) = chosen.rows(e)? {
                let hidden = expert.hidden_of(&x.index_select(&rows, 0)?, kernels)?.broadcast_mul(&weight)?;
                values = values.index_add(&rows, &hidden, 0)?;
            }
            layers.push(HiddenLayer { values, output, weight: Some(gates.narrow(D::Minus1, e, 1)?.contiguous()?) });
        }
        layers.extend(self.shared.as_ref().map(|shared| shared.hidden_layer(x, kernels)).transpose()?);
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

/// Of `n` groups of scores, only the `kept` ones whose two largest scores have the largest sum stay.
fn keep_groups(scores: &mut [f64], n: usize, kept: usize) {
    let size = scores.len() / n;
    let strength = |group: &[f64]| {
        let mut sorted = group.to_vec();
        sorted.sort_by(|a, b| b.total_cmp(a));
        sorted.iter().take(2).sum::<f64>()
    };
    let strengths: Vec<f64> = scores.chunks(size).map(strength).collect();
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|a, b| strengths[*b].total_cmp(&strengths[*a]));
    for group in &order[kept..] {
        scores[group * size..(group + 1) * size].fill(f64::NEG_INFINITY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    /// A router of four experts that runs none of them.
    fn router(gating: Gating, routing: Routing, correction: Option<Vec<f64>>) -> Experts {
        let weight = Tensor::zeros((1, 4), candle_core::DType::F32, &Device::Cpu).unwrap();
        let router = Linear { weight: ops::Weight::of_rows(weight).unwrap(), bias: None };
        Experts { router, gating, routing, correction, top_k: 2, experts: Vec::new(), shared: None }
    }

    /// By hand: logits 0, ln 3, −ln 3, 0 have the sigmoids 1/2, 3/4, 1/4, 1/2 and the softmax 3, 9, 1, 3 of 16.
    #[test]
    fn choice_and_gates() {
        let ln3 = 3f32.ln();
        let gates = |routing, correction, gating| router(gating, routing, correction).gates_of(&[0.0, ln3, -ln3, 0.0]);
        let close = |found: Vec<f32>, expected: [f32; 4]| {
            assert!(found.iter().zip(expected).all(|(f, e)| (f - e).abs() < 1e-6), "{found:?}, expected {expected:?}");
        };
        let plain = Routing::default();
        // of equals the first: experts 1 and 0
        close(gates(plain, None, Gating::Softmax), [3.0 / 16.0, 9.0 / 16.0, 0.0, 0.0]);
        close(gates(plain, None, Gating::SoftmaxOfChosen), [0.25, 0.75, 0.0, 0.0]);
        close(gates(plain, None, Gating::Sigmoid), [0.5, 0.75, 0.0, 0.0]);
        close(gates(plain, None, Gating::SigmoidOfChosen), [0.4, 0.6, 0.0, 0.0]);
        // corrected by 0.6, expert 2 has the largest score, and its own gate
        let corrected = Routing { corrected: true, groups: None, scale: 2.0 };
        let correction = Some(vec![0.0, 0.0, 0.6, 0.0]);
        close(gates(corrected, correction.clone(), Gating::SigmoidOfChosen), [0.0, 1.5, 0.5, 0.0]);
        // of the groups 0, 1 (0.5 + 0.75) and 2, 3 (0.85 + 0.5) the second stays
        let grouped = Routing { groups: Some([2, 1]), ..corrected };
        close(gates(grouped, correction, Gating::SigmoidOfChosen), [0.0, 0.0, 2.0 / 3.0, 4.0 / 3.0]);
    }
}
