use super::rows::threads_for_row;
use super::{AttentionPlaces, AttentionShape, Rotation, Sums, TokenRows};
use crate::launch::args;
use crate::{DevPtr, Float, Launch};

/// Which kernel multiplies the quantised values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SageKernel {
    /// Compute capability 9.0: int8 scores, e4m3 weights and values, by warpgroups.
    Hopper,
    /// Compute capability 8.9 and 12: the same by warps.
    Fp8,
    /// Any: int8 scores, weights and values in f16.
    Half,
}

impl SageKernel {
    /// Bytes of one of v's values.
    fn value_bytes(self) -> usize {
        if self == Self::Half { 2 } else { 1 }
    }

    /// What the largest of v's values becomes, as in `kernels/common/sage.cuh`: all of e4m3 where products are summed
    /// in f32, and otherwise what f16 holds the sums of.
    fn largest_value(self) -> f32 {
        match self {
            Self::Hopper => 448.0,
            Self::Fp8 => 2.25,
            Self::Half => 31.5,
        }
    }
}

/// 8-bit attention (Zhang et al., SageAttention2, arXiv 2411.10958), with what lies in scratch memory between its
/// launches: q, k and v as tiles of 8-bit values with their scales. `head_dim` 128.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sage {
    shape: AttentionShape,
    kernel: SageKernel,
}

/// Channels of the heads that it takes.
pub const SAGE_HEAD: usize = DIM;

/// As in `kernels/common/sage.cuh` and `kernels/sage_quantise.cu`.
const DIM: usize = 128;
const TOKENS: usize = 128;
const TILE: usize = TOKENS * DIM;
const KEY_SCALES: usize = 4;
const CHUNK: usize = 512;
const THREADS: u32 = 256;

/// Queries of 8-bit attention.
#[derive(Debug, Clone, Copy)]
pub enum SageQueries {
    /// As they are.
    Rows(TokenRows),
    /// A product, `[queries, heads * 128]`, that is still to be normalised over whole rows and rotated, as
    /// [`rms_norm`](super::rms_norm) does.
    Product {
        /// What the product's sums stand for, of the format of all inputs.
        sums: Sums,
        /// `[heads * 128]` f32.
        weight: DevPtr,
        /// Positions.
        rotation: Rotation,
        /// Added to the mean of squares.
        eps: f32,
    },
}

/// What 8-bit attention reads and writes; all inputs are of one format.
#[derive(Debug, Clone, Copy)]
pub struct SagePlaces {
    /// Queries.
    pub q: SageQueries,
    /// Keys.
    pub k: TokenRows,
    /// Values, each of which stands for `v_row_scale v + v_bias`.
    pub v: TokenRows,
    /// `[keys]` f32; null: 1.
    pub v_row_scale: DevPtr,
    /// `[heads * 128]` f32; null: 0.
    pub v_bias: DevPtr,
    /// `[queries, heads, 128]`, contiguous.
    pub y: DevPtr,
}

impl SagePlaces {
    /// `None` for adding to the output.
    pub fn of(places: &AttentionPlaces) -> Option<Self> {
        let AttentionPlaces { q, k, v, y, add } = *places;
        let (v_row_scale, v_bias) = (DevPtr::NULL, DevPtr::NULL);
        (!add).then_some(Self { q: SageQueries::Rows(q), k, v, v_row_scale, v_bias, y })
    }

    /// Whether all is where the kernels can read it in pieces of 16 bytes.
    fn is_aligned(&self, float: Float) -> bool {
        let q = match self.q {
            SageQueries::Rows(rows) => rows.is_in_pieces(float),
            SageQueries::Product { .. } => true,
        };
        q && self.k.is_in_pieces(float) && self.v.is_in_pieces(float) && self.y.is_aligned(4)
    }
}

/// Scratch memory of an attention.
struct Parts {
    q8: DevPtr,
    q_scale: DevPtr,
    k8: DevPtr,
    k_scale: DevPtr,
    v_tiles: DevPtr,
    v_scale: DevPtr,
    k_mean: DevPtr,
    sums: DevPtr,
    most: DevPtr,
    bytes: usize,
}

impl Sage {
    /// `None` for another `head_dim` than [`SAGE_HEAD`].
    pub fn new(shape: AttentionShape, kernel: SageKernel) -> Option<Self> {
        (shape.head_dim == DIM).then_some(Self { shape, kernel })
    }

    /// Bytes of scratch memory.
    pub fn scratch_bytes(&self) -> usize {
        self.parts(DevPtr::NULL).bytes
    }

