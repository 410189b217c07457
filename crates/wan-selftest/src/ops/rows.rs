//! Norms, residual sums, rotary positions and activations: ops over the rows of a matrix.

use candle_core::{DType, Device, Tensor};
use wan_ops::{
    Activation, Affine, RowFormat, activate, channel_rms_norm, gated_residual, layer_norm,
    residual_layer_norm, rms_norm, rms_norm_rope,
};
use wan_pipeline::Result;

use super::{Case, FLOATS, GROUP, Gate, Scale, sampled, short};
use crate::reference::{self, Format, Matrix};
use crate::synthesis::normal;
use crate::{Check, Runner};

const EPS: f64 = 1e-6;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Op {
    LayerNorm,
    LayerNormWeights,
    LayerNormModulated,
    GatedResidual,
    /// The residual stream in f32, what is added in the row's dtype.
    ResidualLayerNorm,
    RmsNorm,
    RmsNormRope,
    ChannelRmsNorm(Activation),
    Activate(Activation),
}

impl Op {
    fn name(self) -> String {
        match self {
            Self::LayerNorm => "layer_norm".into(),
            Self::LayerNormWeights => "layer_norm weights".into(),
            Self::LayerNormModulated => "layer_norm modulated".into(),
            Self::GatedResidual => "gated_residual".into(),
            Self::ResidualLayerNorm => "residual_layer_norm".into(),
            Self::RmsNorm => "rms_norm".into(),
            Self::RmsNormRope => "rms_norm_rope".into(),
            Self::ChannelRmsNorm(f) => format!("channel_rms_norm {f:?}"),
            Self::Activate(f) => format!("activate {f:?}"),
        }
    }

    /// A length of rows that takes more than one step of a block's threads.
    fn wide(self) -> usize {
        match self {
            // The most that its kernel takes.
            Self::ChannelRmsNorm(_) => 1024,
            _ => 1280,
        }
    }

    /// Length of the op's rows in the 14B model or the VAE.
    fn full_width(self) -> usize {
        match self {
            Self::ChannelRmsNorm(_) => 384,
            Self::Activate(_) => 13824,
            _ => 5120,
        }
    }
}

const OPS: [Op; 12] = [
    Op::LayerNorm,
    Op::LayerNormWeights,
    Op::LayerNormModulated,
    Op::GatedResidual,
    Op::ResidualLayerNorm,
    Op::RmsNorm,
    Op::RmsNormRope,
    Op::ChannelRmsNorm(Activation::Identity),
    Op::ChannelRmsNorm(Activation::Silu),
    Op::Activate(Activation::GeluTanh),
    Op::Activate(Activation::GeluErf),
    Op::Activate(Activation::Silu),
];

pub fn run(runner: &mut Runner<'_>, device: &Device, scale: Scale) {
    for op in OPS {
        for dtype in FLOATS {
            for shape in [[1, 8], [3, 96], [33, 256], [5, op.wide()]] {
                row(runner, device, scale, op, dtype, shape);
            }
        }
        if scale.full {
            row(runner, device, scale, op, DType::BF16, [scale.tokens, op.full_width()]);
        }
    }
}

fn row(runner: &mut Runner<'_>, device: &Device, scale: Scale, op: Op, dtype: DType, shape: [usize; 2]) {
    let name = format!("{} {} {}x{}", op.name(), short(dtype), shape[0], shape[1]);
    runner.row(GROUP, name, || Inputs::new(op, dtype, shape, scale.seed)?.check(device));
}

/// What any of the ops reads.
struct Inputs {
    op: Op,
    dtype: DType,
    rows: usize,
    /// `[rows, dim]`; a residual stream is f32.
    x: Tensor,
    /// `[rows, dim]`.
    y: Tensor,
    /// `[dim]` f32 each.
    sides: [Tensor; 3],
    /// `[rows, D / 2, 2]` f32.
    rope: Tensor,
}

