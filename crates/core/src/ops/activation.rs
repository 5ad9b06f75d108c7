//! Activations of the MLP, element by element, alone and as gates.

use super::Kernels;
use super::cpu::Isa;
use super::cpu::math::{normal_cdf, sigmoid};
use super::cpu::parallel::split;
use super::cpu::simd::{Kernel, Simd};
use super::cpu::tensor::{Fresh, Rows};
use crate::config::ClampedSwiglu;
use crate::error::Result;
use candle_core::Tensor;
use serde::Serialize;
use std::f32::consts::{FRAC_2_SQRT_PI, SQRT_2};

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
    /// # Shapes
    /// x [rows, …] → the same.
    ///
    /// # Errors
    /// `INTERNAL` where the tensor is not of floats.
    pub fn apply(self, kernels: Kernels, x: &Tensor) -> Result<Tensor> {
        match kernels {
            Kernels::Plain => self.plain(x),
            Kernels::Fused(isa) => fused(isa, x, None, Function::Of(self)),
        }
    }

    fn plain(self, x: &Tensor) -> Result<Tensor> {
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

/// `act(gate) ⊙ up`, or the clamped form of gpt-oss, `(up + 1) ⊙ gate σ(α gate)`, gate at most, up within ± its limit.
///
/// # Shapes
/// gate, up [rows, …] → the same.
///
/// # Errors
/// `INTERNAL` where shapes differ.
pub fn gated(
    kernels: Kernels,
    activation: Activation,
    clamped: Option<ClampedSwiglu>,
    gate: &Tensor,
    up: &Tensor,
) -> Result<Tensor> {
    match (kernels, clamped) {
        (Kernels::Fused(isa), _) if gate.dims() == up.dims() => {
            let function = clamped.map_or(Function::Of(activation), Function::Clamped);
            fused(isa, gate, Some(up), function)
        }
        (_, None) => Ok((activation.plain(&gate.contiguous()?)? * up.contiguous()?)?),
        (_, Some(ClampedSwiglu { alpha, limit })) => {
            let gate = gate.minimum(limit)?;
            let up = up.clamp(-limit, limit)?;
            let sigmoid = ((&gate * -alpha)?.exp()? + 1.0)?.recip()?; // σ(alpha · gate)
            Ok(((up + 1.0)? * (gate * sigmoid)?)?)
        }
    }
}

/// What a kernel computes of a number, or of a gate and the number behind it.
#[derive(Clone, Copy)]
enum Function {
    Of(Activation),
    Clamped(ClampedSwiglu),
}

fn fused(isa: Isa, x: &Tensor, up: Option<&Tensor>, function: Function) -> Result<Tensor> {
    let shape = x.shape();
    let (x, up) = (Rows::of(x)?, up.map(Rows::of).transpose()?);
    let numbers = x.numbers()?;
    let of_up = up.as_ref().map(Rows::numbers).transpose()?;
    let width = x.width;
    let mut y = Fresh::new(shape);
    let place = y.place();
    split(x.n, 16, 1, &|rows| {
        for row in rows {
            let up = up.as_ref().zip(of_up.as_ref()).map(|(up, n)| &n[row * up.stride..][..width]);
            isa.run(Apply { x: &numbers[row * x.stride..][..width], up, y: place.at(row * width), function });
        }
    });
    // SAFETY: row by row
    unsafe { y.written() }
}

/// One row.
struct Apply<'a> {
    x: &'a [f32],
    up: Option<&'a [f32]>,
    /// As many numbers as x has, not initialised.
    y: *mut f32,
    function: Function,
}

impl Kernel for Apply<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self) {
        match self.function {
            Function::Of(Activation::GeluNew) => self.each::<S>(gelu_new::<S>),
            Function::Of(Activation::Gelu) => self.each::<S>(|x| x * normal_cdf::<S>(x)),
            Function::Of(Activation::Relu) => self.each::<S>(relu),
            Function::Of(Activation::Relu2) => self.each::<S>(|x| relu(x) * relu(x)),
            Function::Of(Activation::Silu) => self.each::<S>(|x| x * sigmoid::<S>(x)),
            Function::Of(Activation::QuickGelu) => self.each::<S>(|x| x * sigmoid::<S>(1.702 * x)),
            Function::Clamped(ClampedSwiglu { alpha, limit }) => {
                let (alpha, limit) = (alpha as f32, limit as f32);
                self.both(|gate, up| {
                    let gate = if gate > limit { limit } else { gate };
                    (up.clamp(-limit, limit) + 1.0) * (gate * sigmoid::<S>(alpha * gate))
                });
            }
        }
    }
}

