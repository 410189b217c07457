//! Self-attention with the norms before it, of products whose scales and bias are still to be applied.

use candle_core::{DType, Device, Tensor};
use wan_ops::{AttentionChoice, QkNorm, Sums, self_attention_of_products};
use wan_pipeline::Result;

use super::attention::{SAGE_OF_FEW, outlying};
use super::{Case, GROUP, Gate, Scale, sampled, short};
use crate::reference::{self, AttentionInputs, Format, Matrix};
use crate::synthesis::normal;
use crate::{Check, Runner};

const EPS: f64 = 1e-6;
/// Channels of a head, as 8-bit attention needs.
const HEAD: usize = 128;

pub fn run(runner: &mut Runner<'_>, device: &Device, scale: Scale) {
    for choice in [AttentionChoice::Auto, AttentionChoice::Sage] {
        for dtype in [DType::BF16, DType::F16] {
            for [tokens, heads] in [[1, 1], [130, 3], [600, 5]] {
                let name = format!("attention of products {choice} {} {tokens} {heads}x{HEAD}", short(dtype));
                runner.row(GROUP, name, || {
                    Inputs::new(dtype, tokens, heads, scale.seed)?.check(device, choice)
                });
            }
        }
    }
}

struct Inputs {
    heads: usize,
    /// `[tokens, heads * HEAD]`.
    q: Tensor,
    k: Tensor,
    v: Tensor,
    /// `[tokens]` f32.
    row_scale: Tensor,
    /// `[heads * HEAD]` f32.
    bias: Tensor,
    weight: Tensor,
    /// `[tokens, HEAD / 2, 2]` f32.
    rope: Tensor,
}

impl Inputs {
    fn new(dtype: DType, tokens: usize, heads: usize, seed: u64) -> Result<Self> {
        let dim = heads * HEAD;
        let side = |n: u64| normal(DType::F32, &[dim], 0.3, seed + n);
        let product = |n: u64| normal(dtype, &[tokens, dim], 1.0, seed + n);
        let angles = normal(DType::F32, &[tokens, HEAD / 2, 1], 3.0, seed + 7)?;
        Ok(Self {
            heads,
            q: product(1)?,
            // Keys with channels that stand out, as trained models have them.
            k: product(2)?.broadcast_add(&outlying(dtype, heads, HEAD, seed + 8)?.flatten_from(1)?)?,
            v: product(3)?,
            row_scale: (normal(DType::F32, &[tokens], 0.2, seed + 4)? + 1.0)?,
            bias: side(5)?,
            weight: (side(6)? + 1.0)?,
            rope: Tensor::cat(&[angles.cos()?, angles.sin()?], 2)?,
        })
    }

    /// Of scores with a deviation of about 3.
    fn factor(&self) -> f32 {
        3.0 / (HEAD as f32).sqrt()
    }

    fn check(&self, device: &Device, choice: AttentionChoice) -> Result<Vec<Check>> {
        let sage = choice == AttentionChoice::Sage && device.is_cuda();
        let case = Case {
            dtype: self.q.dtype(),
            rows: sampled(self.q.dim(0)?),
            run: &|device| self.run(device, choice),
            reference: &|format, rows| self.reference(format, rows),
            gate: if sage { Gate::RelativeL2(SAGE_OF_FEW) } else { Gate::TwiceEager },
            against_cpu: true,
        };
        case.check(device)
    }

    fn run(&self, device: &Device, choice: AttentionChoice) -> Result<Tensor> {
        let on = |t: &Tensor| t.to_device(device);
        let (row_scale, bias) = (on(&self.row_scale)?, on(&self.bias)?);
        let sums = |x| Sums::new(on(x)?, Some(row_scale.clone()), Some(bias.clone()));
        let (weight, rope) = (on(&self.weight)?, on(&self.rope)?);
        let norm = QkNorm { query: &weight, key: &weight, eps: EPS as f32, rope: &rope };
        let products = [sums(&self.q)?, sums(&self.k)?, sums(&self.v)?];
        let y = self_attention_of_products(products, self.heads, norm, self.factor(), choice)?;
        Ok(y.flatten_from(1)?)
    }

    fn reference(&self, format: Format, rows: &[usize]) -> Result<Matrix> {
        let all: Vec<usize> = (0..self.q.dim(0)?).collect();
        let weight = Matrix::of(&self.weight)?.values;
        let normed = |x: &Tensor, rows: &[usize]| -> Result<Matrix> {
            let finished = self.finished(format, x, rows)?;
            let table = Matrix::rows_of(&self.rope.flatten_from(1)?, rows)?;
            Ok(reference::rope(format, &reference::rms_norm(format, &finished, &weight, EPS), &table))
        };
        let inputs = AttentionInputs {
            q: normed(&self.q, rows)?,
            k: normed(&self.k, &all)?,
            v: self.finished(format, &self.v, &all)?,
            bias: None,
            heads: self.heads,
            scale: f64::from(self.factor()),
        };
        Ok(reference::attention(format, &inputs))
    }

    /// What the sums `x` stand for, in some rows.
    fn finished(&self, format: Format, x: &Tensor, rows: &[usize]) -> Result<Matrix> {
        let (scales, bias) = (Matrix::of(&self.row_scale)?.values, Matrix::of(&self.bias)?.values);
        Ok(Matrix::rows_of(x, rows)?.map_rows(|i, row| {
            row.iter().zip(&bias).map(|(v, b)| format.round(v * scales[rows[i]] + b)).collect()
        }))
    }
}
