//! The columns of a result: which components there are, what they are called, and how a unit groups them.

use crate::config::{MlpKind, ModelConfig};

/// How fine the columns are. A unit is a choice of columns, never of numbers: the columns of `Layer` are sums of those
/// of `Head`, and those of `Head` of those of `Neuron`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Attention and MLP of every layer.
    Layer,
    /// Every head, the output bias of every attention, the MLP of every layer.
    Head,
    /// As `Head`, with every neuron of every MLP and the bias that no neuron writes.
    Neuron,
}

/// What a component is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Token embedding.
    Embed,
    /// Learned position embedding.
    PosEmbed,
    /// One head, without the output bias.
    Head,
    /// The output bias of a layer's attention.
    AttnBias,
    /// All heads of a layer and the output bias.
    Attn,
    /// What a layer's MLP writes, bias included.
    Mlp,
    /// What one hidden number of an MLP writes: `a_n W_out[n]`.
    Neuron,
    /// What an MLP writes and no neuron does: b_out, times their gates for experts, or the β of a norm behind it.
    MlpBias,
    /// The neurons that were not kept, together.
    Rest,
}

impl Kind {
    /// Its name in results.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Embed => "embed",
            Kind::PosEmbed => "pos_embed",
            Kind::Head => "head",
            Kind::AttnBias => "attn_bias",
            Kind::Attn => "attn",
            Kind::Mlp => "mlp",
            Kind::Neuron => "neuron",
            Kind::MlpBias => "mlp_bias",
            Kind::Rest => "rest",
        }
    }
}

/// Which expert a neuron belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpertId {
    /// One that the router chooses, by its number.
    Routed(usize),
    /// The one that every token gets.
    Shared,
}

/// One column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Component {
    /// What it is.
    pub kind: Kind,
    /// Its layer, but for the embeddings.
    pub layer: Option<usize>,
    /// Which head, or which neuron.
    pub index: Option<usize>,
    /// For neurons of experts: whose.
    pub expert: Option<ExpertId>,
}

impl Component {
    fn new(kind: Kind, layer: Option<usize>, index: Option<usize>) -> Self {
        Component { kind, layer, index, expert: None }
    }

    /// The neurons that were not kept.
    pub const REST: Component = Component { kind: Kind::Rest, layer: None, index: None, expert: None };

    /// The components of a model in the order of the columns: embeddings, then layer by layer.
    pub fn all(unit: Unit, config: &ModelConfig) -> Vec<Component> {
        Self::listed(unit, config, config.has_attn_bias())
    }

    /// The same with or without a bias of attention, whatever the model has.
    pub(super) fn listed(unit: Unit, config: &ModelConfig, has_attn_bias: bool) -> Vec<Component> {
        let mut all = vec![Component::new(Kind::Embed, None, None)];
        if config.positions.are_added() {
            all.push(Component::new(Kind::PosEmbed, None, None));
        }
        for l in 0..config.n_layers {
            let of_layer = |kind, index| Component::new(kind, Some(l), index);
            if unit == Unit::Layer {
                all.extend([of_layer(Kind::Attn, None), of_layer(Kind::Mlp, None)]);
                continue;
            }
            all.extend((0..config.n_heads).map(|h| of_layer(Kind::Head, Some(h))));
            if has_attn_bias {
                all.push(of_layer(Kind::AttnBias, None));
            }
            if unit == Unit::Head {
                all.push(of_layer(Kind::Mlp, None));
                continue;
            }
            for (expert, width) in neurons(config, l) {
                all.extend((0..width).map(|n| Component { expert, ..of_layer(Kind::Neuron, Some(n)) }));
            }
            if config.has_mlp_bias() {
                all.push(of_layer(Kind::MlpBias, None));
            }
        }
        all
    }

    /// How many components there are.
    pub fn count(unit: Unit, config: &ModelConfig) -> usize {
        Self::n_listed(unit, config, config.has_attn_bias())
    }

