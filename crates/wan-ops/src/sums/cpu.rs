use std::borrow::Cow;

use candle_core::{Result, Tensor};

use super::Sums;
use crate::cpu::rows::for_row_blocks;
use crate::cpu::storage;
use crate::rows::tensor;

/// `values`, which are those of the bare sums, with their scales and bias.
pub(crate) fn scaled<'a>(op: &'static str, values: Cow<'a, [f32]>, sums: &Sums) -> Result<Cow<'a, [f32]>> {
    if sums.is_finished() {
        return Ok(values);
    }
    let dim = sums.bare().dims2()?.1;
    let copied = |part: &Option<Tensor>| part.as_ref().map(|t| storage::copied(op, t)).transpose();
    let (scales, bias) = (copied(&sums.row_scale)?, copied(&sums.bias)?);
    let mut values = values.into_owned();
    for_row_blocks(&mut values, dim, |first, block| {
        for (i, row) in block.chunks_exact_mut(dim).enumerate() {
            let scale = scales.as_ref().map_or(1.0, |scales| scales[first + i]);
            row.iter_mut().for_each(|v| *v *= scale);
            if let Some(bias) = &bias {
                row.iter_mut().zip(bias).for_each(|(v, b)| *v += b);
            }
        }
    });
    Ok(Cow::Owned(values))
}

pub(super) fn finish(sums: &Sums) -> Result<Tensor> {
    const OP: &str = "finish sums";
    let shape = sums.bare().dims2()?;
    let reader = storage::read(OP, sums.bare());
    let values = scaled(OP, reader.values()?, sums)?.into_owned();
    Ok(tensor(storage::rounded(OP, values, sums.dtype())?, shape))
}
