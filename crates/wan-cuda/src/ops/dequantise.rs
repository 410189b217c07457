use super::rows::GROUP;
use crate::launch::args;
use crate::{DevPtr, Float, Launch};

/// How a weight is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Storage {
    /// f32, bf16 or f16.
    Float(Float),
    /// e4m3 with the factor of each row `stride` f32 values apart at `scale`: 0 for one factor of all rows, 1 for one
    /// a row. `scale` null: the codes are the values.
    E4m3 {
        /// Factors.
        scale: DevPtr,
        /// 0 or 1.
        stride: usize,
    },
    /// GGUF's Q8_0: an f16 factor, then 32 signed bytes, without gaps. Rows are whole blocks.
    Q8_0,
}

const THREADS: usize = 256;

/// A stored matrix `[rows, dim]` at `from` as values of `float` at `to`; rounded once from f32. `None` where nothing
/// changes (a float format to itself).
pub fn dequantise(
    storage: Storage,
    from: DevPtr,
    (float, to): (Float, DevPtr),
    rows: usize,
    dim: usize,
) -> Option<Launch> {
    use Float::{Bf16, F16, F32};
    let kernel = match (storage, float) {
        (Storage::E4m3 { .. }, Bf16) => "dequantise_e4m3_bf16",
        (Storage::E4m3 { .. }, F16) => "dequantise_e4m3_f16",
        (Storage::E4m3 { .. }, F32) => "dequantise_e4m3_f32",
        (Storage::Float(F16), Bf16) => "dequantise_f16_bf16",
        (Storage::Float(F16), F32) => "dequantise_f16_f32",
        (Storage::Float(Bf16), F16) => "dequantise_bf16_f16",
        (Storage::Float(Bf16), F32) => "dequantise_bf16_f32",
        (Storage::Float(F32), Bf16) => "dequantise_f32_bf16",
        (Storage::Float(F32), F16) => "dequantise_f32_f16",
        (Storage::Float(_), _) => return None,
        (Storage::Q8_0, Bf16) => "dequantise_q8_0_bf16",
        (Storage::Q8_0, F16) => "dequantise_q8_0_f16",
        (Storage::Q8_0, F32) => "dequantise_q8_0_f32",
    };
    let (scale, stride) = match storage {
        Storage::Q8_0 => {
            let count = rows * dim;
            let args = args![from, to, count as i64];
            return Some(Launch::new(kernel, count.div_ceil(GROUP * THREADS), THREADS as u32, args));
        }
        Storage::E4m3 { scale, stride } => (scale, stride),
        Storage::Float(_) => (DevPtr::NULL, 0),
    };
    // Without factors that tell rows apart they are one.
    let (rows, dim) = if stride == 0 { (1, rows * dim) } else { (rows, dim) };
    let blocks_per_row = dim.div_ceil(GROUP * THREADS);
    let args = args![from, scale, to, dim as i64, blocks_per_row as i32, stride as i32];
    Some(Launch::new(kernel, rows * blocks_per_row, THREADS as u32, args))
}
