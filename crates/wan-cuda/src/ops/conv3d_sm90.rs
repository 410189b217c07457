use super::conv3d::arguments;
use super::{ConvGeometry, ConvPlaces};
use crate::{Arg, Float, Launch};

/// How `kernels/conv3d_sm90.cu` reads a weight `[outputs, inputs, kt, 3, 3]`: in tiles
/// `[outputs / 96, kt, inputs / 32, 3, 3, 96, 32]`, of whose rows of 32 inputs the four pieces of 8 are swizzled: piece `p` of
/// row `r` lies at `p ^ (r / 2 % 4)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConvTiles;

impl ConvTiles {
    /// Outputs of a tile.
    pub const OUTPUTS: usize = 96;
    /// Inputs of a tile.
    pub const INPUTS: usize = 32;
    /// Inputs that stay together.
    pub const PIECE: usize = 8;

    /// Where piece `piece` of row `row` lies in its row.
    pub fn swizzled(row: usize, piece: usize) -> usize {
        piece ^ (row / 2 % (Self::INPUTS / Self::PIECE))
    }
}

/// Whether [`conv3d_sm90`] computes such convolutions. It depends on the layer alone, not on the video's size.
pub fn conv3d_sm90_fits(float: Float, geometry: &ConvGeometry) -> bool {
    let ConvGeometry { inputs, outputs, kernel: [_, kh, kw], stride, .. } = *geometry;
    float != Float::F32
        && [kh, kw] == [3, 3]
        && stride == [1; 3]
        && inputs > 0
        && inputs.is_multiple_of(ConvTiles::INPUTS)
        && outputs.is_multiple_of(ConvTiles::OUTPUTS)
}

/// As [`conv3d`](super::conv3d), for compute capability 9.0: products of warpgroups. `places.weight` lies as [`ConvTiles`]
/// says.
///
/// `None` where [`conv3d_sm90_fits`] says so, and for addresses that are not multiples of 16 (of y and the residual: 4).
pub fn conv3d_sm90(float: Float, geometry: &ConvGeometry, places: &ConvPlaces) -> Option<Launch> {
    /// As in the kernel.
    const VOXELS: usize = 384;
    const THREADS: u32 = 512;
    const MOST_COLUMNS: usize = 64;
    const SLICE_ROWS: usize = (VOXELS / MOST_COLUMNS + 2) * (MOST_COLUMNS + 2);
    const SLICES: usize = 3 * SLICE_ROWS * ConvTiles::INPUTS * 2;
    const WEIGHTS: usize = 4 * 3 * ConvTiles::OUTPUTS * ConvTiles::INPUTS * 2;
    const BARRIERS: usize = 2 * (3 + 4);
    const SHARED: usize = SLICES + WEIGHTS + SLICE_ROWS * 4 + BARRIERS * 8;
    let kernel = match float {
        Float::Bf16 => "conv3d_sm90_bf16",
        Float::F16 => "conv3d_sm90_f16",
        Float::F32 => return None,
    };
    let pieces = [places.x, places.history, places.weight];
    if !conv3d_sm90_fits(float, geometry)
        || !pieces.iter().all(|place| place.is_aligned(16))
        || ![places.y, places.residual].iter().all(|place| place.is_aligned(4))
    {
        return None;
    }
    let [frames, height, width] = geometry.output;
    // A block's rectangle has this many columns: the fewest blocks.
    let rectangles = |columns: usize| height.div_ceil(VOXELS / columns) * width.div_ceil(columns);
    let columns = [32, 16, MOST_COLUMNS].into_iter().min_by_key(|&columns| rectangles(columns))?;
    let blocks = frames * rectangles(columns) * geometry.outputs / ConvTiles::OUTPUTS;
    let mut args = arguments(geometry, places);
    args.push(Arg::I32(columns as i32));
    Some(Launch::new(kernel, blocks, THREADS, args).with_shared(SHARED))
}
