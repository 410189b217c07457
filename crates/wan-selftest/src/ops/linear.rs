use candle_core::{DType, Device, Tensor};
use wan_core::Stored;
use wan_ops::{Activation, Linear, Precision, RowFormat, Rows, quantise};
use wan_pipeline::Result;

use super::{Case, FLOATS, GROUP, Gate, Scale, sampled, short};
use crate::reference::{Format, Matrix, activation, linear, round_row_to_e4m3};
use crate::synthesis::{normal, stored};
use crate::{Check, Runner};

/// One product.
#[derive(Debug, Clone, Copy)]
struct Product {
    rows: usize,
    inputs: usize,
    outputs: usize,
    weight: DType,
    dtype: DType,
    precision: Precision,
    follows: Follows,
}

/// What becomes of a product.
#[derive(Debug, Clone, Copy)]
enum Follows {
    /// An activation, in the same call.
    Activation(Activation),
    /// Rows come in so many parts, and another op applies scales and bias.
    Another { parts: usize },
}

/// Small products: one row, odd sizes, and more than a tile of everything.
const SMALL: [[usize; 3]; 4] = [[1, 16, 16], [7, 33, 5], [33, 96, 64], [130, 256, 192]];
/// Inputs and outputs of the 14B model's blocks: q, k and v together; o; the feed-forward.
const BLOCK: [[usize; 2]; 4] = [[5120, 15360], [5120, 5120], [5120, 13824], [13824, 5120]];

pub fn run(runner: &mut Runner<'_>, device: &Device, scale: Scale) {
    let plain = Follows::Activation(Activation::Identity);
    for [rows, inputs, outputs] in SMALL {
        for dtype in FLOATS {
            for weight in [DType::F32, DType::BF16, DType::F8E4M3] {
                let precision = Precision::Bf16;
                let product = Product { rows, inputs, outputs, weight, dtype, precision, follows: plain };
                row(runner, device, scale, product);
            }
        }
        let (weight, dtype, precision) = (DType::F8E4M3, DType::BF16, Precision::Fp8);
        for follows in [plain, Follows::Activation(Activation::GeluTanh)] {
            let product = Product { rows, inputs, outputs, weight, dtype, precision, follows };
            row(runner, device, scale, product);
        }
        for precision in [Precision::Bf16, Precision::Fp8] {
            let follows = Follows::Another { parts: rows.div_ceil(30) };
            let product = Product { rows, inputs, outputs, weight, dtype, precision, follows };
            row(runner, device, scale, product);
        }
    }
    for [inputs, outputs] in BLOCK.into_iter().take(if scale.full { 4 } else { 0 }) {
        for precision in [Precision::Bf16, Precision::Fp8] {
            let (rows, weight, dtype) = (scale.tokens, DType::F8E4M3, DType::BF16);
            let product = Product { rows, inputs, outputs, weight, dtype, precision, follows: plain };
            row(runner, device, scale, product);
        }
    }
}

fn row(runner: &mut Runner<'_>, device: &Device, scale: Scale, p: Product) {
    let precision = if p.precision == Precision::Fp8 { " in fp8" } else { "" };
    let follows = match p.follows {
        Follows::Activation(Activation::Identity) => "",
        Follows::Activation(_) => " gelu",
        Follows::Another { .. } => " in parts",
    };
    let (rows, outputs, inputs) = (p.rows, p.outputs, p.inputs);
    let name = format!(
        "linear {}{precision}{follows} {} {rows}x{outputs}x{inputs}",
        short(p.weight),
        short(p.dtype)
    );
    runner.row(GROUP, name, || p.check(device, scale));
}

impl Product {
    fn check(&self, device: &Device, scale: Scale) -> Result<Vec<Check>> {
        let x = normal(self.dtype, &[self.rows, self.inputs], 1.0, scale.seed)?;
        let deviation = 1.0 / (self.inputs as f32).sqrt();
        let weight = stored("weight", self.weight, &[self.outputs, self.inputs], deviation, scale.seed + 1)?;
        let bias = normal(self.dtype, &[self.outputs], 0.5, scale.seed + 2)?.to_dtype(DType::F32)?;
        let run = |device: &Device| {
            let layer =
                Linear::new(weight.clone(), Some(bias.to_device(device)?)).with_precision(self.precision);
            let x = x.to_device(device)?;
            match self.follows {
                Follows::Activation(activation) => Ok(layer.forward_act(&x, activation)?),
                Follows::Another { parts } => self.in_parts(&layer, &x, parts),
            }
        };
        let biases = Matrix::of(&bias)?.values;
        let wide = widened(&weight, self.outputs)?;
        let reference = |format: Format, rows: &[usize]| {
            let mut x = Matrix::rows_of(&x, rows)?;
            if format != Format::Exact && self.precision == Precision::Fp8 {
                x.values.chunks_mut(self.inputs).for_each(round_row_to_e4m3);
            }
            let y = linear(format, &x, &wide, Some(&biases));
            Ok(match self.follows {
                Follows::Activation(function) => activation(format, &y, function),
                Follows::Another { .. } => y,
            })
        };
        let case = Case {
            dtype: self.dtype,
            rows: sampled(self.rows),
            run: &run,
            reference: &reference,
            gate: Gate::TwiceEager,
            against_cpu: self.rows * self.inputs * self.outputs < 1 << 32,
        };
        case.check(device)
    }

    fn in_parts(&self, layer: &Linear, x: &Tensor, parts: usize) -> Result<Tensor> {
        let length = self.rows.div_ceil(parts);
        let rows = (0..self.rows).step_by(length).map(|start| {
            let part = x.narrow(0, start, length.min(self.rows - start))?;
            Ok(match layer.row_format(x.device(), x.dtype()) {
                RowFormat::Float(_) => Rows::Float(part),
                RowFormat::Quantised(_) => quantise(&part)?.into(),
            })
        });
        Ok(layer.forward_parts(x.device(), (self.rows, x.dtype()), rows)?.finish()?)
    }
}

fn widened(weight: &Stored, rows: usize) -> Result<Matrix> {
    let values: Vec<f64> = weight.to_f32_vec()?.into_iter().map(f64::from).collect();
    Ok(Matrix { columns: values.len() / rows.max(1), values })
}
