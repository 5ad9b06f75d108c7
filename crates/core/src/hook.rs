//! Hook points: the places of the forward pass that have a name. Names and shapes are TransformerLens's; values are
//! those of the Hugging Face forward pass, nothing folded or centred.

use crate::config::{MlpKind, ModelConfig};
use crate::error::{PrismError, Result};
use BlockPoint::*;
use Dim::*;
use std::collections::BTreeSet;
use std::fmt;

/// What an axis of a captured tensor counts. There is no batch axis: values are kept per prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // the names are the crate's glossary
pub enum Dim {
    Pos,
    QueryPos,
    KeyPos,
    Head,
    KvHead,
    DHead,
    DModel,
    DMlp,
    Expert,
    One,
}

impl Dim {
    /// The name of the axis.
    pub fn name(self) -> &'static str {
        match self {
            Pos => "pos",
            QueryPos => "query_pos",
            KeyPos => "key_pos",
            Head => "head",
            KvHead => "kv_head",
            DHead => "d_head",
            DModel => "d_model",
            DMlp => "d_mlp",
            Expert => "expert",
            One => "one",
        }
    }
}

/// A named place of the forward pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)] // the table below is the documentation
pub enum HookPoint {
    Embed,
    PosEmbed,
    Block(usize, BlockPoint),
    FinalScale,
    FinalNormalized,
}

/// A place inside a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)] // the table below is the documentation
pub enum BlockPoint {
    ResidPre,
    Ln1Scale,
    Ln1Normalized,
    Q,
    K,
    V,
    RotQ,
    RotK,
    AttnScores,
    Pattern,
    Z,
    HeadResult,
    Ln1PostScale,
    Ln1PostNormalized,
    AttnOut,
    ResidMid,
    Ln2Scale,
    Ln2Normalized,
    MlpPre,
    MlpPreLinear,
    MlpPost,
    RouterWeights,
    Ln2PostScale,
    Ln2PostNormalized,
    MlpOut,
    ResidPost,
    QInput,
    KInput,
    VInput,
    MlpIn,
}

/// Every point of a block, in the order of the forward pass.
const BLOCK_POINTS: [(BlockPoint, &str, &[Dim]); 26] = [
    (ResidPre, "hook_resid_pre", &[Pos, DModel]),
    (Ln1Scale, "ln1.hook_scale", &[Pos, One]),
    (Ln1Normalized, "ln1.hook_normalized", &[Pos, DModel]),
    (Q, "attn.hook_q", &[Pos, Head, DHead]),
    (K, "attn.hook_k", &[Pos, KvHead, DHead]),
    (V, "attn.hook_v", &[Pos, KvHead, DHead]),
    (RotQ, "attn.hook_rot_q", &[Pos, Head, DHead]),
    (RotK, "attn.hook_rot_k", &[Pos, KvHead, DHead]),
    (AttnScores, "attn.hook_attn_scores", &[Head, QueryPos, KeyPos]),
    (Pattern, "attn.hook_pattern", &[Head, QueryPos, KeyPos]),
    (Z, "attn.hook_z", &[Pos, Head, DHead]),
    (HeadResult, "attn.hook_result", &[Pos, Head, DModel]),
    (Ln1PostScale, "ln1_post.hook_scale", &[Pos, One]),
    (Ln1PostNormalized, "ln1_post.hook_normalized", &[Pos, DModel]),
    (AttnOut, "hook_attn_out", &[Pos, DModel]),
    (ResidMid, "hook_resid_mid", &[Pos, DModel]),
    (Ln2Scale, "ln2.hook_scale", &[Pos, One]),
    (Ln2Normalized, "ln2.hook_normalized", &[Pos, DModel]),
    (MlpPre, "mlp.hook_pre", &[Pos, DMlp]),
    (MlpPreLinear, "mlp.hook_pre_linear", &[Pos, DMlp]),
    (MlpPost, "mlp.hook_post", &[Pos, DMlp]),
    (RouterWeights, "mlp.hook_router_weights", &[Pos, Expert]),
    (Ln2PostScale, "ln2_post.hook_scale", &[Pos, One]),
    (Ln2PostNormalized, "ln2_post.hook_normalized", &[Pos, DModel]),
    (MlpOut, "hook_mlp_out", &[Pos, DModel]),
    (ResidPost, "hook_resid_post", &[Pos, DModel]),
];

