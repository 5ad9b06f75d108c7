//! From a checkpoint's tensors to a model. Every tensor is asked for with the shape that the config says; what is left
//! over at the end is refused. Linear layers come out as `[in, out]`, whatever their order and orientation on disk.

use super::attention::score_rule;
use super::{
    Attention, Block, Embed, Experts, Gated, Linear, Mlp, NormLayer, QkNorms, SharedExpert, Transformer, Unembed,
};
use crate::checkpoint::Checkpoint;
use crate::config::{
    ClampedSwiglu, Gain, Layout, MlpKind, MlpNames, ModelConfig, Norm, Orientation, Positions, QkNorm, QkSpan, Qkv,
    Stacking,
};
use crate::error::{PrismError, Result};
use crate::ops::Kernels;
use candle_core::{DType, Device, Tensor};

/// Builds the model; `progress` is called with the layers done after each one.
///
/// # Errors
/// `TENSOR_MISSING`, `TENSOR_SHAPE`, `TENSOR_DTYPE`, `TENSOR_UNEXPECTED`, `CHECKPOINT_INVALID`, `IO_ERROR`, and what
/// `progress` returns.
pub fn load(
    config: ModelConfig,
    checkpoint: &Checkpoint,
    device: &Device,
    mut progress: impl FnMut(usize) -> Result<()>,
) -> Result<Transformer> {
    let layout = &config.layout;
    let has = |prefix: &&&str| checkpoint.contains(&format!("{prefix}{}", layout.embed));
    let prefix = layout.prefixes.iter().find(has).copied().unwrap_or("");
    let loader = Loader { config: &config, checkpoint, prefix, device };

    let embed = loader.embed()?;
    let mut blocks = Vec::new();
    for l in 0..config.n_layers {
        blocks.push(loader.block(l)?);
        progress(l + 1)?;
    }
    let ln_final = loader.norm(layout.ln_final)?;
    let unembed = loader.unembed(&embed)?;
    checkpoint.finish(|name| layout.is_harmless(name, config.n_layers))?;
    Ok(Transformer { embed, blocks, ln_final, unembed, device: device.clone(), kernels: Kernels::default(), config })
}

struct Loader<'a> {
    config: &'a ModelConfig,
    checkpoint: &'a Checkpoint,
    prefix: &'a str,
    device: &'a Device,
}