impl Inputs {
    fn new(op: Op, dtype: DType, [rows, dim]: [usize; 2], seed: u64) -> Result<Self> {
        let side = |n: u64| normal(DType::F32, &[dim], 0.3, seed + n);
        let stream = if op == Op::ResidualLayerNorm { DType::F32 } else { dtype };
        let angles = normal(DType::F32, &[rows, dim.min(128) / 2, 1], 3.0, seed + 5)?;
        Ok(Self {
            op,
            dtype,
            rows,
            x: normal(stream, &[rows, dim], 2.0, seed)?,
            y: normal(dtype, &[rows, dim], 1.0, seed + 1)?,
            sides: [side(2)?, (side(3)? + 1.0)?, side(4)?],
            rope: Tensor::cat(&[angles.cos()?, angles.sin()?], 2)?,
        })
    }

    fn check(&self, device: &Device) -> Result<Vec<Check>> {
        let case = Case {
            dtype: self.dtype,
            rows: sampled(self.rows),
            run: &|device| self.run(device),
            reference: &|format, rows| self.reference(format, rows),
            gate: Gate::TwiceEager,
            against_cpu: true,
        };
        case.check(device)
    }

    fn run(&self, device: &Device) -> Result<Tensor> {
        let on = |t: &Tensor| t.to_device(device);
        let (x, y) = (on(&self.x)?, on(&self.y)?);
        let [shift, weight, scale] = [on(&self.sides[0])?, on(&self.sides[1])?, on(&self.sides[2])?];
        let modulation = Affine::Modulation { shift: &shift, scale: &scale };
        let eps = EPS as f32;
        Ok(match self.op {
            Op::LayerNorm => layer_norm(&x, eps, Affine::None)?,
            Op::LayerNormWeights => layer_norm(&x, eps, Affine::Weights { weight: &weight, bias: &shift })?,
            Op::LayerNormModulated => layer_norm(&x, eps, modulation)?,
            Op::GatedResidual => gated_residual(&x, &y, Some(&scale))?,
            Op::ResidualLayerNorm => {
                let format = RowFormat::Float(self.dtype);
                residual_layer_norm(&x, &y, Some(&weight), eps, modulation, format)?.1.into_values()?
            }
            Op::RmsNorm => rms_norm(&x, &weight, eps)?,
            Op::RmsNormRope => rms_norm_rope(&x, &weight, eps, &on(&self.rope)?)?,
            Op::ChannelRmsNorm(f) => channel_rms_norm(&x, &weight, f)?,
            Op::Activate(f) => activate(&x, f)?,
        })
    }

    fn reference(&self, format: Format, rows: &[usize]) -> Result<Matrix> {
        let x = Matrix::rows_of(&self.x, rows)?;
        let y = Matrix::rows_of(&self.y, rows)?;
        let sides = self.sides.each_ref().map(|side| Matrix::of(side).map(|m| m.values));
        let [shift, weight, scale] = sides;
        let (shift, weight, scale) = (shift?, weight?, scale?);
        let factor: Vec<f64> = scale.iter().map(|s| format.round(1.0 + s)).collect();
        let modulated = |x: &Matrix| reference::layer_norm(format, x, EPS, Some(&factor), Some(&shift));
        Ok(match self.op {
            Op::LayerNorm => reference::layer_norm(format, &x, EPS, None, None),
            Op::LayerNormWeights => reference::layer_norm(format, &x, EPS, Some(&weight), Some(&shift)),
            Op::LayerNormModulated => modulated(&x),
            Op::GatedResidual => reference::add_gated(format, &x, &y, Some(&scale)),
            Op::ResidualLayerNorm => modulated(&reference::add_gated(format, &x, &y, Some(&weight))),
            Op::RmsNorm => reference::rms_norm(format, &x, &weight, EPS),
            Op::RmsNormRope => {
                let normed = reference::rms_norm(format, &x, &weight, EPS);
                let table = Matrix::rows_of(&self.rope.flatten_from(1)?, rows)?;
                reference::rope(format, &normed, &table)
            }
            Op::ChannelRmsNorm(f) => {
                let normed = reference::channel_rms_norm(format, &x, &weight);
                reference::activation(format, &normed, f)
            }
            Op::Activate(f) => reference::activation(format, &x, f),
        })
    }
}