/// Receivers of path patching: the stream as one head's queries, keys or values read it, or as the MLP does, each before
/// its norm. They can be written, not kept: what is read there is the stream, `hook_resid_pre` or `hook_resid_mid`.
const RECEIVERS: [(BlockPoint, &str, &[Dim]); 4] = [
    (QInput, "attn.hook_q_input", &[Pos, Head, DModel]),
    (KInput, "attn.hook_k_input", &[Pos, KvHead, DModel]),
    (VInput, "attn.hook_v_input", &[Pos, KvHead, DModel]),
    (MlpIn, "hook_mlp_in", &[Pos, DModel]),
];

impl BlockPoint {
    /// The points of a block from one on, in the order of the forward pass.
    pub fn from(first: BlockPoint) -> impl Iterator<Item = BlockPoint> {
        BLOCK_POINTS[first as usize..].iter().map(|(point, ..)| *point)
    }

    fn entry(self) -> (&'static str, &'static [Dim]) {
        let i = self as usize;
        let (_, name, dims) = BLOCK_POINTS.get(i).unwrap_or_else(|| &RECEIVERS[i - BLOCK_POINTS.len()]);
        (name, dims)
    }

    /// Whether it is where path patching writes.
    pub fn is_receiver(self) -> bool {
        self as usize >= BLOCK_POINTS.len()
    }

    /// Why layer `l` of a model has no such point; `None` where it has.
    fn absent(self, config: &ModelConfig, l: usize) -> Option<&'static str> {
        let layout = &config.layout;
        let (mlp, _) = config.mlp_of(l);
        let experts = matches!(mlp, MlpKind::Experts { .. });
        let (missing, reason) = match self {
            ResidMid => (config.parallel, "attention and MLP are parallel: no stream lies between them"),
            Ln1Scale | Ln1Normalized => (layout.ln1.is_none(), "the model has no norm before attention"),
            Ln2Scale | Ln2Normalized if config.parallel => {
                (layout.ln2.is_none(), "attention and MLP are parallel and share one norm, ln1")
            }
            Ln2Scale | Ln2Normalized => (layout.ln2.is_none(), "the model has no norm before the MLP"),
            RotQ | RotK => (
                !config.turns_queries_and_keys(),
                "the model has neither rotary positions nor a norm of queries and keys",
            ),
            Ln1PostScale | Ln1PostNormalized => (layout.ln1_post.is_none(), "the model has no norm after attention"),
            Ln2PostScale | Ln2PostNormalized => (layout.ln2_post.is_none(), "the model has no norm after the MLP"),
            MlpPre | MlpPost => (experts, "the MLP has experts: each has hidden layers of its own"),
            MlpPreLinear if experts => (true, "the MLP has experts: each has hidden layers of its own"),
            MlpPreLinear => (mlp != MlpKind::Gated, "the MLP is not gated"),
            RouterWeights => (!experts, "the MLP has no experts"),
            _ => (false, ""),
        };
        missing.then_some(reason)
    }
}

impl fmt::Display for HookPoint {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            HookPoint::Embed => f.write_str("hook_embed"),
            HookPoint::PosEmbed => f.write_str("hook_pos_embed"),
            HookPoint::Block(l, point) => write!(f, "blocks.{l}.{}", point.entry().0),
            HookPoint::FinalScale => f.write_str("ln_final.hook_scale"),
            HookPoint::FinalNormalized => f.write_str("ln_final.hook_normalized"),
        }
    }
}

