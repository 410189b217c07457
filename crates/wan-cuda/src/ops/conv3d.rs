use crate::launch::args;
use crate::{Arg, DevPtr, Float, Launch};

/// Geometry of a convolution over channels-last video; triples are (time, height, width).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConvGeometry {
    /// Size of the input, without its history.
    pub input: [usize; 3],
    /// Frames of history, the last of which is right before the input.
    pub past: usize,
    /// Channels in.
    pub inputs: usize,
    /// Channels out.
    pub outputs: usize,
    /// Kernel size.
    pub kernel: [usize; 3],
    /// Stride.
    pub stride: [usize; 3],
    /// Frames, rows and columns of padding in front. Frames come from the history as far as it goes; all else is 0.
    pub front: [usize; 3],
    /// Whether height and width are doubled by repeating pixels first.
    pub upsample: bool,
    /// Size of the output.
    pub output: [usize; 3],
}

impl ConvGeometry {
    /// Length of a row of the packed weight: all taps and inputs, rounded up to 8 values.
    pub fn depth(&self) -> usize {
        (self.kernel.iter().product::<usize>() * self.inputs).next_multiple_of(PIECE)
    }
}

/// Addresses of a convolution, activations and weight of one format.
#[derive(Debug, Clone, Copy)]
pub struct ConvPlaces {
    /// `[frames, height, width, inputs]`.
    pub x: DevPtr,
    /// `[past, height, width, inputs]`; null where `past` is 0.
    pub history: DevPtr,
    /// `[outputs, depth]`: a row holds `[kt, kh, kw, inputs]`, then zeros. Aligned to 16 bytes.
    pub weight: DevPtr,
    /// `[outputs]` f32.
    pub bias: DevPtr,
    /// Of the output's shape, added to it; null: nothing.
    pub residual: DevPtr,
    /// `[output, outputs]`.
    pub y: DevPtr,
}

/// Values of 16 bytes.
const PIECE: usize = 8;

/// Sizes of what a block of a kernel computes, and its threads.
struct Tile {
    voxels: usize,
    outputs: usize,
    threads: u32,
}

/// As in `kernels/conv3d.cu` and `kernels/conv3d_f32.cu`.
const WIDE: Tile = Tile { voxels: 128, outputs: 96, threads: 128 };
const NARROW: Tile = Tile { voxels: 128, outputs: 16, threads: 128 };
const EXACT: Tile = Tile { voxels: 64, outputs: 64, threads: 256 };

/// `y = conv(x) + bias + residual`: bf16 and f16 on the tensor cores with f32 sums, f32 without them.
pub fn conv3d(float: Float, geometry: &ConvGeometry, places: &ConvPlaces) -> Launch {
    let ConvGeometry { inputs, outputs, .. } = *geometry;
    let narrow = outputs <= NARROW.outputs;
    let whole = inputs.is_multiple_of(PIECE) && places.x.is_aligned(16) && places.history.is_aligned(16);
    let (kernel, tile) = match (float, narrow, whole) {
        (Float::F32, ..) => ("conv3d_f32", EXACT),
        (Float::Bf16, false, true) => ("conv3d_wide_bf16", WIDE),
        (Float::Bf16, false, false) => ("conv3d_wide_ragged_bf16", WIDE),
        (Float::Bf16, true, true) => ("conv3d_narrow_bf16", NARROW),
        (Float::Bf16, true, false) => ("conv3d_narrow_ragged_bf16", NARROW),
        (Float::F16, false, true) => ("conv3d_wide_f16", WIDE),
        (Float::F16, false, false) => ("conv3d_wide_ragged_f16", WIDE),
        (Float::F16, true, true) => ("conv3d_narrow_f16", NARROW),
        (Float::F16, true, false) => ("conv3d_narrow_ragged_f16", NARROW),
    };
    let voxels = geometry.output.iter().product::<usize>();
    let blocks = voxels.div_ceil(tile.voxels) * outputs.div_ceil(tile.outputs);
    Launch::new(kernel, blocks, tile.threads, arguments(geometry, places))
}

/// `CONV3D_PARAMETERS` of `kernels/common/conv3d.cuh`.
pub(super) fn arguments(geometry: &ConvGeometry, places: &ConvPlaces) -> Vec<Arg> {
    let ConvPlaces { x, history, weight, bias, residual, y } = *places;
    let [frames, height, width] = geometry.input.map(|n| n as i32);
    let [kt, kh, kw] = geometry.kernel.map(|n| n as i32);
    let [st, sh, sw] = geometry.stride.map(|n| n as i32);
    let [front, top, left] = geometry.front.map(|n| n as i32);
    let [out_frames, out_height, out_width] = geometry.output.map(|n| n as i32);
    args![
        x,
        history,
        weight,
        bias,
        residual,
        y,
        frames,
        geometry.past as i32,
        height,
        width,
        geometry.inputs as i32,
        geometry.outputs as i32,
        geometry.depth() as i32,
        kt,
        kh,
        kw,
        st,
        sh,
        sw,
        front,
        top,
        left,
        i32::from(geometry.upsample),
        out_frames,
        out_height,
        out_width,
    ]
}
