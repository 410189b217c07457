use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, Layout, Result, Shape};

use super::RmsNorm;
use crate::cpu::math::{sum, vectorised};
use crate::cpu::rows::for_row_blocks;
use crate::cpu::storage;
use crate::sums::cpu::scaled;

/// Normalises the rows of `x`; with `rope`, rotates them too.
pub(super) fn rms_norm(
    op: &RmsNorm<'_>,
    (x, layout): (&CpuStorage, &Layout),
    rope: Option<(&CpuStorage, &Layout)>,
) -> Result<(CpuStorage, Shape)> {
    const OP: &str = "rms_norm";
    let dim = layout.dims().last().copied().unwrap_or(1);
    let values = scaled(OP, storage::values(OP, x, layout)?, op.x)?;
    let weight = storage::copied(OP, op.weight)?;
    let head = rope.map_or(0, |(_, layout)| 2 * layout.dims()[1]);
    let rope = rope.map(|(rope, layout)| storage::values("rms_norm_rope", rope, layout)).transpose()?;
    let mut y = vec![0f32; values.len()];
    for_row_blocks(&mut y, dim, |first, block| {
        let x = &values[first * dim..][..block.len()];
        vectorised(
            #[inline(always)]
            || {
                for (i, (x, y)) in x.chunks_exact(dim).zip(block.chunks_exact_mut(dim)).enumerate() {
                    normalise(x, &weight, op.eps, y);
                    if let Some(rope) = &rope {
                        rotate(y, &rope[(first + i) * head..][..head]);
                    }
                }
            },
        );
    });
    Ok((storage::rounded(OP, y, x.dtype())?, layout.shape().clone()))
}

#[inline(always)]
fn normalise(x: &[f32], weight: &[f32], eps: f32, y: &mut [f32]) {
    let mean = sum(x, |v| v * v) / x.len() as f32;
    let inverse = 1.0 / (mean + eps).sqrt();
    y.iter_mut().zip(x.iter().zip(weight)).for_each(|(y, (x, w))| *y = x * inverse * w);
}

/// Rotates the adjacent pairs of every head by the (cos, sin) pairs of `table`.
#[inline(always)]
fn rotate(row: &mut [f32], table: &[f32]) {
    let (angles, _) = table.as_chunks::<2>();
    for head in row.chunks_exact_mut(table.len()) {
        let (pairs, _) = head.as_chunks_mut::<2>();
        for ([re, im], [cos, sin]) in pairs.iter_mut().zip(angles) {
            (*re, *im) = (*re * cos - *im * sin, *re * sin + *im * cos);
        }
    }
}
