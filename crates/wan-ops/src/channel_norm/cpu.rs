use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape};

use super::ChannelNorm;
use crate::cpu::math::{apply_inline, sum, vectorised};
use crate::cpu::rows::for_row_blocks;
use crate::cpu::storage;

pub(super) fn forward(op: &ChannelNorm<'_>, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
    let channels = layout.dims().last().copied().unwrap_or(1);
    let values = storage::values(op.name(), x, layout)?;
    let root = (channels as f32).sqrt();
    let gamma: Vec<f32> = storage::copied("channel_rms_norm", op.gamma)?.iter().map(|g| g * root).collect();
    let mut y = vec![0f32; values.len()];
    for_row_blocks(&mut y, channels, |first, block| {
        let x = &values[first * channels..][..block.len()];
        vectorised(
            #[inline(always)]
            || {
                match channels {
                    // A known length lets a voxel stay in one register.
                    16 => rows::<16>(x, &gamma, block),
                    32 => rows::<32>(x, &gamma, block),
                    _ => {
                        for (x, y) in x.chunks_exact(channels).zip(block.chunks_exact_mut(channels)) {
                            let inverse = 1.0 / sum(x, |v| v * v).sqrt().max(1e-12);
                            for (y, (x, g)) in y.iter_mut().zip(x.iter().zip(&gamma)) {
                                *y = x * inverse * g;
                            }
                        }
                    }
                }
                // Over the whole block: vectors do not end at the voxels' borders.
                apply_inline(op.activation, block);
            },
        );
    });
    Ok((storage::rounded(op.name(), y, x.dtype())?, layout.shape().clone()))
}

#[inline(always)]
fn rows<const C: usize>(x: &[f32], gamma: &[f32], y: &mut [f32]) {
    let (x, _) = x.as_chunks::<C>();
    let (y, _) = y.as_chunks_mut::<C>();
    let Some(gamma) = gamma.first_chunk::<C>() else { return };
    for (x, y) in x.iter().zip(y) {
        let mut squares = x.map(|v| v * v);
        let mut n = C / 2;
        while n > 0 {
            for i in 0..n {
                squares[i] += squares[i + n];
            }
            n /= 2;
        }
        let inverse = 1.0 / squares[0].sqrt().max(1e-12);
        for i in 0..C {
            y[i] = x[i] * inverse * gamma[i];
        }
    }
}
