use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::{Affine, GatedResidual, LayerNorm, StreamNorm};
use crate::cpu::math::{sum, vectorised};
use crate::cpu::rows::for_row_blocks;
use crate::cpu::storage;
use crate::rows::{Rows, rounded, tensor};
use crate::sums::cpu::scaled;

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

    /// Normalises rows of `dim` values.
    fn normalise_rows(&self, eps: f32, dim: usize, x: &[f32], y: &mut [f32]) {
        vectorised(
            #[inline(always)]
            || {
                for (x, y) in x.chunks_exact(dim).zip(y.chunks_exact_mut(dim)) {
                    self.normalise(eps, x, y);
                }
            },
        );
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
        scaling.normalise_rows(op.eps, dim, &values[first * dim..][..block.len()], block);
    });
    Ok((storage::rounded(op.name(), y, x.dtype())?, layout.shape().clone()))
}

pub(super) fn gated_residual(
    op: &GatedResidual<'_>,
    (x, x_layout): (&CpuStorage, &Layout),
    (y, y_layout): (&CpuStorage, &Layout),
) -> Result<(CpuStorage, Shape)> {
    const OP: &str = "gated_residual";
    let dim = x_layout.dims().last().copied().unwrap_or(1);
    let xs = storage::values(OP, x, x_layout)?;
    let ys = scaled(OP, storage::values(OP, y, y_layout)?, op.y)?;
    let gate = op.gate.map(|g| storage::copied(OP, g)).transpose()?;
    let mut sums = vec![0f32; xs.len()];
    for_row_blocks(&mut sums, dim, |first, block| {
        let range = first * dim..first * dim + block.len();
        add_rows(dim, &xs[range.clone()], &ys[range], gate.as_deref(), block);
    });
    Ok((storage::rounded(OP, sums, x.dtype())?, x_layout.shape().clone()))
}

/// `sums = x + gate y` over rows of `dim` values.
fn add_rows(dim: usize, x: &[f32], y: &[f32], gate: Option<&[f32]>, sums: &mut [f32]) {
    vectorised(
        #[inline(always)]
        || match gate {
            Some(gate) => {
                let rows = x.chunks_exact(dim).zip(y.chunks_exact(dim));
                for ((x, y), sums) in rows.zip(sums.chunks_exact_mut(dim)) {
                    for ((sum, g), (x, y)) in sums.iter_mut().zip(gate).zip(x.iter().zip(y)) {
                        *sum = x + g * y;
                    }
                }
            }
            None => sums.iter_mut().zip(x.iter().zip(y)).for_each(|(sum, (x, y))| *sum = x + y),
        },
    );
}

/// Each row is added to and normalised while it is in the cache.
pub(super) fn stream_norm(norm: &StreamNorm<'_>) -> Result<(Tensor, Rows)> {
    const OP: &str = "residual_layer_norm";
    const BLOCK: usize = 1 << 14; // values
    let shape = norm.x.dims2()?;
    let dim = shape.1;
    let scaling = Scaling::new(OP, norm.affine)?;
    let x = storage::read(OP, norm.x);
    let xs = x.values()?;
    let mut normed = vec![0f32; xs.len()];
    let Some((y, gate)) = norm.addition else {
        for_row_blocks(&mut normed, dim, |first, block| {
            scaling.normalise_rows(norm.eps, dim, &xs[first * dim..][..block.len()], block);
        });
        return Ok((norm.x.clone(), rounded(OP, normed, shape, norm.format)?));
    };
    let reader = storage::read(OP, y.bare());
    let ys = scaled(OP, reader.values()?, y)?;
    let gate = gate.map(|g| storage::copied(OP, g)).transpose()?;
    let mut sums = vec![0f32; xs.len()];
    if !sums.is_empty() {
        let size = (BLOCK / dim).max(1) * dim;
        let inputs = xs.par_chunks(size).zip(ys.par_chunks(size));
        let outputs = sums.par_chunks_mut(size).zip(normed.par_chunks_mut(size));
        inputs.zip(outputs).for_each(|((x, y), (sums, normed))| {
            add_rows(dim, x, y, gate.as_deref(), sums);
            scaling.normalise_rows(norm.eps, dim, sums, normed);
        });
    }
    let sums = tensor(storage::rounded(OP, sums, norm.x.dtype())?, shape);
    Ok((sums, rounded(OP, normed, shape, norm.format)?))
}