impl HookPoint {
    /// The axes of its values.
    pub fn dims(self) -> &'static [Dim] {
        match self {
            HookPoint::FinalScale => &[Pos, One],
            HookPoint::Block(_, point) => point.entry().1,
            _ => &[Pos, DModel],
        }
    }

    /// Every point that the model has, in the order of the forward pass.
    pub fn all(config: &ModelConfig) -> Vec<HookPoint> {
        Self::named(config).filter(|p| p.absent(config).is_none()).collect()
    }

    /// The layer that it lies in.
    pub fn layer(self) -> Option<usize> {
        if let HookPoint::Block(l, _) = self { Some(l) } else { None }
    }

    /// Every point whose name matches one of these patterns, in which `*` stands for any characters.
    ///
    /// # Errors
    /// `UNKNOWN_HOOK` where a pattern matches nothing that the model has, with the reason or the nearest names.
    pub fn matching(patterns: &[String], config: &ModelConfig) -> Result<BTreeSet<HookPoint>> {
        let mut points = BTreeSet::new();
        for pattern in patterns {
            points.extend(Self::matching_among(pattern, Self::named(config), config)?);
        }
        Ok(points)
    }

    /// The same for one pattern, the receivers of path patching included, in the order of the forward pass.
    ///
    /// # Errors
    /// As [`HookPoint::matching`].
    pub fn matching_written(pattern: &str, config: &ModelConfig) -> Result<Vec<HookPoint>> {
        let all = Self::named(config).chain(Self::receivers(config));
        let mut points = Self::matching_among(pattern, all, config)?;
        points.sort();
        Ok(points)
    }

    fn matching_among(
        pattern: &str,
        among: impl Iterator<Item = HookPoint>,
        config: &ModelConfig,
    ) -> Result<Vec<HookPoint>> {
        let named: Vec<HookPoint> = among.filter(|p| matches(pattern, &p.to_string())).collect();
        let there: Vec<HookPoint> = named.iter().copied().filter(|p| p.absent(config).is_none()).collect();
        if !there.is_empty() {
            return Ok(there);
        }
        if !pattern.contains('*') && named.is_empty() {
            return Self::parse(pattern, config).map(|point| vec![point]);
        }
        let reason = named.iter().find_map(|p| p.absent(config)).unwrap_or("matches no name");
        let known = if named.is_empty() { Self::all(config) } else { Vec::new() };
        let nearest = crate::suggest::nearest(pattern, known.iter().map(HookPoint::to_string));
        Err(PrismError::UnknownHook { name: pattern.chars().take(200).collect(), reason: reason.into(), nearest })
    }

    /// Why the model has no such point; `None` where it has.
    pub fn absent(self, config: &ModelConfig) -> Option<&'static str> {
        match self {
            HookPoint::PosEmbed if !config.positions.are_added() => {
                Some("the model adds no positions to the embedding")
            }
            HookPoint::Block(l, point) => point.absent(config, l),
            _ => None,
        }
    }

    /// The point of this name.
    ///
    /// # Errors
    /// `UNKNOWN_HOOK`, with the reason and the nearest names that the model has.
    pub fn parse(name: &str, config: &ModelConfig) -> Result<HookPoint> {
        let unknown = |reason: &str, nearest| {
            Err(PrismError::UnknownHook { name: name.chars().take(200).collect(), reason: reason.into(), nearest })
        };
        match Self::named(config).find(|p| p.to_string() == name) {
            Some(point) => match point.absent(config) {
                None => Ok(point),
                Some(reason) => unknown(reason, Vec::new()),
            },
            None if Self::receivers(config).any(|p| p.to_string() == name) => unknown(
                "it can be written, not kept; what is read there is hook_resid_pre or hook_resid_mid",
                Vec::new(),
            ),
            None => {
                let known = Self::all(config).into_iter().map(|p| p.to_string());
                unknown("no such name", crate::suggest::nearest(name, known))
            }
        }
    }

    fn named(config: &ModelConfig) -> impl Iterator<Item = HookPoint> {
        let block = |l| BLOCK_POINTS.iter().map(move |(point, ..)| HookPoint::Block(l, *point));
        let first = [HookPoint::Embed, HookPoint::PosEmbed].into_iter();
        first.chain((0..config.n_layers).flat_map(block)).chain([HookPoint::FinalScale, HookPoint::FinalNormalized])
    }

    fn receivers(config: &ModelConfig) -> impl Iterator<Item = HookPoint> {
        let block = |l| RECEIVERS.iter().map(move |(point, ..)| HookPoint::Block(l, *point));
        (0..config.n_layers).flat_map(block)
    }
}

