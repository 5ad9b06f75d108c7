//! The parts of a [`ModelConfig`](super::ModelConfig): one small type for every axis on which families differ.

use serde::Serialize;

/// A norm: `γ ⊙ (x − mean(x)) / sqrt(var(x) + ε) + β`, or the same without the mean.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Norm {
    /// Whether the mean is taken off.
    pub kind: NormKind,
    /// ε, inside the root.
    pub eps: f64,
    /// What γ is.
    pub gain: Gain,
    /// Whether there is a β.
    pub bias: bool,
}

/// Layer norm or RMS norm.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum NormKind {
    /// `(x − mean(x)) / sqrt(var(x) + ε)`
    LayerNorm,
    /// `x / sqrt(mean(x²) + ε)`
    RmsNorm,
}

/// What the stored weight of a norm says about γ.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Gain {
    /// γ is the weight.
    Weight,
    /// γ is 1 + weight (Gemma, Nemotron).
    OnePlusWeight,
    /// There is no weight, γ is 1 (OLMo).
    None,
}

impl Norm {
    /// Layer norm with weight and bias.
    pub fn layer(eps: f64) -> Self {
        Norm { kind: NormKind::LayerNorm, eps, gain: Gain::Weight, bias: true }
    }

    /// RMS norm with a weight.
    pub fn rms(eps: f64) -> Self {
        Norm { kind: NormKind::RmsNorm, eps, gain: Gain::Weight, bias: false }
    }
}

/// How a model knows positions.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Positions {
    /// A learned vector per position, added to the embedding: the component `pos_embed`.
    Learned {
        /// Row of the table that position 0 reads (OPT: 2).
        offset: usize,
    },
    /// A vector per position that is no weight, added to the embedding: the component `pos_embed`. `sin(p ω_i)`, then
    /// `cos(p ω_i)`, with `ω_i` from 1 to 1/10000 in equal ratios, `p` the position and the offset (XGLM).
    Sinusoidal {
        /// `p` of position 0.
        offset: usize,
        /// This `p` has zeros instead.
        zero: Option<usize>,
    },
    /// Queries and keys are turned by angles; per layer, `None` where a layer has no positions.
    Rotary {
        /// One entry per layer.
        layers: Vec<Option<Rotary>>,
    },
    /// Scores get a bias that is linear in the key's position.
    Alibi(Alibi),
}

impl Positions {
    /// Whether a vector per position is added to the embedding.
    pub fn are_added(&self) -> bool {
        matches!(self, Positions::Learned { .. } | Positions::Sinusoidal { .. })
    }
}

/// ALiBi: `scale · slope · (key_pos − zero)` is added to the scores.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Alibi {
    /// One slope per head.
    pub slopes: Vec<f64>,
    /// Which position has the bias 0. The pattern is the same.
    pub zero_at: AlibiZero,
    /// Multiplies the products.
    pub scale: f64,
    /// Whether slopes and products are rounded to bfloat16, as Falcon's class does whatever it computes in.
    pub bf16: bool,
}

/// Where ALiBi's bias is 0.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum AlibiZero {
    /// `slope · key_pos` (BLOOM, Falcon).
    #[default]
    First,
    /// `slope · (key_pos − last_pos)` (MPT).
    Last,
}

/// Rotary positions of one layer.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Rotary {
    /// The first `dim` numbers of a head turn, the others stay.
    pub dim: usize,
    /// θ: the slowest angle is about 1/θ per position.
    pub theta: f64,
    /// Which numbers turn together.
    pub style: RotaryStyle,
    /// How angles are changed for contexts longer than those of training.
    pub scaling: RotaryScaling,
}

/// Which two numbers of a head turn together.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum RotaryStyle {
    /// `i` and `i + dim/2` (Llama, GPT-NeoX).
    Halves,
    /// `2i` and `2i + 1` (GPT-J, Cohere, GLM).
    Pairs,
}

