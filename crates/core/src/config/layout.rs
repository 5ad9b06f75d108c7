//! Where a family's weights lie in its checkpoint: names and orientation, as data.

/// Tensor names of a family. `{l}` stands for the layer; `.weight` and `.bias` are added where the names are used.
#[derive(Debug, Clone, Default)]
pub struct Layout {
    /// What may stand before every name but the unembedding's; checkpoints come with and without it.
    pub prefix: &'static str,
    /// Token embedding, [d_vocab, d_model].
    pub embed: &'static str,
    /// Learned positions, [n_context, d_model].
    pub pos_embed: &'static str,
    /// Norm before attention.
    pub ln1: &'static str,
    /// Queries, keys and values side by side, in this order.
    pub qkv: &'static str,
    /// Attention's output matrix, W_O and b_O.
    pub attn_out: &'static str,
    /// Norm before the MLP.
    pub ln2: &'static str,
    /// The MLP's input matrix.
    pub mlp_in: &'static str,
    /// The MLP's output matrix.
    pub mlp_out: &'static str,
    /// Norm before the unembedding.
    pub ln_final: &'static str,
    /// Unembedding, [d_vocab, d_model].
    pub unembed: &'static str,
    /// How linear layers are stored.
    pub orientation: Orientation,
    /// Tensors that hold no weights (masks, tables) and may be there, after the prefix.
    pub harmless: &'static [&'static str],
}

/// How a linear layer's matrix is stored.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub enum Orientation {
    /// `[in, out]`, as GPT-2's `Conv1D`.
    InOut,
    /// `[out, in]`, as `torch.nn.Linear`.
    #[default]
    OutIn,
}

impl Layout {
    /// The name of a tensor in layer `l`.
    pub fn at(pattern: &str, l: usize) -> String {
        pattern.replace("{l}", &l.to_string())
    }

    /// Whether a name without its prefix is one of the harmless tensors of a model of `n_layers` layers.
    pub fn is_harmless(&self, name: &str, n_layers: usize) -> bool {
        self.harmless.iter().any(|pattern| (0..n_layers).any(|l| Layout::at(pattern, l) == name))
    }
}
