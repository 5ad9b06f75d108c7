//! Where a family's weights lie in its checkpoint: names, order and orientation, as data.

/// Tensor names of a family. `{l}` stands for the layer, `{e}` for the expert; `.weight` and `.bias` are added where the
/// names are used.
#[derive(Debug, Clone)]
pub struct Layout {
    /// What may stand before every name but the unembedding's; checkpoints come with one of these, or without.
    pub prefixes: &'static [&'static str],
    /// Token embedding, [d_vocab, d_model].
    pub embed: &'static str,
    /// Norm of the embedding.
    pub embed_norm: Option<&'static str>,
    /// Learned positions, [offset + n_context, d_model].
    pub pos_embed: Option<&'static str>,
    /// Norm before attention.
    pub ln1: Option<&'static str>,
    /// Norm after attention.
    pub ln1_post: Option<&'static str>,
    /// Norm before the MLP; a parallel block without one reads what attention reads.
    pub ln2: Option<&'static str>,
    /// Norm after the MLP.
    pub ln2_post: Option<&'static str>,
    /// Queries, keys and values.
    pub qkv: Qkv,
    /// Norms of queries and keys.
    pub qk_norm: [&'static str; 2],
    /// Attention sinks, [n_heads].
    pub sinks: Option<&'static str>,
    /// Attention's output matrix, W_O and b_O.
    pub attn_out: &'static str,
    /// The MLP.
    pub mlp: MlpNames,
    /// Router, gate and up, and out of all experts as transformers 5 holds them, [`Stacking::RowsInBlocks`]; it saves
    /// them so with `save_original_format=False`. Taken where a checkpoint has them.
    pub stacked: Option<[&'static str; 3]>,
    /// The expert that every token gets.
    pub shared_expert: Option<SharedExpertNames>,
    /// What is added to the experts' scores before the choice.
    pub router_correction: Option<Correction>,
    /// Norm before the unembedding.
    pub ln_final: &'static str,
    /// Unembedding, [d_vocab, d_model].
    pub unembed: &'static str,
    /// How linear layers are stored.
    pub orientation: Orientation,
    /// Tensors that hold no weights (masks, tables) and may be there, after the prefix.
    pub harmless: &'static [&'static str],
}

/// Where queries, keys and values lie.
#[derive(Debug, Clone, Copy)]
pub enum Qkv {
    /// Three matrices.
    Split([&'static str; 3]),
    /// One matrix: all queries, all keys, all values.
    Fused(&'static str),
    /// One matrix, key head by key head: its queries, its key, its value (GPT-NeoX, BLOOM, Falcon).
    ByGroup(&'static str),
    /// One matrix in four blocks, each with its heads' queries, values, keys (CodeGen).
    InFourBlocks(&'static str),
}

/// Where an MLP's matrices lie.
#[derive(Debug, Clone, Copy)]
pub enum MlpNames {
    /// In and out.
    Plain([&'static str; 2]),
    /// Gate, up and out.
    Gated([&'static str; 3]),
    /// Gate and up side by side, and out.
    GateUp([&'static str; 2]),
    /// Router, and every expert's gate, up and out. The layers without experts have `dense`.
    Experts {
        /// [n_experts, d_model]
        router: &'static str,
        /// Gate, up, out, with `{e}`.
        experts: [&'static str; 3],
        /// Gate, up and out of a layer without experts.
        dense: [&'static str; 3],
    },
    /// Router, and all experts in two tensors.
    StackedExperts {
        /// How they are stacked.
        stacking: Stacking,
        /// [n_experts, d_model]
        router: &'static str,
        /// Gate and up, the whole name.
        gate_up: &'static str,
        /// Out, the whole name.
        output: &'static str,
    },
}

/// How the matrices of all experts are stored in one tensor.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Stacking {
    /// Gate and up column by column in turn [n_experts, d_model, 2 d_mlp], and out [n_experts, d_mlp, d_model], with
    /// biases (gpt-oss).
    ColumnsInTurn,
    /// As `torch.nn.Linear`: all of gate, then all of up [n_experts, 2 d_mlp, d_model], and out [n_experts, d_model,
    /// d_mlp], without biases (GraniteMoE).
    RowsInBlocks,
}

/// Where the expert lies that every token gets.
#[derive(Debug, Clone, Copy)]
pub struct SharedExpertNames {
    /// Its MLP, gated.
    pub mlp: SharedMlpNames,
    /// What gives its score, [1, d_model]; without one it is added in full.
    pub score: Option<&'static str>,
}

/// How a shared expert's gated MLP is stored.
#[derive(Debug, Clone, Copy)]
pub enum SharedMlpNames {
    /// Gate, up and out.
    Gated([&'static str; 3]),
    /// Gate and up side by side, and out.
    GateUp([&'static str; 2]),
}

/// Where a number per expert lies that changes the choice.
#[derive(Debug, Clone, Copy)]
pub struct Correction {
    /// Its whole name.
    pub name: &'static str,
    /// Whether it is stored as [1, n_experts] (ERNIE), not [n_experts].
    pub in_a_row: bool,
}

/// How a linear layer's matrix is stored.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Orientation {
    /// `[in, out]`, as GPT-2's `Conv1D`.
    InOut,
    /// `[out, in]`, as `torch.nn.Linear`.
    OutIn,
}

impl Layout {
    /// The names that Llama's checkpoints have, and with small changes those of most decoders since.
    pub const LLAMA: Layout = Layout {
        prefixes: &["model."],
        embed: "embed_tokens.weight",
        embed_norm: None,
        pos_embed: None,
        ln1: Some("layers.{l}.input_layernorm"),
        ln1_post: None,
        ln2: Some("layers.{l}.post_attention_layernorm"),
        ln2_post: None,
        qkv: Qkv::Split(["layers.{l}.self_attn.q_proj", "layers.{l}.self_attn.k_proj", "layers.{l}.self_attn.v_proj"]),
        qk_norm: ["layers.{l}.self_attn.q_norm", "layers.{l}.self_attn.k_norm"],
        sinks: None,
        attn_out: "layers.{l}.self_attn.o_proj",
        mlp: MlpNames::Gated(["layers.{l}.mlp.gate_proj", "layers.{l}.mlp.up_proj", "layers.{l}.mlp.down_proj"]),
        stacked: None,
        shared_expert: None,
        router_correction: None,
        ln_final: "norm",
        unembed: "lm_head",
        orientation: Orientation::OutIn,
        harmless: &["layers.{l}.self_attn.rotary_emb.inv_freq", "rotary_emb.inv_freq"],
    };

    /// The name of a tensor in layer `l`.
    pub fn at(pattern: &str, l: usize) -> String {
        pattern.replace("{l}", &l.to_string())
    }

    /// Whether a name, with or without one of the prefixes, is one of the harmless tensors of a model of `n_layers`
    /// layers.
    pub fn is_harmless(&self, name: &str, n_layers: usize) -> bool {
        let bare = self.prefixes.iter().find_map(|prefix| name.strip_prefix(prefix)).unwrap_or(name);
        let is = |pattern: &&str| match pattern.split_once("{l}") {
            None => *pattern == bare,
            Some((front, back)) => bare
                .strip_prefix(front)
                .and_then(|rest| rest.strip_suffix(back))
                .and_then(|l| l.parse().ok().filter(|n: &usize| n.to_string() == l))
                .is_some_and(|l| l < n_layers),
        };
        self.harmless.iter().any(is)
    }
}