    /// The launches, in order: the keys' mean and the values' scales, quantising, attention without a bias.
    /// `scratch`: [`Sage::scratch_bytes`] of memory aligned to 256.
    ///
    /// `None` for f32, and for rows that do not start at multiples of 16 bytes.
    pub fn launches(
        &self,
        float: Float,
        places: &SagePlaces,
        scale: f32,
        scratch: DevPtr,
    ) -> Option<Vec<Launch>> {
        if float == Float::F32 || !places.is_aligned(float) {
            return None;
        }
        let SagePlaces { k, v, v_row_scale, v_bias, .. } = *places;
        let AttentionShape { keys, heads, .. } = self.shape;
        let (_, tiles_k, chunks) = self.tiles();
        let at = self.parts(scratch);
        let name = |bf16, f16| if float == Float::Bf16 { bf16 } else { f16 };
        let launch = |kernel, grid, args| Launch::new(kernel, 0, THREADS, args).with_grid(grid);
        let (k_stride, v_stride, s) = (k.stride as i64, v.stride as i64, keys as i32);
        let (halve_v, quantise_v) = (
            name("sage_halve_v_bf16", "sage_halve_v_f16"),
            name("sage_quantise_v_bf16", "sage_quantise_v_f16"),
        );
        let scale_v = if self.kernel == SageKernel::Half { halve_v } else { quantise_v };
        Some(vec![
            launch(
                name("sage_statistics_bf16", "sage_statistics_f16"),
                [chunks, heads, 1],
                args![k.at, v.at, k_stride, v_stride, v_row_scale, v_bias, s, at.sums, at.most],
            ),
            Launch::new(
                "sage_channels",
                heads,
                DIM as u32,
                args![at.sums, at.most, chunks as i32, s, self.kernel.largest_value(), at.k_mean, at.v_scale],
            ),
            self.queries(float, &places.q, scale * std::f32::consts::LOG2_E, &at),
            launch(
                name("sage_quantise_k_bf16", "sage_quantise_k_f16"),
                [tiles_k, heads, 1],
                args![k.at, k_stride, s, at.k_mean, at.k8, at.k_scale],
            ),
            launch(
                scale_v,
                [tiles_k, heads, 1],
                args![v.at, v_stride, v_row_scale, v_bias, s, at.v_scale, at.v_tiles],
            ),
            self.attention(float, places.y, &at),
        ])
    }

    /// Quantises the queries, their scales times `factor`.
    fn queries(&self, float: Float, q: &SageQueries, factor: f32, at: &Parts) -> Launch {
        let AttentionShape { queries, heads, .. } = self.shape;
        let (tiles_q, ..) = self.tiles();
        let bf16 = float == Float::Bf16;
        match *q {
            SageQueries::Rows(q) => {
                let kernel = if bf16 { "sage_quantise_q_bf16" } else { "sage_quantise_q_f16" };
                let args = args![q.at, q.stride as i64, queries as i32, factor, at.q8, at.q_scale];
                Launch::new(kernel, 0, THREADS, args).with_grid([tiles_q, heads, 1])
            }
            SageQueries::Product { sums, weight, rotation, eps } => {
                let kernel = if bf16 { "rms_norm_sage_bf16" } else { "rms_norm_sage_f16" };
                let (dim, l) = (heads * DIM, queries as i32);
                let args = args![
                    sums.x,
                    sums.row_scale,
                    sums.bias,
                    weight,
                    rotation.table,
                    dim as i32,
                    rotation.head as i32,
                    eps,
                    l,
                    factor,
                    at.q8,
                    at.q_scale
                ];
                Launch::new(kernel, tiles_q * TOKENS, threads_for_row(dim), args)
            }
        }
    }

    fn attention(&self, float: Float, y: DevPtr, at: &Parts) -> Launch {
        /// As in `kernels/attention_sage.cu` and `kernels/attention_sage_sm90.cu`.
        const STAGES: usize = 2;
        const HOPPER_THREADS: u32 = 384;
        const HOPPER_SHARED: usize = (1 + 2 * 3) * TILE + 1024;
        let AttentionShape { queries, keys, heads, .. } = self.shape;
        let bf16 = float == Float::Bf16;
        let (kernel, threads, shared) = match self.kernel {
            SageKernel::Hopper => {
                let name = if bf16 { "attention_sage_sm90_bf16" } else { "attention_sage_sm90_f16" };
                (name, HOPPER_THREADS, HOPPER_SHARED)
            }
            SageKernel::Fp8 => {
                let name = if bf16 { "attention_sage_fp8_bf16" } else { "attention_sage_fp8_f16" };
                (name, THREADS, STAGES * 2 * TILE)
            }
            SageKernel::Half => {
                let name = if bf16 { "attention_sage_half_bf16" } else { "attention_sage_half_f16" };
                (name, THREADS, STAGES * 3 * TILE)
            }
        };
        let args = args![
            at.q8,
            at.q_scale,
            at.k8,
            at.k_scale,
            at.v_tiles,
            at.v_scale,
            y,
            queries as i32,
            keys as i32
        ];
        let (tiles_q, ..) = self.tiles();
        Launch::new(kernel, 0, threads, args).with_grid([tiles_q, heads, 1]).with_shared(shared)
    }

    /// Tiles of queries and of keys, and chunks of keys.
    fn tiles(&self) -> (usize, usize, usize) {
        let AttentionShape { queries, keys, .. } = self.shape;
        (queries.div_ceil(TOKENS), keys.div_ceil(TOKENS), keys.div_ceil(CHUNK))
    }

    fn parts(&self, start: DevPtr) -> Parts {
        let (tiles_q, tiles_k, chunks) = self.tiles();
        let heads = self.shape.heads;
        let mut bytes = 0;
        let mut take = |size: usize| {
            let at = start.offset(bytes);
            bytes += size.next_multiple_of(256);
            at
        };
        let channels = heads * DIM * size_of::<f32>();
        Parts {
            q8: take(heads * tiles_q * TILE),
            q_scale: take(heads * tiles_q * TOKENS * size_of::<f32>()),
            k8: take(heads * tiles_k * TILE),
            k_scale: take(heads * tiles_k * KEY_SCALES * size_of::<f32>()),
            v_tiles: take(heads * tiles_k * TILE * self.kernel.value_bytes()),
            v_scale: take(channels),
            k_mean: take(channels),
            sums: take(chunks * channels),
            most: take(chunks * channels),
            bytes,
        }
    }
}