/// Changes of the angles, as in `modeling_rope_utils.py` of transformers.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum RotaryScaling {
    /// None.
    Default,
    /// Every angle divided by `factor`, at every length.
    Linear {
        /// Divisor.
        factor: f64,
    },
    /// θ grows with the prompt once it is longer than `original`; up to there nothing changes. It depends on the length
    /// of the whole prompt, so one position has other angles in a longer prompt.
    Dynamic {
        /// Growth.
        factor: f64,
        /// Length of training.
        original: usize,
    },
    /// Slow angles divided by `factor`, fast ones kept, a ramp between, at every length.
    Llama3 {
        /// Divisor of the slow angles.
        factor: f64,
        /// Waves longer than `original / low` are slow.
        low: f64,
        /// Waves shorter than `original / high` are fast.
        high: f64,
        /// Length of training.
        original: usize,
    },
    /// As llama3 with another ramp, and cos and sin multiplied by `attention_factor`, at every length.
    Yarn {
        /// Divisor of the slow angles.
        factor: f64,
        /// Rotations over `original` above which an angle is kept.
        beta_fast: f64,
        /// Rotations below which it is divided.
        beta_slow: f64,
        /// Whether the ramp begins and ends at whole indices.
        truncate: bool,
        /// Length of training.
        original: usize,
        /// Multiplies cos and sin.
        attention_factor: f64,
    },
    /// Every angle divided by its own factor: from one list up to `original` tokens, from another for prompts longer
    /// than that; cos and sin multiplied by `attention_factor` at every length.
    LongRope {
        /// For prompts of at most `original` tokens.
        short: Vec<f64>,
        /// For longer ones.
        long: Vec<f64>,
        /// Length of training.
        original: usize,
        /// Multiplies cos and sin.
        attention_factor: f64,
    },
}

impl RotaryScaling {
    /// Its name.
    pub fn name(&self) -> &'static str {
        match self {
            RotaryScaling::Default => "default",
            RotaryScaling::Linear { .. } => "linear",
            RotaryScaling::Dynamic { .. } => "dynamic NTK",
            RotaryScaling::Llama3 { .. } => "llama3",
            RotaryScaling::Yarn { .. } => "yarn",
            RotaryScaling::LongRope { .. } => "longrope",
        }
    }
}

/// A norm of queries and keys.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct QkNorm {
    /// The norm.
    pub norm: Norm,
    /// What it is taken over.
    pub span: QkSpan,
    /// Whether it comes after the rotation (HunYuan), not before.
    pub after_rotary: bool,
}

impl QkNorm {
    /// Before the rotation.
    pub fn new(norm: Norm, span: QkSpan) -> Self {
        QkNorm { norm, span, after_rotary: false }
    }
}

/// What a norm of queries and keys is taken over.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum QkSpan {
    /// Each head, all with the same γ (Qwen3, Gemma 3).
    Head,
    /// Each head, each with its own γ, stored as one tensor [heads, d_head] (Cohere).
    HeadOwnGain,
    /// Each head, each with its own γ, stored head by head (StableLM).
    HeadSplitGain,
    /// All heads together (OLMo 2).
    AllHeads,
}

/// The kind of MLP.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum MlpKind {
    /// `act(x W_in) W_out`
    Plain,
    /// `(act(x W_gate) ⊙ x W_up) W_out`
    Gated,
    /// A router chooses `top_k` of `n_experts` gated MLPs for every token.
    Experts {
        /// How many there are.
        n_experts: usize,
        /// How many a token gets.
        top_k: usize,
        /// How router logits become gates.
        gating: Gating,
        /// What else changes choice and gates.
        routing: Routing,
        /// Hidden width of a gated MLP that every token gets besides, in full or (Qwen 2 MoE) times the sigmoid of a score of
        /// its own.
        shared: Option<usize>,
        /// gpt-oss: `clamp`, then `(up + 1) · gate · σ(alpha · gate)` in place of the activation.
        swiglu: Option<ClampedSwiglu>,
    },
}

/// How router logits become the gates of the chosen experts.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Gating {
    /// Softmax over all experts; the chosen ones keep their values.
    Softmax,
    /// Softmax over the chosen experts.
    SoftmaxOfChosen,
    /// The sigmoid of each; the chosen ones keep their values (dots.llm1).
    Sigmoid,
    /// The sigmoid of each, over the sum of the chosen ones (DeepSeek's router; GLM 4 MoE).
    SigmoidOfChosen,
}

/// What changes which experts are chosen, and their gates.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Routing {
    /// Whether a stored number per expert is added to the scores for the choice, not for the gates.
    pub corrected: bool,
    /// Experts stand in so many groups, and are chosen from so many: those whose two largest scores have the largest sum.
    pub groups: Option<[usize; 2]>,
    /// What gates are multiplied with.
    pub scale: f64,
}

impl Default for Routing {
    fn default() -> Self {
        Routing { corrected: false, groups: None, scale: 1.0 }
    }
}

/// The constants of gpt-oss' experts.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ClampedSwiglu {
    /// In the sigmoid.
    pub alpha: f64,
    /// Gate at most this, up within ± this.
    pub limit: f64,
}

/// Which linear layers have a bias.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Biases {
    /// Queries, keys and values.
    pub qkv: bool,
    /// W_O.
    pub attn_out: bool,
    /// MLP, experts included.
    pub mlp: bool,
    /// The experts' router.
    pub router: bool,
    /// W_U.
    pub unembed: bool,
}
