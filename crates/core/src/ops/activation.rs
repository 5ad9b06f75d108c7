//! Activations of the MLP, element by element.

use crate::error::Result;
use candle_core::Tensor;
use serde::Serialize;

/// An activation, named as in Hugging Face's `ACT2FN`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// `0.5 x (1 + tanh(√(2/π) (x + 0.044715 x³)))`
    GeluNew,
    /// `0.5 x (1 + erf(x / √2))`
    Gelu,
    /// `max(x, 0)`
    Relu,
    /// `max(x, 0)²`
    Relu2,
    /// `x σ(x)`
    Silu,
    /// `x σ(1.702 x)`
    QuickGelu,
}

/// Names in config files; several stand for the same function.
const NAMES: [(&str, Activation); 9] = [
    ("gelu_new", Activation::GeluNew),
    ("gelu_pytorch_tanh", Activation::GeluNew),
    ("gelu_fast", Activation::GeluNew),
    ("gelu", Activation::Gelu),
    ("relu", Activation::Relu),
    ("relu2", Activation::Relu2),
    ("silu", Activation::Silu),
    ("swish", Activation::Silu),
    ("quick_gelu", Activation::QuickGelu),
];

impl Activation {
    /// By its name in a config.
    pub fn by_name(name: &str) -> Option<Self> {
        NAMES.iter().find(|(known, _)| *known == name).map(|(_, activation)| *activation)
    }

    /// The names that [`Activation::by_name`] knows.
    pub fn names() -> String {
        NAMES.map(|(name, _)| name).join(", ")
    }

    /// Applies it to every element.
    ///
    /// # Errors
    /// `INTERNAL` where the tensor is not of floats.
    pub fn apply(self, x: &Tensor) -> Result<Tensor> {
        Ok(match self {
            Activation::GeluNew => x.gelu()?,
            Activation::Gelu => x.gelu_erf()?,
            Activation::Relu => x.relu()?,
            Activation::Relu2 => x.relu()?.sqr()?,
            Activation::Silu => x.silu()?,
            // x / (1 + exp(−1.702 x))
            Activation::QuickGelu => x.div(&((x * -1.702)?.exp()? + 1.0)?)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::close;

    /// Values of `torch.nn.functional` in float64 at these points.
    const X: [f32; 8] = [-6.0, -2.5, -1.0, -0.125, 0.0, 0.5, 1.75, 40.0];

    fn check(name: &str, expected: [f64; 8]) {
        let x = Tensor::new(&X, &candle_core::Device::Cpu).unwrap();
        close(&Activation::by_name(name).unwrap().apply(&x).unwrap(), &expected, 1e-6);
    }

    #[test]
    fn against_published_formulas() {
        let by = |f: fn(f64) -> f64| X.map(|x| f(f64::from(x)));
        for name in ["gelu_new", "gelu_pytorch_tanh", "gelu_fast"] {
            check(
                name,
                by(|x| 0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh())),
            );
        }
        check("relu", by(|x| x.max(0.0)));
        check("relu2", by(|x| if x > 0.0 { x * x } else { 0.0 }));
        check("silu", by(|x| x / (1.0 + (-x).exp())));
        check("swish", by(|x| x / (1.0 + (-x).exp())));
        check("quick_gelu", by(|x| x / (1.0 + (-1.702 * x).exp())));
        // erf has no closed form: 0.5 x (1 + erf(x/√2)) with Python's math.erf
        check(
            "gelu",
            [
                -5.919525869479969e-09,
                -0.015524163314440398,
                -0.15865525393145707,
                -0.056282721896235885,
                0.0,
                0.34573123063700656,
                1.67989647548832,
                40.0,
            ],
        );
    }

    #[test]
    fn names() {
        assert_eq!(Activation::by_name("mish"), None);
        assert_eq!(Activation::names().split(", ").count(), 9);
        assert!(Activation::names().contains("gelu_new"));
    }
}
