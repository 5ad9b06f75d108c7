//! The columns of a result: which components there are, what they are called, and how a unit groups them.

use crate::config::ModelConfig;

/// How fine the columns are. A unit is a choice of columns, never of numbers: the columns of `Layer` are sums of those
/// of `Head`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Attention and MLP of every layer.
    Layer,
    /// Every head, the output bias of every attention, the MLP of every layer.
    Head,
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
        }
    }
}

/// One column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Component {
    /// What it is.
    pub kind: Kind,
    /// Its layer, but for the embeddings.
    pub layer: Option<usize>,
    /// Which head.
    pub index: Option<usize>,
}

impl Component {
    /// The components of a model in the order of the columns: embeddings, then layer by layer.
    pub fn all(unit: Unit, config: &ModelConfig) -> Vec<Component> {
        let mut all = vec![Component { kind: Kind::Embed, layer: None, index: None }];
        if config.positions.are_added() {
            all.push(Component { kind: Kind::PosEmbed, layer: None, index: None });
        }
        for l in 0..config.n_layers {
            let of_layer = |kind, index| Component { kind, layer: Some(l), index };
            match unit {
                Unit::Layer => all.push(of_layer(Kind::Attn, None)),
                Unit::Head => {
                    all.extend((0..config.n_heads).map(|h| of_layer(Kind::Head, Some(h))));
                    if config.has_attn_bias() {
                        all.push(of_layer(Kind::AttnBias, None));
                    }
                }
            }
            all.push(of_layer(Kind::Mlp, None));
        }
        all
    }

    /// Its name: `embed`, `L9H6`, `L9 attn_bias`, `L9 mlp`.
    pub fn label(&self) -> String {
        let l = self.layer.map(|l| format!("L{l}")).unwrap_or_default();
        match (self.kind, self.index) {
            (Kind::Embed, _) => "embed".into(),
            (Kind::PosEmbed, _) => "pos_embed".into(),
            (Kind::Head, h) => format!("{l}H{}", h.unwrap_or_default()),
            (Kind::AttnBias, _) => format!("{l} attn_bias"),
            (Kind::Attn, _) => format!("{l} attn"),
            (Kind::Mlp, _) => format!("{l} mlp"),
        }
    }

    /// The component of a coarser unit that this one is part of.
    fn within(self, unit: Unit) -> Component {
        match (unit, self.kind) {
            (Unit::Layer, Kind::Head | Kind::AttnBias) => Component { kind: Kind::Attn, index: None, ..self },
            _ => self,
        }
    }
}

/// For every column of `Unit::Head`, the column of `unit` that it belongs to.
pub(super) fn columns(unit: Unit, config: &ModelConfig) -> Vec<usize> {
    let coarse = Component::all(unit, config);
    let of = |fine: Component| coarse.iter().position(|c| *c == fine.within(unit));
    Component::all(Unit::Head, config).into_iter().filter_map(of).collect()
}

/// Sums the fine columns of every row, in f64, into those that `columns` names: row-major in and out.
pub(super) fn sum_columns(fine: &[f64], columns: &[usize]) -> Vec<f32> {
    let n_coarse = columns.iter().max().map_or(0, |last| last + 1);
    let mut values = Vec::with_capacity(fine.len() / columns.len() * n_coarse);
    for row in fine.chunks_exact(columns.len()) {
        let mut sums = vec![0.0; n_coarse];
        row.iter().zip(columns).for_each(|(value, column)| sums[*column] += value);
        values.extend(sums.into_iter().map(|sum| sum as f32));
    }
    values
}
