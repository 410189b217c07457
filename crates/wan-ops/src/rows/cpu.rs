use candle_core::op::BackpropOp;
use candle_core::{CpuStorage, DType, Result, Shape, Storage, Tensor};
use float8::F8E4M3;
use rayon::prelude::*;

use super::{QuantisedRows, RowFormat, Rows};
use crate::cpu::storage;

/// Largest e4m3 value.
const LARGEST: f32 = 448.0;

/// A storage on the CPU as a tensor.
pub(crate) fn tensor(storage: CpuStorage, shape: impl Into<Shape>) -> Tensor {
    Tensor::from_storage(Storage::Cpu(storage), shape, BackpropOp::none(), false)
}

pub(super) fn quantise(x: &Tensor) -> Result<QuantisedRows> {
    let reader = storage::read("quantise", x);
    let values = reader.values()?;
    Ok(codes(&values, x.dims2()?, x.dtype()))
}

/// Values `[rows, dim]` in a format.
pub(crate) fn rounded(op: &str, values: Vec<f32>, shape: (usize, usize), format: RowFormat) -> Result<Rows> {
    Ok(match format {
        RowFormat::Float(dtype) => Rows::Float(tensor(storage::rounded(op, values, dtype)?, shape)),
        RowFormat::Quantised(dtype) => Rows::Quantised(codes(&values, shape, dtype)),
    })
}

/// The codes of `values` `[rows, dim]`, which stand for values of `dtype`.
fn codes(values: &[f32], (rows, dim): (usize, usize), dtype: DType) -> QuantisedRows {
    let mut codes = vec![F8E4M3::from_bits(0); values.len()];
    let mut scales = vec![1f32; rows];
    if !values.is_empty() {
        let inputs = values.par_chunks_exact(dim);
        let outputs = codes.par_chunks_exact_mut(dim).zip(&mut scales);
        inputs.zip(outputs).for_each(|(values, (codes, scale))| *scale = code_row(values, codes));
    }
    QuantisedRows {
        codes: tensor(CpuStorage::F8E4M3(codes), (rows, dim)),
        scales: tensor(CpuStorage::F32(scales), rows),
        dtype,
    }
}

/// The scale of a row, whose codes are written.
fn code_row(values: &[f32], codes: &mut [F8E4M3]) -> f32 {
    let largest = values.iter().fold(0f32, |most, v| most.max(v.abs()));
    let scale = if largest >= f32::MIN_POSITIVE * LARGEST { largest / LARGEST } else { 1.0 };
    let inverse = 1.0 / scale;
    for (code, value) in codes.iter_mut().zip(values) {
        // `clamp` keeps NaN, and so does the format.
        *code = F8E4M3::from_f32((value * inverse).clamp(-LARGEST, LARGEST));
    }
    scale
}
