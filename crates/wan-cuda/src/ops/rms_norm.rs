use super::Sums;
use super::rows::threads_for_row;
use crate::launch::{args, by_float};
use crate::{DevPtr, Launch};

/// Positions that a row is rotated by.
#[derive(Debug, Clone, Copy)]
pub struct Rotation {
    /// `[rows, head / 2, 2]` f32: (cos, sin) of a head's adjacent pairs, the same for all heads.
    pub table: DevPtr,
    /// Values of a head, even; divides `dim`.
    pub head: usize,
}

/// `y = x rsqrt(mean(x²) + eps) weight` over rows of at most [`LONGEST_ROW`](super::LONGEST_ROW) values, then the
/// rotation: `x` and `y` `[rows, dim]` of x's format, `weight` `[dim]` f32, all arithmetic f32. `y` may be where the sums are.
pub fn rms_norm(
    x: Sums,
    [weight, y]: [DevPtr; 2],
    rotation: Option<Rotation>,
    [rows, dim]: [usize; 2],
    eps: f32,
) -> Launch {
    let (table, head) = rotation.map_or((DevPtr::NULL, 0), |r| (r.table, r.head));
    let args = args![x.x, x.row_scale, x.bias, weight, table, y, dim as i32, head as i32, eps];
    Launch::new(by_float!(x.float, "rms_norm"), rows, threads_for_row(dim), args)
}