impl Loader<'_> {
    fn embed(&self) -> Result<Embed> {
        let c = self.config;
        let positions = match (&c.positions, c.layout.pos_embed) {
            (Positions::Learned { offset }, Some(name)) => {
                let table = self.tensor(name, &[offset + c.n_context, c.d_model])?;
                Some(table.narrow(0, *offset, c.n_context)?.contiguous()?)
            }
            _ => None,
        };
        let norm = c.layout.embed_norm.map(|name| self.norm(name)).transpose()?;
        Ok(Embed {
            tokens: self.tensor(c.layout.embed, &[c.d_vocab, c.d_model])?,
            scale: c.embed_scale,
            norm,
            positions,
        })
    }

    fn block(&self, l: usize) -> Result<Block> {
        let c = self.config;
        let norm = |name: Option<&str>| name.map(|name| self.norm(&Layout::at(name, l))).transpose();
        Ok(Block {
            layer: l,
            parallel: c.parallel,
            ln1: norm(c.layout.ln1)?,
            attention: self.attention(l)?,
            ln1_post: norm(c.layout.ln1_post)?,
            ln2: norm(c.layout.ln2)?,
            mlp: self.mlp(l)?,
            ln2_post: norm(c.layout.ln2_post)?,
            multiplier: c.residual_multiplier,
        })
    }

    fn attention(&self, l: usize) -> Result<Attention> {
        let c = self.config;
        let sinks = c.layout.sinks.filter(|_| c.attention_sinks);
        Ok(Attention {
            qkv: self.qkv(l)?,
            clip: c.clip_qkv,
            qk_norm: c.qk_norm.map(|norm| self.qk_norms(norm, l)).transpose()?,
            rotary: c.rotary(l).cloned(),
            has_turned: c.turns_queries_and_keys(),
            rule: score_rule(c, l),
            sinks: sinks.map(|name| self.tensor(&Layout::at(name, l), &[c.n_heads])).transpose()?,
            output: self.linear(
                &Layout::at(c.layout.attn_out, l),
                c.n_heads * c.d_head,
                c.d_model,
                c.biases.attn_out,
            )?,
            n_heads: c.n_heads,
            n_key_value_heads: c.n_key_value_heads,
            d_head: c.d_head,
        })
    }

    /// Queries, keys and values side by side, in this order.
    fn qkv(&self, l: usize) -> Result<Linear> {
        let c = self.config;
        let (q, kv, bias) = (c.n_heads * c.d_head, c.n_key_value_heads * c.d_head, c.biases.qkv);
        let fused = |name: &str| self.linear(&Layout::at(name, l), c.d_model, q + 2 * kv, bias);
        match c.layout.qkv {
            Qkv::Split(names) => {
                let part = |(name, width): (&&str, usize)| self.linear(&Layout::at(name, l), c.d_model, width, bias);
                side_by_side(&names.iter().zip([q, kv, kv]).map(part).collect::<Result<Vec<_>>>()?)
            }
            Qkv::Fused(name) => fused(name),
            Qkv::ByGroup(name) => {
                let group = c.n_heads / c.n_key_value_heads + 2; // its queries, its key, its value
                let kind = |head: usize| (head % group + 3).saturating_sub(group);
                self.permuted(fused(name)?, &in_order(c.n_heads + 2 * c.n_key_value_heads, c.d_head, kind))
            }
            Qkv::InFourBlocks(name) => {
                let heads = c.n_heads / 4; // of a block: its queries, values, keys
                let order = in_order(3 * c.n_heads, c.d_head, |head| [0, 2, 1][head % (3 * heads) / heads]);
                self.permuted(fused(name)?, &order)
            }
        }
    }

    fn qk_norms(&self, norm: QkNorm, l: usize) -> Result<QkNorms> {
        let c = self.config;
        let load = |name: &str, heads: usize| {
            let name = Layout::at(name, l);
            let shape = match norm.span {
                QkSpan::Head => vec![c.d_head],
                QkSpan::HeadOwnGain => vec![heads, c.d_head],
                QkSpan::AllHeads => vec![heads * c.d_head],
                QkSpan::HeadSplitGain => {
                    let one = |h| self.tensor(&format!("{name}.{h}.weight"), &[c.d_head]);
                    let gamma = Tensor::stack(&(0..heads).map(one).collect::<Result<Vec<_>>>()?, 0)?;
                    return Ok(NormLayer { norm: norm.norm, gamma: Some(gamma), beta: None });
                }
            };
            self.norm_of(&name, norm.norm, &shape)
        };
        let [q, k] = c.layout.qk_norm;
        Ok(QkNorms {
            q: load(q, c.n_heads)?,
            k: load(k, c.n_key_value_heads)?,
            span: norm.span,
            after_rotary: norm.after_rotary,
        })
    }

    fn mlp(&self, l: usize) -> Result<Mlp> {
        let c = self.config;
        let (kind, width) = c.mlp_of(l);
        let bias = c.biases.mlp;
        let at = |name: &str| Layout::at(name, l);
        let gated = |names: [&str; 3], e: usize| {
            self.gated_from(names.map(|name| at(name).replace("{e}", &e.to_string())), width)
        };
        match (kind, c.layout.mlp) {
            (MlpKind::Plain, MlpNames::Plain([input, output])) => Ok(Mlp::Plain {
                input: self.linear(&at(input), c.d_model, width, bias)?,
                activation: c.activation,
                output: self.linear(&at(output), width, c.d_model, bias)?,
            }),
            (MlpKind::Gated, MlpNames::Gated(names) | MlpNames::Experts { dense: names, .. }) => {
                Ok(Mlp::Gated(gated(names, 0)?))
            }
            (MlpKind::Gated, MlpNames::GateUp([gate_up, output])) => {
                let gate_up = self.linear(&at(gate_up), c.d_model, 2 * width, bias)?;
                let output = self.linear(&at(output), width, c.d_model, bias)?;
                Ok(Mlp::Gated(self.gated(gate_up, output, None)))
            }
            (MlpKind::Experts { n_experts, .. }, MlpNames::Experts { router, experts, .. }) => {
                let all = (0..n_experts).map(|e| gated(experts, e)).collect::<Result<_>>()?;
                self.experts(&at(router), kind, all, l)
            }
            (MlpKind::Experts { .. }, MlpNames::StackedExperts { stacking, router, gate_up, output }) => {
                let all = self.stacked(&at(gate_up), &at(output), kind, stacking)?;
                self.experts(&at(router), kind, all, l)
            }
            (kind, names) => {
                let problem = format!("{kind:?} cannot be read from {names:?}");
                Err(PrismError::Internal { place: format!("family {}", c.family), problem })
            }
        }
    }

    /// A gated MLP from the names of its gate, up and out.
    fn gated_from(&self, [gate, up, output]: [String; 3], width: usize) -> Result<Gated> {
        let (d_model, bias) = (self.config.d_model, self.config.biases.mlp);
        let part = |name: &str| self.linear(name, d_model, width, bias);
        let gate_up = side_by_side(&[part(&gate)?, part(&up)?])?;
        Ok(self.gated(gate_up, self.linear(&output, width, d_model, bias)?, None))
    }

    fn gated(&self, gate_up: Linear, output: Linear, swiglu: Option<ClampedSwiglu>) -> Gated {
        Gated { gate_up, activation: self.config.activation, swiglu, output }
    }

    fn experts(&self, router: &str, kind: MlpKind, experts: Vec<Gated>, l: usize) -> Result<Mlp> {
        let MlpKind::Experts { top_k, gating, n_experts, shared, .. } = kind else {
            return Err(PrismError::Internal { place: "experts".into(), problem: "no experts".into() });
        };
        let router = self.linear(router, self.config.d_model, n_experts, self.config.biases.router)?;
        let shared = match (shared, self.config.layout.shared_expert) {
            (Some(width), Some(names)) => Some(SharedExpert {
                score: self.linear(&Layout::at(names.score, l), self.config.d_model, 1, false)?,
                expert: self.gated_from(names.mlp.map(|name| Layout::at(name, l)), width)?,
            }),
            _ => None,
        };
        Ok(Mlp::Experts(Experts { router, gating, top_k, experts, shared }))
    }

    /// Experts from two tensors for all of them.
    fn stacked(&self, gate_up: &str, output: &str, kind: MlpKind, stacking: Stacking) -> Result<Vec<Gated>> {
        let MlpKind::Experts { n_experts: n, swiglu, .. } = kind else { return Ok(Vec::new()) };
        let (d, m) = (self.config.d_model, self.config.d_mlp);
        if stacking == Stacking::RowsInBlocks {
            let gate_ups = self.tensor(&format!("{gate_up}.weight"), &[n, 2 * m, d])?;
            let outputs = self.tensor(&format!("{output}.weight"), &[n, d, m])?;
            let linear = |weights: &Tensor, e: usize| -> Result<Linear> {
                Ok(Linear { weight: weights.get(e)?.t()?.contiguous()?, bias: None })
            };
            let expert = |e| Ok(self.gated(linear(&gate_ups, e)?, linear(&outputs, e)?, swiglu));
            return (0..n).map(expert).collect();
        }
        let name = |name: &str| format!("{name}_bias");
        let in_turn: Vec<u32> = (0..2).flat_map(|first| (0..m as u32).map(move |i| 2 * i + first)).collect();
        let in_turn = Tensor::new(in_turn, self.device)?;
        let gate_ups = self.tensor(gate_up, &[n, d, 2 * m])?.index_select(&in_turn, 2)?;
        let gate_up_biases = self.tensor(&name(gate_up), &[n, 2 * m])?.index_select(&in_turn, 1)?;
        let outputs = self.tensor(output, &[n, m, d])?;
        let output_biases = self.tensor(&name(output), &[n, d])?;
        let expert = |e| {
            let linear = |weight: &Tensor, bias: &Tensor| -> Result<Linear> {
                Ok(Linear { weight: weight.get(e)?.contiguous()?, bias: Some(bias.get(e)?.contiguous()?) })
            };
            Ok(self.gated(linear(&gate_ups, &gate_up_biases)?, linear(&outputs, &output_biases)?, swiglu))
        };
        (0..n).map(expert).collect()
    }

    fn norm(&self, name: &str) -> Result<NormLayer> {
        self.norm_of(name, self.config.norm, &[self.config.d_model])
    }

    fn norm_of(&self, name: &str, norm: Norm, shape: &[usize]) -> Result<NormLayer> {
        let vector = |end: &str| self.tensor(&format!("{name}.{end}"), shape);
        let gamma = match norm.gain {
            Gain::Weight => Some(vector("weight")?),
            Gain::OnePlusWeight => Some((vector("weight")? + 1.0)?),
            Gain::None => None,
        };
        Ok(NormLayer { norm, gamma, beta: if norm.bias { Some(vector("bias")?) } else { None } })
    }

    fn linear(&self, name: &str, n_in: usize, n_out: usize, bias: bool) -> Result<Linear> {
        let weight = format!("{name}.weight");
        let weight = match self.config.layout.orientation {
            Orientation::InOut => self.tensor(&weight, &[n_in, n_out])?,
            Orientation::OutIn => self.tensor(&weight, &[n_out, n_in])?.t()?.contiguous()?,
        };
        let bias = if bias { Some(self.tensor(&format!("{name}.bias"), &[n_out])?) } else { None };
        Ok(Linear { weight, bias })
    }

    /// A linear layer with its outputs in another order.
    fn permuted(&self, linear: Linear, order: &[u32]) -> Result<Linear> {
        let order = Tensor::new(order, self.device)?;
        let bias = linear.bias.map(|b| b.index_select(&order, 0)).transpose()?;
        Ok(Linear { weight: linear.weight.index_select(&order, 1)?, bias })
    }

    /// Tied to the token embedding, or a matrix of its own. A file may hold a tied matrix once more; then it must be
    /// the same, for a different one would say that the config is wrong.
    fn unembed(&self, embed: &Embed) -> Result<Unembed> {
        let c = self.config;
        let (name, shape) = (format!("{}.weight", c.layout.unembed), [c.d_vocab, c.d_model]);
        let read = |name: &str, shape: &[usize]| self.read(name, shape);
        let bias =
            if c.biases.unembed { Some(read(&format!("{}.bias", c.layout.unembed), &[c.d_vocab])?) } else { None };
        if !c.tied_embeddings {
            return Ok(Unembed::new(read(&name, &shape)?, bias, c.logit_scale, c.logit_cap));
        }
        if self.checkpoint.contains(&name) {
            let stored = read(&name, &shape)?;
            if stored.ne(&embed.tokens)?.to_dtype(DType::F32)?.sum_all()?.to_scalar::<f32>()? != 0.0 {
                return Err(PrismError::CheckpointInvalid {
                    file: name,
                    found: "differs from the token embedding, though the config ties them".into(),
                    expected: "the same matrix, or tie_word_embeddings: false".into(),
                });
            }
        }
        Ok(Unembed::new(embed.tokens.clone(), bias, c.logit_scale, c.logit_cap))
    }

    /// A tensor behind the checkpoint's prefix.
    fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        self.read(&format!("{}{name}", self.prefix), shape)
    }

    fn read(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        Ok(Tensor::from_vec(self.checkpoint.read(name, shape)?, shape, self.device)?)
    }
}

/// Linear layers of one input as one.
fn side_by_side(parts: &[Linear]) -> Result<Linear> {
    let weight = Tensor::cat(&parts.iter().map(|p| &p.weight).collect::<Vec<_>>(), 1)?.contiguous()?;
    let biases: Vec<&Tensor> = parts.iter().filter_map(|p| p.bias.as_ref()).collect();
    Ok(Linear { weight, bias: if biases.is_empty() { None } else { Some(Tensor::cat(&biases, 0)?) } })
}

/// Where on disk each output lies that is to be a query, then a key, then a value: `kind` says 0, 1 or 2 for each of
/// the heads as they stand there.
fn in_order(n_heads: usize, d_head: usize, kind: impl Fn(usize) -> usize) -> Vec<u32> {
    let mut heads: Vec<usize> = (0..n_heads).collect();
    heads.sort_by_key(|head| kind(*head)); // stable: heads of a kind keep their order
    heads.into_iter().flat_map(|head| (head * d_head..(head + 1) * d_head).map(|i| i as u32)).collect()
}
