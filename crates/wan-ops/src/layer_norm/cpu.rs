use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp1, CustomOp2, DType, Layout, Result, Shape, Storage, Tensor};
use rayon::prelude::*;

use super::{Affine, GatedResidual, LayerNorm};
use crate::cpu::math::{sum, vectorised};
use crate::cpu::rows::for_row_blocks;
use crate::cpu::storage;

/// [`Affine`] as `n * factor + summand`; empty for none.
struct Scaling {
    factor: Vec<f32>,
    summand: Vec<f32>,
}

impl Scaling {
    fn new(op: &'static str, affine: Affine<'_>) -> Result<Self> {
        Ok(match affine {
            Affine::None => Self { factor: Vec::new(), summand: Vec::new() },
            Affine::Weights { weight, bias } => {
                Self { factor: storage::copied(op, weight)?, summand: storage::copied(op, bias)? }
            }
            Affine::Modulation { shift, scale } => Self {
                factor: storage::copied(op, scale)?.into_iter().map(|s| 1.0 + s).collect(),
                summand: storage::copied(op, shift)?,
            },
        })
    }

    /// Normalises one row. Mean first, then the squared distances from it: no cancellation.
    #[inline(always)]
    fn normalise(&self, eps: f32, x: &[f32], y: &mut [f32]) {
        let count = x.len() as f32;
        let mean = sum(x, |v| v) / count;
        let variance = sum(x, |v| (v - mean) * (v - mean)) / count;
        let inverse = 1.0 / (variance + eps).sqrt();
        if self.factor.is_empty() {
            y.iter_mut().zip(x).for_each(|(y, x)| *y = (x - mean) * inverse);
        } else {
            for ((y, x), (f, s)) in y.iter_mut().zip(x).zip(self.factor.iter().zip(&self.summand)) {
                *y = ((x - mean) * inverse) * f + s;
            }
        }
    }
}

pub(super) fn layer_norm(op: &LayerNorm<'_>, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
    let dim = layout.dims().last().copied().unwrap_or(1);
    let values = storage::values(op.name(), x, layout)?;
    let scaling = Scaling::new("layer_norm", op.affine)?;
    let mut y = vec![0f32; values.len()];
    for_row_blocks(&mut y, dim, |first, block| {
        let x = &values[first * dim..][..block.len()];
        vectorised(
            #[inline(always)]
            || {
                for (x, y) in x.chunks_exact(dim).zip(block.chunks_exact_mut(dim)) {
                    scaling.normalise(op.eps, x, y);
                }
            },
        );
    });
    Ok((storage::rounded(op.name(), y, x.dtype())?, layout.shape().clone()))
}

pub(super) fn gated_residual(
    op: &GatedResidual<'_>,
    (x, x_layout): (&CpuStorage, &Layout),
    (y, y_layout): (&CpuStorage, &Layout),
) -> Result<(CpuStorage, Shape)> {
    let dim = x_layout.dims().last().copied().unwrap_or(1);
    let (xs, ys) = (storage::values(op.name(), x, x_layout)?, storage::values(op.name(), y, y_layout)?);
    let gate = op.gate.map(|g| storage::copied("gated_residual", g)).transpose()?;
    let mut sums = vec![0f32; xs.len()];
    for_row_blocks(&mut sums, dim, |first, block| {
        let range = first * dim..first * dim + block.len();
        let (x, y) = (&xs[range.clone()], &ys[range]);
        vectorised(
            #[inline(always)]
            || {
                for ((x, y), sum) in
                    x.chunks_exact(dim).zip(y.chunks_exact(dim)).zip(block.chunks_exact_mut(dim))
                {
                    add_row(x, y, gate.as_deref(), sum);
                }
            },
        );
    });
    Ok((storage::rounded(op.name(), sums, x.dtype())?, x_layout.shape().clone()))
}

#[inline(always)]
fn add_row(x: &[f32], y: &[f32], gate: Option<&[f32]>, sum: &mut [f32]) {
    match gate {
        Some(gate) => {
            for ((sum, g), (x, y)) in sum.iter_mut().zip(gate).zip(x.iter().zip(y)) {
                *sum = x + g * y;
            }
        }
        None => sum.iter_mut().zip(x.iter().zip(y)).for_each(|(sum, (x, y))| *sum = x + y),
    }
}

/// Both results of [`residual_layer_norm`](super::residual_layer_norm), each row while it is in the cache.
pub(super) fn residual_layer_norm(
    x: &Tensor,
    y: &Tensor,
    gate: Option<&Tensor>,
    eps: f32,
    affine: Affine<'_>,
    dtype: DType,
) -> Result<(Tensor, Tensor)> {
    const OP: &str = "residual_layer_norm";
    const BLOCK: usize = 1 << 14; // values
    let dim = x.dims().last().copied().unwrap_or(1);
    let (x_reader, y_reader) = (storage::read(OP, x), storage::read(OP, y));
    let (xs, ys) = (x_reader.values()?, y_reader.values()?);
    let gate = gate.map(|g| storage::copied(OP, g)).transpose()?;
    let scaling = Scaling::new(OP, affine)?;
    let (mut sums, mut normed) = (vec![0f32; xs.len()], vec![0f32; xs.len()]);
    if !sums.is_empty() {
        let size = (BLOCK / dim).max(1) * dim;
        let inputs = xs.par_chunks(size).zip(ys.par_chunks(size));
        let outputs = sums.par_chunks_mut(size).zip(normed.par_chunks_mut(size));
        inputs.zip(outputs).for_each(|((x, y), (sums, normed))| {
            vectorised(
                #[inline(always)]
                || {
                    let inputs = x.chunks_exact(dim).zip(y.chunks_exact(dim));
                    let outputs = sums.chunks_exact_mut(dim).zip(normed.chunks_exact_mut(dim));
                    for ((x, y), (sum, normed)) in inputs.zip(outputs) {
                        add_row(x, y, gate.as_deref(), sum);
                        scaling.normalise(eps, sum, normed);
                    }
                },
            );
        });
    }
    let tensor = |values: Vec<f32>, dtype: DType| -> Result<Tensor> {
        let storage = Storage::Cpu(storage::rounded(OP, values, dtype)?);
        Ok(Tensor::from_storage(storage, x.shape().clone(), candle_core::op::BackpropOp::none(), false))
    };
    Ok((tensor(sums, x.dtype())?, tensor(normed, dtype)?))
}
