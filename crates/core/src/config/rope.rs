//! Rotary positions of a config, in both spellings: `rope_parameters` (transformers 5), or `rope_theta`, `rope_scaling`
//! and `partial_rotary_factor` beside the other keys. Defaults and formulas: `modeling_rope_utils.py`.

use super::{Positions, RawConfig, Rotary, RotaryScaling, RotaryStyle, limits};
use crate::error::Result;

/// What a family takes where keys are missing.
pub(super) struct Defaults {
    pub theta: f64,
    /// Share of a head that turns; `None` where the class always turns the whole head.
    pub share: Option<f64>,
    pub style: RotaryStyle,
    /// `original_max_position_embeddings` beside the parameters; `None`: the model's context.
    pub original: Option<usize>,
}

/// The one kind of rotary positions of a model.
pub(super) fn read(raw: &RawConfig, d_head: usize, n_context: usize, defaults: &Defaults) -> Result<Rotary> {
    let parameters = match raw.object("rope_parameters")? {
        Some(parameters) => Some(parameters),
        None => raw.object("rope_scaling")?,
    };
    read_from(raw, parameters.as_deref(), d_head, n_context, defaults)
}

/// Rotary positions of the layers of one type: `rope_parameters[layer_type]`.
pub(super) fn read_type(
    raw: &RawConfig,
    layer_type: &str,
    d_head: usize,
    n_context: usize,
    defaults: &Defaults,
) -> Result<Rotary> {
    let nested = match raw.object("rope_parameters")? {
        Some(parameters) if parameters.has(layer_type) => parameters.object(layer_type)?,
        _ => return Err(raw.unsupported("rope_parameters", "it must hold one dictionary per type of layer")),
    };
    let rotary = read_from(raw, nested.as_deref(), d_head, n_context, defaults)?;
    as_of_a_layer_type(raw, "rope_parameters", rotary)
}

/// The class looks for `truncate` one level up, where it cannot be.
fn as_of_a_layer_type(raw: &RawConfig, key: &str, rotary: Rotary) -> Result<Rotary> {
    match rotary.scaling {
        RotaryScaling::Yarn { truncate: false, .. } => {
            Err(raw.unsupported(key, "truncate is not read from the dictionary of a layer type"))
        }
        _ => Ok(rotary),
    }
}

fn read_from(
    raw: &RawConfig,
    parameters: Option<&RawConfig>,
    d_head: usize,
    n_context: usize,
    defaults: &Defaults,
) -> Result<Rotary> {
    let within = |key: &str, default: f64| parameters.map_or(Ok(default), |p| p.positive(key, default));
    let theta = within("rope_theta", raw.positive("rope_theta", defaults.theta)?)?;
    let share = raw.positive("partial_rotary_factor", defaults.share.unwrap_or(1.0))?;
    let share = within("partial_rotary_factor", share)?;
    if share > 1.0 {
        return Err(raw.invalid("partial_rotary_factor", share, "a share of at most 1"));
    }
    if defaults.share.is_none() && share != 1.0 {
        return Err(
            raw.unsupported("partial_rotary_factor", "the class of this family turns whole heads whatever it says")
        );
    }
    let dim = (d_head as f64 * share) as usize;
    if dim == 0 || !dim.is_multiple_of(2) {
        return Err(raw.invalid(
            "partial_rotary_factor",
            format!("{dim} of {d_head} numbers"),
            "an even number of them",
        ));
    }
    let scaling = match parameters {
        Some(p) => scaling(raw, p, dim, n_context, defaults.original)?,
        None => {
            raw.ignore(&["original_max_position_embeddings"]); // of a scaling that there is not
            RotaryScaling::Default
        }
    };
    Ok(Rotary { dim, theta, style: defaults.style, scaling })
}

fn scaling(
    raw: &RawConfig,
    p: &RawConfig,
    dim: usize,
    n_context: usize,
    beside: Option<usize>,
) -> Result<RotaryScaling> {
    let kind = p.text("rope_type")?.or(p.text("type")?).unwrap_or_else(|| "default".into());
    let required = |key: &str| {
        let found = p.optional_positive(key)?;
        found.ok_or_else(|| p.invalid(key, "missing", format!("a number, for rotary scaling {kind:?}")))
    };
    // beside the parameters (Phi-3) it has priority
    let original = || match raw.optional_count("original_max_position_embeddings", limits::CONTEXT)?.or(beside) {
        Some(n) => p.count("original_max_position_embeddings", n, limits::CONTEXT).map(|_| n),
        None => p.count("original_max_position_embeddings", n_context, limits::CONTEXT),
    };
    Ok(match kind.as_str() {
        "default" => {
            original()?;
            RotaryScaling::Default
        }
        "linear" => RotaryScaling::Linear { factor: required("factor")? },
        "dynamic" => {
            original()?;
            RotaryScaling::Dynamic { factor: required("factor")?, original: n_context }
        }
        "llama3" => RotaryScaling::Llama3 {
            factor: required("factor")?,
            low: required("low_freq_factor")?,
            high: required("high_freq_factor")?,
            original: original()?,
        },
        "yarn" => yarn(p, original()?, n_context)?,
        "longrope" | "su" => {
            let original = original()?;
            let factor = p.positive("factor", n_context as f64 / original as f64)?;
            let default = if factor <= 1.0 { 1.0 } else { (1.0 + factor.ln() / (original as f64).ln()).sqrt() };
            let list = |key: &str| {
                let list = p.positives(key)?.filter(|list| list.len() == dim / 2);
                list.ok_or_else(|| p.invalid(key, "missing or of another length", format!("{} factors", dim / 2)))
            };
            let attention_factor = p.positive("attention_factor", default)?;
            RotaryScaling::LongRope {
                short: list("short_factor")?,
                long: list("long_factor")?,
                original,
                attention_factor,
            }
        }
        _ => {
            let key = if p.has("rope_type") { "rope_type" } else { "type" };
            return Err(p.unsupported(key, "rope types: default, linear, dynamic, llama3, yarn, longrope"));
        }
    })
}

