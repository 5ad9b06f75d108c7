//! From a checkpoint's tensors to a model. Every tensor is asked for with the shape that the config says; what is left
//! over at the end is refused. Linear layers come out as `[in, out]`, whatever their order and orientation on disk.

use super::attention::score_rule;
use super::embed::sinusoidal;
use super::{
    Attention, Block, Embed, Experts, Gated, Linear, Mlp, NormLayer, QkNorms, SharedExpert, Transformer, Unembed,
};
use crate::checkpoint::{Axis, Checkpoint, Matrix};
use crate::config::{
    ClampedSwiglu, Gain, Layout, MlpKind, MlpNames, ModelConfig, Norm, Orientation, Positions, QkNorm, QkSpan, Qkv,
    SharedExpertNames, SharedMlpNames, Stacking,
};
use crate::device::WeightDtype;
use crate::error::{PrismError, Result};
use crate::memory;
use crate::ops::{Kernels, Weight};
use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Bytes of the model's weights as they will be held, once it is known that the checkpoint holds them all, in the right shapes and
/// types, and nothing else. Reads nothing but what [`Checkpoint::open`] has read.
///
/// # Errors
/// `TENSOR_MISSING`, `TENSOR_SHAPE`, `TENSOR_DTYPE`, `TENSOR_UNEXPECTED`.
pub fn plan(config: &ModelConfig, checkpoint: &Checkpoint, dtype: WeightDtype) -> Result<Planned> {
    let planned = Counts::default();
    let loader = Loader { planned: Some(&planned), ..Loader::new(config, checkpoint, &Device::Cpu, dtype) };
    loader.embed()?;
    (0..config.n_layers).try_for_each(|l| loader.block(l).map(drop))?;
    loader.norm(config.layout.ln_final)?;
    loader.unembed()?;
    loader.unembed_bias()?;
    checkpoint.check_all_used(|name| config.layout.is_harmless(name, config.n_layers))?;
    let Counts { numbers, bytes, largest } = planned;
    Ok(Planned { numbers: numbers.into_inner(), bytes: bytes.into_inner(), largest: largest.into_inner() })
}

/// What loading will take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Planned {
    /// Numbers of all weights.
    pub numbers: u64,
    /// Bytes of all weights.
    pub bytes: u64,
    /// Bytes of the largest one in f32.
    pub largest: u64,
}

impl Planned {
    /// Bytes that loading takes on the host beside weights that lie there, on `threads` threads. Weights of a GPU pass
    /// through it, one on each thread, in f32 and in their own type.
    pub fn transient_bytes(self, device: &Device, threads: usize) -> u64 {
        let passing = if device.is_cpu() { 0 } else { 2 * self.largest * threads as u64 };
        Matrix::scratch_bytes(threads) + passing
    }
}

/// [`Planned`], while it is counted.
#[derive(Default)]
struct Counts {
    numbers: AtomicU64,
    bytes: AtomicU64,
    largest: AtomicU64,
}

impl Counts {
    /// A tensor of so many weights, which is held as so many numbers.
    fn add(&self, weights: usize, held: usize, dtype: DType) {
        self.numbers.fetch_add(weights as u64, Ordering::Relaxed);
        self.bytes.fetch_add((dtype.size_in_bytes() * held) as u64, Ordering::Relaxed);
        self.largest.fetch_max(4 * held as u64, Ordering::Relaxed);
    }
}

/// Builds the model, a layer on each thread of the pool it runs in; `progress` is called with the layers done after
/// each one, never twice at once.
///
/// # Errors
/// Those of [`plan`] but `TENSOR_UNEXPECTED`, `CHECKPOINT_INVALID`, `IO_ERROR`, and what `progress` returns.
pub fn load(
    config: ModelConfig,
    checkpoint: &Checkpoint,
    device: &Device,
    dtype: WeightDtype,
    progress: impl Fn(usize) -> Result<()> + Sync,
) -> Result<Transformer> {
    let loader = Loader::new(&config, checkpoint, device, dtype);
    let embed = loader.embed()?;
    let done = Mutex::new(0);
    let block = |l| {
        let block = loader.block(l)?;
        let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
        *done += 1;
        progress(*done)?;
        Ok(block)
    };
    let blocks = (0..config.n_layers).into_par_iter().map(block).collect::<Result<_>>()?;
    let ln_final = loader.norm(config.layout.ln_final)?;
    let unembed = loader.unembed()?.unwrap_or_else(|| embed.tokens.clone());
    let unembed = Unembed::new(unembed, loader.unembed_bias()?, config.logit_scale, config.logit_cap);
    checkpoint.check_unchanged()?;
    let fused = device.is_cpu() && dtype == WeightDtype::F32;
    let kernels = if fused { Kernels::default() } else { Kernels::Plain };
    let mut model = Transformer { embed, blocks, ln_final, unembed, device: device.clone(), kernels, config };
    model.run_on(kernels);
    Ok(model)
}

