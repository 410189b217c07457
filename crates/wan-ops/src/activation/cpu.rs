use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape};

use super::Activate;
use crate::cpu::rows::for_row_blocks;
use crate::cpu::{math, storage};

pub(super) fn forward(op: &Activate, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
    let values = storage::values(op.name(), x, layout)?;
    let mut y = vec![0f32; values.len()];
    for_row_blocks(&mut y, 1, |first, block| {
        block.copy_from_slice(&values[first..first + block.len()]);
        math::apply(op.activation, block);
    });
    Ok((storage::rounded(op.name(), y, x.dtype())?, layout.shape().clone()))
}