fn yarn(p: &RawConfig, original: usize, n_context: usize) -> Result<RotaryScaling> {
    let factor = p.positive("factor", n_context as f64 / original as f64)?;
    let mscale = |m: f64| if factor <= 1.0 { 1.0 } else { 0.1 * m * factor.ln() + 1.0 };
    let [all, one] = ["mscale_all_dim", "mscale"].map(|key| p.optional_positive(key));
    let default = match (one?, all?) {
        (Some(one), Some(all)) => mscale(one) / mscale(all),
        _ => mscale(1.0),
    };
    Ok(RotaryScaling::Yarn {
        factor,
        beta_fast: p.positive("beta_fast", 32.0)?,
        beta_slow: p.positive("beta_slow", 1.0)?,
        truncate: p.flag("truncate", true)?,
        original,
        attention_factor: p.positive("attention_factor", default)?,
    })
}

/// Rotary positions by the type of each layer: those with a window have `sliding_attention`'s. `full` and `local` are
/// the θs where `rope_parameters` names none. In the older spelling `rope_scaling` is of the full layers only.
pub(super) fn by_layer_type(raw: &RawConfig, config: &mut super::ModelConfig, full: f64, local: f64) -> Result<()> {
    let (d_head, n_context) = (config.d_head, raw.count("max_position_embeddings", config.n_context, limits::CONTEXT)?);
    let defaults = |theta| Defaults { theta, share: None, style: RotaryStyle::Halves, original: None };
    let (full, local) = match raw.object("rope_parameters")? {
        Some(_) => (
            read_type(raw, "full_attention", d_head, n_context, &defaults(full))?,
            read_type(raw, "sliding_attention", d_head, n_context, &defaults(local))?,
        ),
        None => {
            let plain =
                Rotary { dim: d_head, theta: local, style: RotaryStyle::Halves, scaling: RotaryScaling::Default };
            // the class writes it over `rope_type: default`, under which a `type` beside it goes unread
            if raw.object("rope_scaling")?.is_some_and(|scaling| scaling.has("type") && !scaling.has("rope_type")) {
                return Err(raw.unsupported("rope_scaling", "here its kind must stand as rope_type, not as type"));
            }
            let full = read(raw, d_head, n_context, &defaults(full))?;
            (as_of_a_layer_type(raw, "rope_scaling", full)?, plain)
        }
    };
    let layers = config.windows.iter().map(|w| Some(if w.is_some() { local.clone() } else { full.clone() })).collect();
    config.positions = Positions::Rotary { layers };
    config.n_context = longest(&config.positions, n_context);
    Ok(())
}

/// Whether the config says how angles are scaled; a θ without it would be ignored by the class.
pub(super) fn names_a_scaling(raw: &RawConfig) -> Result<bool> {
    let named = raw.has("rope_parameters") || raw.object("rope_scaling")?.is_some_and(|scaling| !scaling.is_empty());
    if !named && raw.has("rope_theta") {
        return Err(raw.unsupported("rope_theta", "the class ignores it without rope_parameters or rope_scaling"));
    }
    Ok(named)
}

/// The same in every layer.
pub(super) fn every_layer(rotary: Rotary, n_layers: usize) -> Positions {
    Positions::Rotary { layers: vec![Some(rotary); n_layers] }
}

/// No positions in the layers without a window.
pub(super) fn only_in_windows(config: &mut super::ModelConfig) {
    if let Positions::Rotary { layers } = &mut config.positions {
        layers.iter_mut().zip(&config.windows).filter(|(_, w)| w.is_none()).for_each(|(rotary, _)| *rotary = None);
    }
}

/// The longest prompt: dynamic scaling is there to go beyond `max_position_embeddings`, up to its factor.
pub(super) fn longest(positions: &Positions, n_context: usize) -> usize {
    let Positions::Rotary { layers } = positions else { return n_context };
    let growth = layers.iter().flatten().map(|r| match r.scaling {
        RotaryScaling::Dynamic { factor, .. } => factor.max(1.0),
        _ => 1.0,
    });
    let factor = growth.fold(1.0, f64::max);
    ((n_context as f64 * factor) as usize).min(limits::CONTEXT)
}
