//! What reads the stream: single heads through their queries, keys or values, MLPs, the logits.

use crate::attribution::{Component, Kind};
use crate::batch::Entry;
use crate::config::ModelConfig;
use crate::error::{PrismError, Result};
use crate::hook::{BlockPoint, HookPoint};
use crate::suggest::nearest;

/// A receiver of path patching.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Receiver {
    /// What the final norm reads.
    Logits,
    /// What one head's queries are made of.
    Q {
        /// Its layer.
        layer: usize,
        /// Which head.
        head: usize,
    },
    /// What the keys of one key/value head are made of.
    K {
        /// Its layer.
        layer: usize,
        /// Which key/value head.
        head: usize,
    },
    /// What the values of one key/value head are made of.
    V {
        /// Its layer.
        layer: usize,
        /// Which key/value head.
        head: usize,
    },
    /// What an MLP reads.
    Mlp {
        /// Its layer.
        layer: usize,
    },
}

impl Receiver {
    /// Every receiver of a model, in the order of the forward pass.
    pub fn all(config: &ModelConfig) -> Vec<Receiver> {
        let of_layer = |layer| {
            let q = (0..config.n_heads).map(move |head| Receiver::Q { layer, head });
            let k = (0..config.n_key_value_heads).map(move |head| Receiver::K { layer, head });
            let v = (0..config.n_key_value_heads).map(move |head| Receiver::V { layer, head });
            q.chain(k).chain(v).chain([Receiver::Mlp { layer }])
        };
        (0..config.n_layers).flat_map(of_layer).chain([Receiver::Logits]).collect()
    }

    /// Its name: `logits`, `L10H7.q`, `L10 mlp`; keys and values count key/value heads.
    pub fn label(&self) -> String {
        match self {
            Receiver::Logits => "logits".into(),
            Receiver::Q { layer, head } => format!("L{layer}H{head}.q"),
            Receiver::K { layer, head } => format!("L{layer}H{head}.k"),
            Receiver::V { layer, head } => format!("L{layer}H{head}.v"),
            Receiver::Mlp { layer } => format!("L{layer} mlp"),
        }
    }

    /// The receivers that these labels name, in the order of the forward pass.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` with the nearest labels, for an empty list, and where one is named twice.
    pub fn parse(labels: &[String], config: &ModelConfig) -> Result<Vec<Receiver>> {
        let all = Receiver::all(config);
        let known: Vec<String> = all.iter().map(Receiver::label).collect();
        let refused = |found: String, expected: String| Err(PrismError::argument("to", found, expected));
        for (i, label) in labels.iter().enumerate() {
            if !known.contains(label) {
                let nearest = nearest(label, known.iter().cloned()).join(", ");
                let shared = if config.n_key_value_heads < config.n_heads {
                    format!("; keys and values count {} key/value heads", config.n_key_value_heads)
                } else {
                    String::new()
                };
                return refused(format!("'{label}'"), format!("receivers of the model{shared}; nearest: {nearest}"));
            }
            if labels[..i].contains(label) {
                return refused(format!("'{label}' twice"), "each receiver once".into());
            }
        }
        match labels {
            [] => refused("an empty list".into(), "at least one receiver".into()),
            _ => Ok(all.into_iter().filter(|receiver| labels.contains(&receiver.label())).collect()),
        }
    }

    /// Where a stream is set for it alone, and for which head.
    pub(super) fn point(self, config: &ModelConfig) -> (HookPoint, Option<usize>) {
        match self {
            // behind the last block nobody but the final norm reads
            Receiver::Logits => (HookPoint::Block(config.n_layers - 1, BlockPoint::ResidPost), None),
            Receiver::Q { layer, head } => (HookPoint::Block(layer, BlockPoint::QInput), Some(head)),
            Receiver::K { layer, head } => (HookPoint::Block(layer, BlockPoint::KInput), Some(head)),
            Receiver::V { layer, head } => (HookPoint::Block(layer, BlockPoint::VInput), Some(head)),
            Receiver::Mlp { layer } => (HookPoint::Block(layer, BlockPoint::MlpIn), None),
        }
    }

    /// The stream that it reads, as a run keeps it.
    pub(super) fn read(self, config: &ModelConfig) -> HookPoint {
        match self {
            Receiver::Logits => self.point(config).0,
            other => other.point(config).0.read_from(config.parallel),
        }
    }

    /// Where a run enters in which only it, and what comes behind it, changes.
    pub(super) fn entry(self, config: &ModelConfig) -> Entry {
        match self {
            Receiver::Logits => Entry::before(config.n_layers),
            Receiver::Mlp { layer } if !config.parallel => Entry::behind_attention(layer),
            Receiver::Q { layer, .. }
            | Receiver::K { layer, .. }
            | Receiver::V { layer, .. }
            | Receiver::Mlp { layer } => Entry::before(layer),
        }
    }

    /// Whether it reads what a component writes.
    pub fn reads(self, sender: &Component, config: &ModelConfig) -> bool {
        let Some(layer) = sender.layer else { return true };
        let is_attention = sender.kind != Kind::Mlp;
        match self {
            Receiver::Mlp { layer: own } if own == layer => is_attention && !config.parallel,
            other => layer < other.entry(config).layer,
        }
    }
}
