use candle_core::{DType, Device, Tensor};
use wan_core::weights::BlockFormat;
use wan_core::{Delta, Stored};
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
    weight: Weight,
    dtype: DType,
    precision: Precision,
    follows: Follows,
}

/// How a weight is stored.
#[derive(Debug, Clone, Copy)]
enum Weight {
    /// Values of their own.
    Plain(DType),
    /// Blocks of GGUF.
    Blocks(BlockFormat),
}

impl Weight {
    fn name(self) -> String {
        match self {
            Self::Plain(dtype) => short(dtype).to_string(),
            Self::Blocks(format) => format.name().to_lowercase(),
        }
    }

    /// Standard normal values times `deviation`.
    fn make(self, shape: &[usize], deviation: f32, seed: u64) -> Result<Stored> {
        Ok(match self {
            Self::Plain(dtype) => stored("weight", dtype, shape, deviation, seed)?,
            Self::Blocks(format) => {
                Stored::quantised("weight", format, &normal(DType::F32, shape, deviation, seed)?)?
            }
        })
    }
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
            for weight in [DType::F32, DType::BF16, DType::F8E4M3].map(Weight::Plain) {
                let precision = Precision::Bf16;
                let product = Product { rows, inputs, outputs, weight, dtype, precision, follows: plain };
                row(runner, device, scale, product);
            }
        }
        let (weight, dtype, precision) = (Weight::Plain(DType::F8E4M3), DType::BF16, Precision::Fp8);
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
    for weight in BlockFormat::ALL.map(Weight::Blocks) {
        for dtype in FLOATS {
            let (rows, inputs, outputs, precision) = (33, 512, 67, Precision::Bf16);
            let product = Product { rows, inputs, outputs, weight, dtype, precision, follows: plain };
            row(runner, device, scale, product);
        }
    }
    changed(runner, device, scale);
    for [inputs, outputs] in BLOCK.into_iter().take(if scale.full { 4 } else { 0 }) {
        for precision in [Precision::Bf16, Precision::Fp8] {
            let (rows, weight, dtype) = (scale.tokens, Weight::Plain(DType::F8E4M3), DType::BF16);
            let product = Product { rows, inputs, outputs, weight, dtype, precision, follows: plain };
            row(runner, device, scale, product);
        }
    }
}

/// Products with changes of the weight beside it, of low rank and of full: each is rounded for itself.
fn changed(runner: &mut Runner<'_>, device: &Device, scale: Scale) {
    for (precision, name, limit) in [(Precision::Bf16, "", 1e-2), (Precision::Fp8, " in fp8", 6e-2)] {
        for [rows, inputs, outputs] in [[7, 32, 48], [130, 256, 192]] {
            let name = format!("linear lora e4m3{name} bf16 {rows}x{outputs}x{inputs}");
            let sizes = [rows, inputs, outputs];
            runner.row(GROUP, name, || check_changed(device, scale, precision, sizes, limit));
        }
    }
}

fn check_changed(
    device: &Device,
    scale: Scale,
    precision: Precision,
    [rows, inputs, outputs]: [usize; 3],
    limit: f64,
) -> Result<Vec<Check>> {
    const RANK: usize = 3;
    let (dtype, seed) = (DType::BF16, scale.seed);
    let deviation = |columns: usize| 1.0 / (columns as f32).sqrt();
    let matrix = |name: &'static str, dtype, rows, columns, n: u64| {
        stored(name, dtype, &[rows, columns], deviation(columns), seed + n)
    };
    let x = normal(dtype, &[rows, inputs], 1.0, seed)?;
    let bias = normal(dtype, &[outputs], 0.5, seed + 2)?.to_dtype(DType::F32)?;
    let weight = matrix("weight", DType::F8E4M3, outputs, inputs, 1)?;
    let deltas = vec![
        Delta::LowRank {
            down: matrix("down", DType::BF16, RANK, inputs, 3)?,
            up: matrix("up", DType::F16, outputs, RANK, 4)?,
            scale: 0.5,
        },
        Delta::Full { diff: matrix("diff", DType::BF16, outputs, inputs, 5)?, scale: -0.25 },
    ];
    let layer = |device: &Device| -> Result<Linear> {
        let plain = Linear::new(weight.clone(), Some(bias.to_device(device)?)).with_precision(precision);
        Ok(plain.with_deltas(deltas.clone())?)
    };
    let run = |device: &Device| {
        let (layer, x) = (layer(device)?, x.to_device(device)?);
        let first = rows / 2;
        let parts = [x.narrow(0, 0, first)?, x.narrow(0, first, rows - first)?];
        let parts = parts.into_iter().map(|part| Ok(Rows::Float(part)));
        // As it comes from attention, and as it comes from a hidden layer's chunks.
        let whole = layer.forward_act(&x, Activation::Identity)?;
        let sums = layer.forward_parts(x.device(), (rows, dtype), parts)?.finish()?;
        Ok(Tensor::cat(&[whole, sums], 0)?)
    };
    let merged = layer(&Device::Cpu)?.reference(&x.to_dtype(DType::F32)?, Activation::Identity)?;
    let merged = Tensor::cat(&[&merged, &merged], 0)?;
    let case = Case {
        dtype,
        rows: (0..2 * rows).collect(),
        run: &run,
        reference: &|_, rows| Ok(Matrix::rows_of(&merged, rows)?),
        gate: Gate::RelativeL2(limit),
        against_cpu: true,
    };
    case.check(device)
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
        p.weight.name(),
        short(p.dtype)
    );
    runner.row(GROUP, name, || p.check(device, scale));
}

impl Product {
    fn check(&self, device: &Device, scale: Scale) -> Result<Vec<Check>> {
        let x = normal(self.dtype, &[self.rows, self.inputs], 1.0, scale.seed)?;
        let deviation = 1.0 / (self.inputs as f32).sqrt();
        let weight = self.weight.make(&[self.outputs, self.inputs], deviation, scale.seed + 1)?;
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
