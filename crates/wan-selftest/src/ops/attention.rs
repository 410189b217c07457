use candle_core::{DType, Device, Tensor};
use wan_ops::{AttentionChoice, attention, attention_sum, cudnn_missing, self_attention};
use wan_pipeline::Result;

use super::{Case, FLOATS, GROUP, Gate, Scale, sampled, short};
use crate::reference::{self, AttentionInputs, Format, Matrix};
use crate::synthesis::normal;
use crate::{Check, Runner};

/// Error of 8-bit attention that is allowed over a whole video's tokens, and over few. Weights and values in e4m3 are
/// each 2.6 % off, root mean square; what tokens have in common averages that out, of few of them less.
const SAGE: f64 = 3e-2;
pub(super) const SAGE_OF_FEW: f64 = 4e-2;
const FEW: usize = 2000;

/// Queries, keys, heads and channels of a head.
type Sizes = [usize; 4];

/// Which of the ops.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Op {
    /// With or without a bias.
    Plain { bias: bool },
    /// By one kernel.
    Chosen(AttentionChoice),
    /// To two sources; the second has so many keys.
    Sum { second: usize },
}

pub fn run(runner: &mut Runner<'_>, device: &Device, scale: Scale) {
    let plain = Op::Plain { bias: false };
    for dtype in FLOATS {
        for sizes in [[1, 1, 1, 1], [33, 65, 2, 7], [5, 40, 2, 80], [9, 33, 1, 384], [130, 200, 2, 128]] {
            row(runner, device, scale, sizes, dtype, plain);
        }
        row(runner, device, scale, [37, 100, 2, 32], dtype, Op::Plain { bias: true });
        row(runner, device, scale, [70, 64, 2, 128], dtype, Op::Sum { second: 33 });
    }
    let choices = [AttentionChoice::Exact, AttentionChoice::Cudnn, AttentionChoice::Sage];
    for choice in choices {
        for sizes in [[1, 1, 1, 128], [130, 200, 2, 128], [257, 1000, 3, 128]] {
            row(runner, device, scale, sizes, DType::BF16, Op::Chosen(choice));
        }
    }
    if scale.full {
        let l = scale.tokens;
        for choice in choices {
            row(runner, device, scale, [l, l, 40, 128], DType::BF16, Op::Chosen(choice));
        }
        row(runner, device, scale, [l, 512, 40, 128], DType::BF16, Op::Sum { second: 257 });
        row(runner, device, scale, [512, 512, 64, 64], DType::BF16, Op::Plain { bias: true });
        row(runner, device, scale, [257, 257, 16, 80], DType::BF16, plain);
        row(runner, device, scale, [6240.min(l), 6240.min(l), 1, 384], DType::BF16, plain);
    }
}

fn row(runner: &mut Runner<'_>, device: &Device, scale: Scale, sizes: Sizes, dtype: DType, op: Op) {
    let [l, s, heads, d] = sizes;
    let which = match op {
        Op::Plain { bias: true } => "bias".into(),
        Op::Plain { bias: false } => String::new(),
        Op::Chosen(choice) => choice.to_string(),
        Op::Sum { second } => format!("+{second}"),
    };
    let name = format!("attention {which} {} {l}x{s} {heads}x{d}", short(dtype)).replace("  ", " ");
    let missing = match op {
        Op::Chosen(AttentionChoice::Cudnn) => cudnn_missing(device),
        _ => Ok(None),
    };
    match missing {
        Ok(Some(reason)) => runner.skip(GROUP, name, &reason),
        // An error of the device is the row's.
        _ => runner.row(GROUP, name, || check(device, scale, sizes, dtype, op)),
    }
}

