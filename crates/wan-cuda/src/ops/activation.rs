use super::Sums;
use super::rows::{GROUP, threads_for_row};
use crate::launch::{args, by_float};
use crate::{DevPtr, Launch};

/// Elementwise functions; the numbers are those of `kernels/common/activation.cuh`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Function {
    /// x.
    Identity = 0,
    /// `0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x³)))`.
    GeluTanh = 1,
    /// `0.5 x (1 + erf(x / sqrt(2)))`.
    GeluErf = 2,
    /// `x / (1 + exp(-x))`.
    Silu = 3,
}

/// `y = function(row_scale x + bias)`: `y` `[rows, dim]` of x's format, arithmetic f32. `y` may be `x`.
pub fn activate(input: Sums, y: DevPtr, rows: usize, dim: usize, function: Function) -> Launch {
    const THREADS: usize = 256;
    let Sums { float, x, row_scale, bias } = input;
    // Without anything that tells rows apart they are one.
    let plain = row_scale == DevPtr::NULL && bias == DevPtr::NULL;
    let (rows, dim) = if plain { (1, rows * dim) } else { (rows, dim) };
    let blocks_per_row = dim.div_ceil(GROUP * THREADS);
    let args = args![x, row_scale, bias, y, dim as i64, blocks_per_row as i32, function as i32];
    Launch::new(by_float!(float, "activate"), rows * blocks_per_row, THREADS as u32, args)
}

/// [`activate`] with the result rounded to e4m3, each row with the scale that maps its largest magnitude to 448:
/// `value = code * scale`. With [`Function::Identity`] on a [`Sums::plain`] it quantises rows.
///
/// - `codes`: `[rows, dim]` e4m3; `scale`: `[rows]` f32, 1 for a row of zeros
/// - `dim`: at most [`LONGEST_ROW`](super::LONGEST_ROW)
pub fn activate_quantise(
    input: Sums,
    [codes, scale]: [DevPtr; 2],
    rows: usize,
    dim: usize,
    function: Function,
) -> Launch {
    let args = args![input.x, input.row_scale, input.bias, codes, scale, dim as i32, function as i32];
    Launch::new(by_float!(input.float, "activate_quantise"), rows, threads_for_row(dim), args)
}
