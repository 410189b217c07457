use crate::{DevPtr, Float};

/// Rows of which a kernel reads `row_scale x + bias`: a product whose scales and bias are left to what reads it, or plain
/// values.
#[derive(Debug, Clone, Copy)]
pub struct Sums {
    /// Format of `x`.
    pub float: Float,
    /// `[rows, dim]`.
    pub x: DevPtr,
    /// `[rows]` f32, such as the scales of the rows that a product of FP8 codes was made from; null: 1.
    pub row_scale: DevPtr,
    /// `[dim]` f32; null: 0.
    pub bias: DevPtr,
}

impl Sums {
    /// Values of `float` at `x` as they are.
    pub fn plain(float: Float, x: DevPtr) -> Self {
        Self { float, x, row_scale: DevPtr::NULL, bias: DevPtr::NULL }
    }
}
