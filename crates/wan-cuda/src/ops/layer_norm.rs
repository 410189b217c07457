use crate::launch::{args, by_float};
use crate::{DevPtr, Float, Launch};

/// What follows the normalisation; every address is of `[dim]` f32.
#[derive(Debug, Clone, Copy)]
pub enum Affine {
    /// Nothing.
    None,
    /// `n * weight + bias`.
    Weights {
        /// Factor.
        weight: DevPtr,
        /// Summand.
        bias: DevPtr,
    },
    /// `n * (1 + scale) + shift`.
    Modulation {
        /// Summand.
        shift: DevPtr,
        /// Factor less one.
        scale: DevPtr,
    },
}

impl Affine {
    /// As kernels take it, `n * (factor + offset) + summand`: (factor, summand, offset), null for none.
    pub(super) fn parts(self) -> (DevPtr, DevPtr, f32) {
        match self {
            Self::None => (DevPtr::NULL, DevPtr::NULL, 0.0),
            Self::Weights { weight, bias } => (weight, bias, 0.0),
            Self::Modulation { shift, scale } => (scale, shift, 1.0),
        }
    }
}

/// `y = affine((x - mean) rsqrt(var + eps))` over rows: `x` and `y` `[rows, dim]` of `float`, statistics f32.
/// `y` may be `x`. `dim` is at most 25 000 (a row lies in shared memory, 99 KiB of it on most GPUs).
pub fn layer_norm(
    float: Float,
    x: DevPtr,
    y: DevPtr,
    rows: usize,
    dim: usize,
    eps: f32,
    affine: Affine,
) -> Launch {
    const THREADS: u32 = 256;
    let (factor, summand, offset) = affine.parts();
    let args = args![x, y, factor, summand, offset, dim as i32, eps];
    Launch::new(by_float!(float, "layer_norm"), rows, THREADS, args).with_shared(dim * size_of::<f32>())
}