fn check(device: &Device, scale: Scale, sizes: Sizes, dtype: DType, op: Op) -> Result<Vec<Check>> {
    let [l, s, heads, d] = sizes;
    let tokens = |n: usize, seed: u64| normal(dtype, &[n, heads, d], 1.0, scale.seed + seed);
    let (q, k, v) = (tokens(l, 1)?, tokens(s, 2)?, tokens(s, 3)?);
    // Keys and values with channels that stand out, as trained models have them.
    let k = k.broadcast_add(&outlying(dtype, heads, d, scale.seed + 7)?)?;
    let v = v.broadcast_add(&outlying(dtype, heads, d, scale.seed + 8)?)?;
    // Scores of a deviation of about 3.
    let factor = 3.0 / (d as f32).sqrt();
    let bias = match op {
        Op::Plain { bias: true } => Some(normal(DType::F32, &[heads, l, s], 1.0, scale.seed + 4)?),
        _ => None,
    };
    let second = match op {
        Op::Sum { second } => Some((tokens(second, 5)?, tokens(second, 6)?)),
        _ => None,
    };
    let run = |device: &Device| {
        let on = |t: &Tensor| t.to_device(device);
        let (q, k, v) = (on(&q)?, on(&k)?, on(&v)?);
        let y = match (op, &second) {
            (Op::Chosen(choice), _) => self_attention(&q, &k, &v, factor, choice)?,
            (Op::Sum { .. }, Some((k2, v2))) => attention_sum(&q, (&k, &v), (&on(k2)?, &on(v2)?), factor)?,
            _ => attention(&q, &k, &v, factor, bias.as_ref().map(on).transpose()?.as_ref())?,
        };
        Ok(y.flatten_from(1)?)
    };
    let flat = |t: &Tensor| Ok::<_, wan_core::Error>(t.flatten_from(1)?);
    let inputs = |rows: &[usize], k: &Tensor, v: &Tensor| -> Result<AttentionInputs> {
        let bias = bias.as_ref().map(|b| bias_rows(b, rows)).transpose()?;
        let q = Matrix::rows_of(&flat(&q)?, rows)?;
        let (k, v) = (Matrix::of(&flat(k)?)?, Matrix::of(&flat(v)?)?);
        Ok(AttentionInputs { q, k, v, bias, heads, scale: f64::from(factor) })
    };
    let reference = |format: Format, rows: &[usize]| {
        let first = reference::attention(format, &inputs(rows, &k, &v)?);
        match &second {
            None => Ok(first),
            Some((k, v)) => {
                let second = reference::attention(format, &inputs(rows, k, v)?);
                Ok(reference::add_gated(format, &first, &second, None))
            }
        }
    };
    let sage = op == Op::Chosen(AttentionChoice::Sage) && device.is_cuda() && d == 128;
    let case = Case {
        dtype,
        rows: sampled(l),
        run: &run,
        reference: &reference,
        gate: match sage {
            true => Gate::RelativeL2(if s < FEW { SAGE_OF_FEW } else { SAGE }),
            false => Gate::TwiceEager,
        },
        against_cpu: l * s * heads * d < 1 << 30,
    };
    case.check(device)
}

/// Added to every token: one channel in 64 stands out.
pub(super) fn outlying(dtype: DType, heads: usize, d: usize, seed: u64) -> Result<Tensor> {
    let channels = Tensor::arange(0u32, (heads * d) as u32, &Device::Cpu)?;
    let chosen = (channels.to_dtype(DType::F32)? / 64.0)?;
    let chosen = chosen.eq(&chosen.floor()?)?.to_dtype(DType::F32)?;
    let values = (normal(DType::F32, &[heads * d], 3.0, seed)? * chosen)?;
    Ok(values.reshape((1, heads, d))?.to_dtype(dtype)?)
}

/// The bias `[heads, L, S]` of some queries, as `[heads * rows, S]`.
fn bias_rows(bias: &Tensor, rows: &[usize]) -> Result<Matrix> {
    let (heads, l, s) = bias.dims3()?;
    let picked: Vec<usize> = (0..heads).flat_map(|h| rows.iter().map(move |r| h * l + r)).collect();
    Ok(Matrix::rows_of(&bias.reshape((heads * l, s))?, &picked)?)
}