impl Apply<'_> {
    #[inline(always)]
    fn each<S: Simd>(self, f: impl Fn(f32) -> f32) {
        if self.up.is_some() {
            return self.both(|gate, up| f(gate) * up);
        }
        for (i, x) in self.x.iter().enumerate() {
            // SAFETY: y has as many numbers
            unsafe { self.y.add(i).write(f(*x)) };
        }
    }

    #[inline(always)]
    fn both(self, f: impl Fn(f32, f32) -> f32) {
        for (i, (gate, up)) in self.x.iter().zip(self.up.unwrap_or_default()).enumerate() {
            // SAFETY: y has as many numbers
            unsafe { self.y.add(i).write(f(*gate, *up)) };
        }
    }
}

/// `x σ(2u)`, for `(1 + tanh u) / 2 = σ(2u)`: nothing cancels where the result is small.
#[inline(always)]
fn gelu_new<S: Simd>(x: f32) -> f32 {
    const TWICE_ROOT: f32 = SQRT_2 * FRAC_2_SQRT_PI; // 2 √(2/π)
    let twice_u = TWICE_ROOT * x * S::mul_add(0.044_715 * x, x, 1.0);
    x * sigmoid::<S>(twice_u)
}

/// NaN stays NaN.
#[inline(always)]
fn relu(x: f32) -> f32 {
    if x <= 0.0 { 0.0 } else { x }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{close, device, matrix, test_device, values};

    /// Values of `torch.nn.functional` in float64 at these points.
    const X: [f32; 8] = [-6.0, -2.5, -1.0, -0.125, 0.0, 0.5, 1.75, 40.0];

    fn check(name: &str, expected: [f64; 8]) {
        let x = Tensor::new(&X, &device()).unwrap();
        for kernels in Kernels::all() {
            close(&Activation::by_name(name).unwrap().apply(kernels, &x).unwrap(), &expected, 1e-6);
        }
    }

    test_device!(against_published_formulas);
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

    const ALL: [Activation; 6] = [
        Activation::GeluNew,
        Activation::Gelu,
        Activation::Relu,
        Activation::Relu2,
        Activation::Silu,
        Activation::QuickGelu,
    ];

    test_device!(kernels_are_their_plain_twin_at_odd_sizes_alone_and_as_gates);
    fn kernels_are_their_plain_twin_at_odd_sizes_alone_and_as_gates() {
        let clamped = [None, Some(ClampedSwiglu { alpha: 1.702, limit: 0.7 })];
        for width in [1, 7, 16, 33, 130] {
            let both = (matrix(&[3, 2 * width], 1) * 4.0).unwrap();
            let half = |i: usize| both.narrow(1, i * width, width).unwrap(); // rows lie apart
            let (gate, up) = (half(0), half(1));
            for (activation, kernels) in ALL.into_iter().flat_map(|a| Kernels::all().into_iter().map(move |k| (a, k))) {
                let expected = values(&activation.plain(&gate).unwrap());
                close(&activation.apply(kernels, &gate).unwrap(), &expected, 1e-6);
                for clamped in clamped {
                    let expected = values(&gated(Kernels::Plain, activation, clamped, &gate, &up).unwrap());
                    close(&gated(kernels, activation, clamped, &gate, &up).unwrap(), &expected, 1e-6);
                }
            }
        }
        assert!(gated(Kernels::default(), ALL[0], None, &matrix(&[2, 3], 1), &matrix(&[2, 4], 1)).is_err());
    }

    #[test]
    fn what_is_not_a_number_stays_so_and_huge_numbers_do_no_harm() {
        let x = Tensor::new(&[f32::NAN, 1e30, f32::INFINITY, -1e18, 1e-42, -0.0], &device()).unwrap();
        for isa in Isa::available() {
            for activation in ALL {
                let y = values(&activation.apply(Kernels::Fused(isa), &x).unwrap());
                let huge = if activation == Activation::Relu2 { f64::INFINITY } else { f64::from(1e30f32) };
                assert!(y[0].is_nan(), "{activation:?}");
                assert_eq!((y[1], y[2]), (huge, f64::INFINITY), "{activation:?}");
                assert_eq!(y[3..].iter().map(|y| y.abs() > 1e-40).collect::<Vec<_>>(), [false; 3], "{activation:?}");
            }
        }
    }
}
