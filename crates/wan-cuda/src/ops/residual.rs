use super::rows::{GROUP, threads_for_row};
use super::{Affine, Sums};
use crate::launch::args;
use crate::{DevPtr, Float, Launch};

/// What is added to a residual stream.
#[derive(Debug, Clone, Copy)]
pub struct Addition {
    /// `[rows, dim]`.
    pub y: Sums,
    /// Factor, `[dim]` f32; null: 1.
    pub gate: DevPtr,
    /// Where the sum goes, `[rows, dim]` of the stream's format; may be the stream itself.
    pub sum: DevPtr,
}

/// Where normalised rows go.
#[derive(Debug, Clone, Copy)]
pub enum Normed {
    /// `[rows, dim]` of a float format.
    Float(Float, DevPtr),
    /// Rounded to e4m3, each row with the scale that maps its largest magnitude to 448: `value = code * scale`.
    Quantised {
        /// `[rows, dim]` e4m3.
        codes: DevPtr,
        /// `[rows]` f32.
        scale: DevPtr,
    },
}

/// `x' = x + gate y` (or x, without an addition) and `affine((x' - mean) rsqrt(var + eps))` of its rows, of at most
/// [`LONGEST_ROW`](super::LONGEST_ROW) values. What is normalised is the sum before it is rounded to the format of `x`.
///
/// Formats: `x` in f32 takes all of `y`'s; a 16-bit `x` the same for `y`. The normalised rows are f32 or the 16-bit
/// format among `x` and `y` (any, where both are f32), of a 16-bit `x` that format alone; or quantised, of all but an f16 `x`.
/// `None` for others.
pub fn residual_layer_norm(
    (float, x): (Float, DevPtr),
    addition: Option<Addition>,
    normed: Normed,
    affine: Affine,
    [rows, dim]: [usize; 2],
    eps: f32,
) -> Option<Launch> {
    let none = Sums::plain(float, DevPtr::NULL);
    let null = Addition { y: none, gate: DevPtr::NULL, sum: DevPtr::NULL };
    let added = addition.unwrap_or(null);
    let (format, out, scale) = match normed {
        Normed::Float(float, out) => (Some(float), out, DevPtr::NULL),
        Normed::Quantised { codes, scale } => (None, codes, scale),
    };
    let kernel = kernel(float, added.y.float, format)?;
    let (factor, summand, offset) = affine.parts();
    let Addition { y, gate, sum } = added;
    let args =
        args![x, y.x, y.row_scale, y.bias, gate, sum, out, scale, factor, summand, offset, dim as i32, eps];
    Some(Launch::new(kernel, rows, threads_for_row(dim), args))
}

/// `None` for e4m3.
fn kernel(x: Float, y: Float, normed: Option<Float>) -> Option<&'static str> {
    use Float::{Bf16, F16, F32};
    Some(match (x, y, normed) {
        (F32, F32, Some(F32)) => "residual_layer_norm_f32_f32_f32",
        (F32, F32, Some(Bf16)) => "residual_layer_norm_f32_f32_bf16",
        (F32, F32, Some(F16)) => "residual_layer_norm_f32_f32_f16",
        (F32, F32, None) => "residual_layer_norm_f32_f32_e4m3",
        (F32, Bf16, Some(F32)) => "residual_layer_norm_f32_bf16_f32",
        (F32, Bf16, Some(Bf16)) => "residual_layer_norm_f32_bf16_bf16",
        (F32, Bf16, None) => "residual_layer_norm_f32_bf16_e4m3",
        (F32, F16, Some(F32)) => "residual_layer_norm_f32_f16_f32",
        (F32, F16, Some(F16)) => "residual_layer_norm_f32_f16_f16",
        (F32, F16, None) => "residual_layer_norm_f32_f16_e4m3",
        (Bf16, Bf16, Some(Bf16)) => "residual_layer_norm_bf16_bf16_bf16",
        (Bf16, Bf16, None) => "residual_layer_norm_bf16_bf16_e4m3",
        (F16, F16, Some(F16)) => "residual_layer_norm_f16_f16_f16",
        _ => return None,
    })
}

/// `addition.sum = x + gate y`, `[rows, dim]`. `x` in f32 takes any format of `y`, a 16-bit `x` its own; `None` for
/// others.
pub fn gated_residual(
    (float, x): (Float, DevPtr),
    addition: Addition,
    [rows, dim]: [usize; 2],
) -> Option<Launch> {
    use Float::{Bf16, F16, F32};
    const THREADS: usize = 256;
    let kernel = match (float, addition.y.float) {
        (F32, F32) => "gated_residual_f32_f32",
        (F32, Bf16) => "gated_residual_f32_bf16",
        (F32, F16) => "gated_residual_f32_f16",
        (Bf16, Bf16) => "gated_residual_bf16_bf16",
        (F16, F16) => "gated_residual_f16_f16",
        _ => return None,
    };
    let blocks = (rows * dim.div_ceil(GROUP)).div_ceil(THREADS);
    let Addition { y, gate, sum } = addition;
    let args = args![x, y.x, y.row_scale, y.bias, gate, sum, rows as i64, dim as i32];
    Some(Launch::new(kernel, blocks, THREADS as u32, args))
}