    /// The same with or without a bias of attention.
    pub(super) fn n_listed(unit: Unit, config: &ModelConfig, has_attn_bias: bool) -> usize {
        let embeds = 1 + usize::from(config.positions.are_added());
        let heads = config.n_heads + usize::from(has_attn_bias);
        let of_layer = |l| match unit {
            Unit::Layer => 2,
            Unit::Head => heads + 1,
            Unit::Neuron => {
                let neurons: usize = neurons(config, l).iter().map(|(_, width)| width).sum();
                heads + neurons + usize::from(config.has_mlp_bias())
            }
        };
        embeds + (0..config.n_layers).map(of_layer).sum::<usize>()
    }

    /// Its name: `embed`, `L9H6`, `L9 attn_bias`, `L9 mlp`, `L9N611`, `L9E3N17`, `L9SN17` of a shared expert.
    pub fn label(&self) -> String {
        let l = self.layer.map(|l| format!("L{l}")).unwrap_or_default();
        let i = self.index.unwrap_or_default();
        match (self.kind, self.expert) {
            (Kind::Head, _) => format!("{l}H{i}"),
            (Kind::Neuron, None) => format!("{l}N{i}"),
            (Kind::Neuron, Some(ExpertId::Routed(e))) => format!("{l}E{e}N{i}"),
            (Kind::Neuron, Some(ExpertId::Shared)) => format!("{l}SN{i}"),
            (kind, _) if l.is_empty() => kind.name().into(),
            (kind, _) => format!("{l} {}", kind.name()),
        }
    }

    /// The component of a coarser unit that this one is part of.
    fn within(self, unit: Unit) -> Component {
        match (unit, self.kind) {
            (Unit::Layer, Kind::Head | Kind::AttnBias) => Component::new(Kind::Attn, self.layer, None),
            (Unit::Layer | Unit::Head, Kind::Neuron | Kind::MlpBias) => Component::new(Kind::Mlp, self.layer, None),
            _ => self,
        }
    }
}

/// The hidden layers of a layer's MLP and their widths: one, or one per expert, the shared one last.
pub(crate) fn neurons(config: &ModelConfig, l: usize) -> Vec<(Option<ExpertId>, usize)> {
    let (mlp, width) = config.mlp_of(l);
    match mlp {
        MlpKind::Experts { n_experts, shared, .. } => {
            let routed = (0..n_experts).map(|e| (Some(ExpertId::Routed(e)), width));
            routed.chain(shared.map(|width| (Some(ExpertId::Shared), width))).collect()
        }
        _ => vec![(None, width)],
    }
}

/// For every column of a fine unit, the column of `unit` that it belongs to. Both run through the layers in the same
/// order.
pub(super) fn columns(fine: &[Component], unit: Unit, config: &ModelConfig) -> Vec<usize> {
    let coarse = Component::all(unit, config);
    let mut at = 0;
    let of = |fine: &Component| {
        at += coarse[at..].iter().position(|c| *c == fine.within(unit))?;
        Some(at)
    };
    fine.iter().filter_map(of).collect()
}

/// For heads one by one, the column of `unit` that each belongs to.
pub(crate) fn fine_columns(unit: Unit, config: &ModelConfig) -> Vec<usize> {
    columns(&Component::all(Unit::Head, config), unit, config)
}

/// Sums the fine columns of every row, in f64, into those that `columns` names: row-major in and out.
pub(crate) fn sum_columns(fine: &[f64], columns: &[usize]) -> Vec<f32> {
    let n_coarse = columns.iter().max().map_or(0, |last| last + 1);
    let mut values = Vec::with_capacity(fine.len() / columns.len() * n_coarse);
    let mut sums = vec![0.0; n_coarse];
    for row in fine.chunks_exact(columns.len()) {
        sums.fill(0.0);
        row.iter().zip(columns).for_each(|(value, column)| sums[*column] += value);
        values.extend(sums.iter().map(|sum| *sum as f32));
    }
    values
}