/// Whether a name matches a pattern in which `*` stands for any characters, also none. The parts between the stars are
/// found from left to right, each as early as it can be, the last at the end.
fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(first)) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stand_for_any_characters() {
        for (pattern, name, expected) in [
            ("*", "", true),
            ("*", "hook_embed", true),
            ("blocks.*.attn.hook_z", "blocks.10.attn.hook_z", true),
            ("blocks.*.attn.hook_z", "blocks.1.attn.hook_q", false),
            ("blocks.1.*", "blocks.10.hook_resid_pre", false),
            ("*.hook_*", "blocks.1.hook_resid_pre", true),
            ("*ab", "aab", true),
            ("ab*ab", "ab", false),
            ("a*b*c", "a-b-b-c", true),
            ("exact", "exact", true),
            ("exact", "exactly", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} and {name}");
        }
    }

    #[test]
    fn a_pattern_gives_the_points_that_are_there_or_the_reason() {
        let points = |pattern: &str| HookPoint::matching(&[pattern.into()], &config());
        let names: Vec<String> =
            points("blocks.*.attn.hook_pattern").unwrap().iter().map(HookPoint::to_string).collect();
        assert_eq!(names, ["blocks.0.attn.hook_pattern", "blocks.1.attn.hook_pattern"]);
        assert_eq!(points("*").unwrap().len(), HookPoint::all(&config()).len());
        let error = points("blocks.*.attn.hook_rot_q").unwrap_err();
        assert!(error.to_string().contains("rotary"), "{error}");
        let error = points("blocks.*.attn.hook_patern").unwrap_err();
        assert_eq!(error.code(), "UNKNOWN_HOOK");
        assert!(error.to_string().contains("hook_pattern"), "{error}");
    }
    use crate::config::RawConfig;

    fn config() -> ModelConfig {
        let json = br#"{"model_type": "gpt2", "n_layer": 2, "n_embd": 8, "n_head": 2}"#;
        ModelConfig::resolve(RawConfig::parse("config.json", json).unwrap(), false).unwrap()
    }

    #[test]
    fn the_table_is_in_the_order_of_the_enum() {
        for (i, (point, ..)) in BLOCK_POINTS.iter().chain(&RECEIVERS).enumerate() {
            assert_eq!(*point as usize, i);
        }
    }

    #[test]
    fn every_name_parses_to_its_point() {
        let config = config();
        let all = HookPoint::all(&config);
        assert_eq!(all.len(), 4 + 2 * (26 - 8));
        for point in all {
            assert_eq!(HookPoint::parse(&point.to_string(), &config).unwrap(), point);
        }
    }

    #[test]
    fn a_point_that_the_model_lacks_is_refused_with_the_reason() {
        for (name, word) in [
            ("blocks.0.attn.hook_rot_q", "rotary"),
            ("blocks.1.ln2_post.hook_scale", "after the MLP"),
            ("blocks.0.mlp.hook_pre_linear", "gated"),
            ("blocks.0.mlp.hook_router_weights", "experts"),
        ] {
            let error = HookPoint::parse(name, &config()).unwrap_err();
            assert_eq!(error.code(), "UNKNOWN_HOOK");
            assert!(error.to_string().contains(word), "{error}");
        }
    }

    #[test]
    fn receivers_can_be_written_and_not_kept() {
        let written = |pattern: &str| HookPoint::matching_written(pattern, &config());
        let names: Vec<String> = written("blocks.1.*_in*").unwrap().iter().map(HookPoint::to_string).collect();
        let inputs = ["attn.hook_q_input", "attn.hook_k_input", "attn.hook_v_input", "hook_mlp_in"];
        assert_eq!(names, inputs.map(|name| format!("blocks.1.{name}")));
        for kept in ["blocks.1.hook_mlp_in", "blocks.0.attn.hook_q_input"] {
            assert_eq!(written(kept).unwrap()[0].to_string(), kept);
            let error = HookPoint::parse(kept, &config()).unwrap_err();
            assert!(error.to_string().contains("written, not kept"), "{error}");
        }
        assert_eq!(written("hook_embed").unwrap(), [HookPoint::Embed]);
        assert!(written("blocks.*.attn.hook_rot_q").unwrap_err().to_string().contains("rotary"));
    }

    #[test]
    fn a_misspelt_name_gets_the_nearest() {
        let error = HookPoint::parse("blocks.1.attn.hook_patern", &config()).unwrap_err();
        assert_eq!(error.details()["nearest"][0], "blocks.1.attn.hook_pattern");
        let error = HookPoint::parse("blocks.2.attn.hook_z", &config()).unwrap_err(); // there are two layers
        assert_eq!(error.details()["nearest"][0], "blocks.0.attn.hook_z");
        let error = HookPoint::parse(&"x".repeat(100_000), &config()).unwrap_err();
        assert!(error.to_string().len() < 1000);
        assert_eq!(error.details()["nearest"], serde_json::json!([]));
    }
}