struct Loader<'a> {
    config: &'a ModelConfig,
    checkpoint: &'a Checkpoint,
    prefix: &'a str,
    device: &'a Device,
    /// While this is there, tensors are asked for and counted here, and none is read.
    planned: Option<&'a Counts>,
    /// Of the matrices that the stream is multiplied with; all else is f32.
    dtype: DType,
    /// Whether kernels for the CPU read them.
    in_panels: bool,
}

/// A stored matrix and which columns of a whole its outputs become.
struct Stored<'a> {
    matrix: Matrix<'a>,
    orientation: Orientation,
    to: Axis,
}

/// A stored matrix and where its elements go in a tensor.
struct Part<'a> {
    matrix: Matrix<'a>,
    rows: Axis,
    columns: Axis,
}

/// Some outputs of a linear layer: the name of their tensors, their number, and which columns of the whole they become.
struct Outputs {
    name: String,
    n: usize,
    to: Axis,
}

/// One after the other, from `start` on.
fn from(start: usize) -> Axis {
    every(start, 1)
}

fn every(start: usize, step: usize) -> Axis {
    Axis::Even { start, step }
}

impl<'a> Loader<'a> {
    fn new(config: &'a ModelConfig, checkpoint: &'a Checkpoint, device: &'a Device, dtype: WeightDtype) -> Self {
        let layout = &config.layout;
        let has = |prefix: &&&str| checkpoint.contains(&format!("{prefix}{}", layout.embed));
        let prefix = layout.prefixes.iter().find(has).copied().unwrap_or("");
        let in_panels = device.is_cpu() && dtype == WeightDtype::F32;
        Loader { config, checkpoint, prefix, device, planned: None, dtype: dtype.of_tensors(), in_panels }
    }

    fn embed(&self) -> Result<Embed> {
        let c = self.config;
        let positions = match (&c.positions, c.layout.pos_embed) {
            (Positions::Learned { offset }, Some(name)) => {
                let end = offset + c.n_context;
                let table = self.matrix(name, &[end, c.d_model])?.rows(*offset..end);
                Some(self.made(&[c.n_context, c.d_model], DType::F32, |buffer| table.copy(buffer))?)
            }
            (Positions::Sinusoidal { offset, zero }, _) => {
                Some(sinusoidal(c.n_context, *offset, *zero, c.d_model, self.device)?)
            }
            _ => None,
        };
        let norm = c.layout.embed_norm.map(|name| self.norm(name)).transpose()?;
        let shape = [c.d_vocab, c.d_model];
        let tokens = self.matrix(c.layout.embed, &shape)?;
        Ok(Embed {
            tokens: self.made(&shape, self.dtype, |buffer| tokens.copy(buffer))?,
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
        let (q, kv) = (c.n_heads * c.d_head, c.n_key_value_heads * c.d_head);
        let fused = |name: &str, to: Axis| vec![Outputs { name: Layout::at(name, l), n: q + 2 * kv, to }];
        let outputs = match c.layout.qkv {
            Qkv::Split([q_name, k_name, v_name]) => {
                side_by_side([(q_name, q), (k_name, kv), (v_name, kv)].map(|(name, n)| (Layout::at(name, l), n)))
            }
            Qkv::Fused(name) => fused(name, from(0)),
            Qkv::ByGroup(name) => {
                let group = c.n_heads / c.n_key_value_heads + 2; // its queries, its key, its value
                let kind = |head: usize| (head % group + 3).saturating_sub(group);
                fused(name, in_order(c.n_heads + 2 * c.n_key_value_heads, c.d_head, kind))
            }
            Qkv::InFourBlocks(name) => {
                let heads = c.n_heads / 4; // of a block: its queries, values, keys
                fused(name, in_order(3 * c.n_heads, c.d_head, |head| [0, 2, 1][head % (3 * heads) / heads]))
            }
        };
        self.joined(&outputs, c.d_model, c.biases.qkv)
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
                    let one = |h| {
                        let matrix = self.matrix(&format!("{name}.{h}.weight"), &[c.d_head])?;
                        Ok(Part { matrix, rows: from(h * c.d_head), columns: from(0) })
                    };
                    let parts = (0..heads).map(one).collect::<Result<Vec<_>>>()?;
                    let gamma = self.filled(&[heads, c.d_head], &parts)?;
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
        match (kind, self.mlp_names(l)) {
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

    /// The family's names, or those of stacked experts where the checkpoint has them.
    fn mlp_names(&self, l: usize) -> MlpNames {
        let layout = &self.config.layout;
        let is_there = |name: &str| self.checkpoint.contains(&format!("{}{}", self.prefix, Layout::at(name, l)));
        match layout.stacked {
            Some([router, gate_up, output]) if is_there(gate_up) => {
                MlpNames::StackedExperts { stacking: Stacking::RowsInBlocks, router, gate_up, output }
            }
            _ => layout.mlp,
        }
    }

    /// A gated MLP from the names of its gate, up and out.
    fn gated_from(&self, [gate, up, output]: [String; 3], width: usize) -> Result<Gated> {
        let (d_model, bias) = (self.config.d_model, self.config.biases.mlp);
        let gate_up = self.joined(&side_by_side([(gate, width), (up, width)]), d_model, bias)?;
        Ok(self.gated(gate_up, self.linear(&output, width, d_model, bias)?, None))
    }

    fn gated(&self, gate_up: Linear, output: Linear, swiglu: Option<ClampedSwiglu>) -> Gated {
        Gated { gate_up, activation: self.config.activation, swiglu, output }
    }

    fn experts(&self, router: &str, kind: MlpKind, experts: Vec<Gated>, l: usize) -> Result<Mlp> {
        let MlpKind::Experts { top_k, gating, routing, n_experts, shared, .. } = kind else {
            return Err(PrismError::Internal { place: "experts".into(), problem: "no experts".into() });
        };
        // a rounded router would choose other experts
        let wide = Loader { dtype: DType::F32, ..*self };
        let router = wide.linear(router, self.config.d_model, n_experts, self.config.biases.router)?;
        let shared = match (shared, self.config.layout.shared_expert) {
            (Some(width), Some(names)) => Some(self.shared_expert(names, width, l)?),
            _ => None,
        };
        let correction = self.config.layout.router_correction.filter(|_| routing.corrected);
        let correction = correction.map(|correction| {
            let shape: &[usize] = if correction.in_a_row { &[1, n_experts] } else { &[n_experts] };
            let numbers: Vec<f32> = self.tensor(&Layout::at(correction.name, l), shape)?.flatten_all()?.to_vec1()?;
            Ok::<_, PrismError>(numbers.into_iter().map(f64::from).collect())
        });
        Ok(Mlp::Experts(Box::new(Experts {
            router,
            gating,
            routing,
            correction: correction.transpose()?,
            top_k,
            experts,
            shared,
        })))
    }

    fn shared_expert(&self, names: SharedExpertNames, width: usize, l: usize) -> Result<SharedExpert> {
        let (d_model, at) = (self.config.d_model, |name: &str| Layout::at(name, l));
        let expert = match names.mlp {
            SharedMlpNames::Gated(names) => self.gated_from(names.map(at), width)?,
            SharedMlpNames::GateUp([gate_up, output]) => {
                let gate_up = self.linear(&at(gate_up), d_model, 2 * width, false)?;
                self.gated(gate_up, self.linear(&at(output), width, d_model, false)?, None)
            }
        };
        let score = names.score.map(|name| self.linear(&at(name), d_model, 1, false)).transpose()?;
        Ok(SharedExpert { score, expert })
    }

    /// Experts from two tensors for all of them.
    fn stacked(&self, gate_up: &str, output: &str, kind: MlpKind, stacking: Stacking) -> Result<Vec<Gated>> {
        let MlpKind::Experts { n_experts: n, swiglu, .. } = kind else { return Ok(Vec::new()) };
        let (d, m) = (self.config.d_model, self.config.d_mlp);
        let both = match stacking {
            Stacking::RowsInBlocks => from(0),
            Stacking::ColumnsInTurn => Axis::Listed((0..2 * m).map(|c| c % 2 * m + c / 2).collect()),
        };
        let expert = |e| {
            let gate_up = self.one_of(e, gate_up, [n, d, 2 * m], stacking, &both)?;
            Ok(self.gated(gate_up, self.one_of(e, output, [n, m, d], stacking, &from(0))?, swiglu))
        };
        (0..n).map(expert).collect()
    }

    /// A linear layer of expert `e` out of the tensor of all `n`; output i becomes column `to.at(i)`.
    fn one_of(&self, e: usize, name: &str, sizes: [usize; 3], stacking: Stacking, to: &Axis) -> Result<Linear> {
        let [n, n_in, n_out] = sizes;
        if stacking == Stacking::RowsInBlocks {
            let matrix = self.matrix(name, &[n, n_out, n_in])?.rows(e * n_out..(e + 1) * n_out);
            let stored = Stored { matrix, orientation: Orientation::OutIn, to: to.clone() };
            return Ok(Linear { weight: self.weight(n_in, n_out, &[stored])?, bias: None });
        }
        let matrix = self.matrix(name, &sizes)?.rows(e * n_in..(e + 1) * n_in);
        let bias = self.matrix(&format!("{name}_bias"), &[n, n_out])?.rows(e..e + 1);
        let bias = Part { matrix: bias, rows: from(0), columns: to.clone() };
        let stored = Stored { matrix, orientation: Orientation::InOut, to: to.clone() };
        Ok(Linear { weight: self.weight(n_in, n_out, &[stored])?, bias: Some(self.filled(&[n_out], &[bias])?) })
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
        self.joined(&[Outputs { name: name.into(), n: n_out, to: from(0) }], n_in, bias)
    }

    /// Linear layers of one input as one.
    fn joined(&self, layers: &[Outputs], n_in: usize, bias: bool) -> Result<Linear> {
        let n_out = layers.iter().map(|layer| layer.n).sum();
        let weight = |Outputs { name, n, to }: &Outputs| {
            let name = format!("{name}.weight");
            let orientation = self.config.layout.orientation;
            let shape = match orientation {
                Orientation::InOut => [n_in, *n],
                Orientation::OutIn => [*n, n_in],
            };
            Ok(Stored { matrix: self.matrix(&name, &shape)?, orientation, to: to.clone() })
        };
        let vector = |Outputs { name, n, to }: &Outputs| {
            Ok(Part { matrix: self.matrix(&format!("{name}.bias"), &[*n])?, rows: from(0), columns: to.clone() })
        };
        let weights = layers.iter().map(weight).collect::<Result<Vec<_>>>()?;
        let weight = self.weight(n_in, n_out, &weights)?;
        let biases = if bias { layers.iter().map(vector).collect::<Result<Vec<_>>>()? } else { Vec::new() };
        Ok(Linear { weight, bias: if bias { Some(self.filled(&[n_out], &biases)?) } else { None } })
    }

    /// The unembedding, a matrix of its own; `None` where it is the token embedding. A file may hold a tied matrix once
    /// more; then it must be the same: transformers 4 leaves a different one aside, transformers 5 takes it.
    fn unembed(&self) -> Result<Option<Tensor>> {
        let c = self.config;
        let (name, shape) = (format!("{}.weight", c.layout.unembed), [c.d_vocab, c.d_model]);
        if !c.tied_embeddings {
            let matrix = self.checkpoint.matrix(&name, &shape)?;
            return self.made(&shape, self.dtype, |buffer| matrix.copy(buffer)).map(Some);
        }
        if self.checkpoint.contains(&name) {
            let stored = self.checkpoint.matrix(&name, &shape)?;
            if self.planned.is_none() && !stored.equals(&self.matrix(c.layout.embed, &shape)?)? {
                return Err(PrismError::CheckpointInvalid {
                    file: name,
                    found: "differs from the token embedding, though the config ties them".into(),
                    expected: "the same matrix, or tie_word_embeddings: false".into(),
                });
            }
        }
        Ok(None)
    }

    fn unembed_bias(&self) -> Result<Option<Tensor>> {
        let c = self.config;
        if !c.biases.unembed {
            return Ok(None);
        }
        let matrix = self.checkpoint.matrix(&format!("{}.bias", c.layout.unembed), &[c.d_vocab])?;
        self.made(&[c.d_vocab], DType::F32, |buffer| matrix.copy(buffer)).map(Some)
    }

    /// A tensor behind the checkpoint's prefix, in its own order.
    fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let matrix = self.matrix(name, shape)?;
        self.made(shape, DType::F32, |buffer| matrix.copy(buffer))
    }

    /// A tensor put together from parts.
    fn filled(&self, shape: &[usize], parts: &[Part]) -> Result<Tensor> {
        self.made(shape, DType::F32, |buffer| {
            parts.iter().try_for_each(|p| p.matrix.place(buffer, &p.rows, &p.columns))
        })
    }

    /// A matrix [in, out] put together from stored ones, that the stream is multiplied with; in panels where kernels for
    /// the CPU read it.
    fn weight(&self, n_in: usize, n_out: usize, stored: &[Stored]) -> Result<Weight> {
        let in_panels = self.in_panels;
        let inputs = every(0, if in_panels { Weight::PANEL_WIDTH } else { n_out });
        let fill = |buffer: &mut [f32]| {
            stored.iter().try_for_each(|Stored { matrix, orientation, to }| {
                let in_panel = |n| to.then(n, |c| Weight::panel_offset(n_in, c));
                let outputs = |n| if in_panels { in_panel(n) } else { to.clone() };
                match orientation {
                    Orientation::InOut => matrix.place(buffer, &inputs, &outputs(matrix.columns)),
                    Orientation::OutIn => matrix.place(buffer, &outputs(matrix.rows), &inputs),
                }
            })
        };
        if !in_panels {
            return Weight::of_rows(self.made(&[n_in, n_out], self.dtype, fill)?);
        }
        if let Some(counts) = self.planned {
            counts.add(n_in * n_out, Weight::panel_numbers(n_in, n_out), self.dtype);
            return Weight::of_rows(self.stand_in(&[n_in, n_out])?);
        }
        Weight::in_panels(n_in, n_out, fill)
    }

    /// A tensor that is filled on the host, where it stays or is copied from.
    fn made(&self, shape: &[usize], dtype: DType, fill: impl FnOnce(&mut [f32]) -> Result<()>) -> Result<Tensor> {
        let n: usize = shape.iter().product();
        if let Some(counts) = self.planned {
            counts.add(n, n, dtype);
            return self.stand_in(shape);
        }
        let mut buffer = vec![0.0; n];
        memory::in_large_pages(&buffer);
        fill(&mut buffer)?;
        check_range(&buffer, dtype)?;
        Ok(Tensor::from_vec(buffer, shape, &Device::Cpu)?.to_dtype(dtype)?.to_device(self.device)?)
    }

    /// While planning, one number that stands for all of a tensor.
    fn stand_in(&self, shape: &[usize]) -> Result<Tensor> {
        Ok(Tensor::zeros(1, DType::F32, self.device)?.broadcast_as(shape)?)
    }

    /// A tensor behind the checkpoint's prefix, to be read.
    fn matrix(&self, name: &str, shape: &[usize]) -> Result<Matrix<'a>> {
        self.checkpoint.matrix(&format!("{}{name}", self.prefix), shape)
    }
}

/// That a smaller type holds these numbers: the largest of half precision is 65504.
fn check_range(numbers: &[f32], dtype: DType) -> Result<()> {
    if dtype != DType::F16 {
        return Ok(());
    }
    match numbers.iter().find(|x| x.is_finite() && half::f16::from_f32(**x).is_infinite()) {
        None => Ok(()),
        Some(x) => Err(PrismError::argument("dtype", "'f16'", format!("'bf16' or 'f32': {x} is among the weights"))),
    }
}

/// Each behind the one before it.
fn side_by_side<const N: usize>(parts: [(String, usize); N]) -> Vec<Outputs> {
    let mut end = 0;
    let part = |(name, n)| {
        end += n;
        Outputs { name, n, to: from(end - n) }
    };
    parts.into_iter().map(part).collect()
}

/// Where each output goes so that all queries come first, then all keys, then all values: `kind` says 0, 1 or 2 for each
/// of the heads as they are stored.
fn in_order(n_heads: usize, d_head: usize, kind: impl Fn(usize) -> usize) -> Axis {
    let mut heads: Vec<usize> = (0..n_heads).collect();
    heads.sort_by_key(|head| kind(*head)); // stable: heads of a kind keep their order
    let mut to = vec![0; n_heads * d_head];
    for (place, head) in heads.into_iter().enumerate() {
        (0..d_head).for_each(|i| to[head * d_head + i] = place * d_head + i);
    }
    Axis::Listed(to)
}
