use super::{AttentionPlaces, AttentionShape};
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
    /// `None` for f32, for rows that do not start at multiples of 16 bytes, and for adding to the output.
    pub fn launches(
        &self,
        float: Float,
        places: &AttentionPlaces,
        scale: f32,
        scratch: DevPtr,
    ) -> Option<Vec<Launch>> {
        let AttentionPlaces { q, k, v, y, add } = *places;
        let aligned = [q, k, v].iter().all(|rows| rows.is_in_pieces(float)) && y.is_aligned(4);
        if !aligned || add || float == Float::F32 {
            return None;
        }
        let AttentionShape { queries, keys, heads, .. } = self.shape;
        let (tiles_q, tiles_k, chunks) = self.tiles();
        let at = self.parts(scratch);
        let name = |bf16, f16| if float == Float::Bf16 { bf16 } else { f16 };
        let launch = |kernel, grid, args| Launch::new(kernel, 0, THREADS, args).with_grid(grid);
        let (halve_v, quantise_v) = (
            name("sage_halve_v_bf16", "sage_halve_v_f16"),
            name("sage_quantise_v_bf16", "sage_quantise_v_f16"),
        );
        let scale_v = if self.kernel == SageKernel::Half { halve_v } else { quantise_v };
        Some(vec![
            launch(
                name("sage_statistics_bf16", "sage_statistics_f16"),
                [chunks, heads, 1],
                args![k.at, v.at, k.stride as i64, v.stride as i64, keys as i32, at.sums, at.most],
            ),
            Launch::new(
                "sage_channels",
                heads,
                DIM as u32,
                args![
                    at.sums,
                    at.most,
                    chunks as i32,
                    keys as i32,
                    self.kernel.largest_value(),
                    at.k_mean,
                    at.v_scale
                ],
            ),
            launch(
                name("sage_quantise_q_bf16", "sage_quantise_q_f16"),
                [tiles_q, heads, 1],
                args![
                    q.at,
                    q.stride as i64,
                    queries as i32,
                    scale * std::f32::consts::LOG2_E,
                    at.q8,
                    at.q_scale
                ],
            ),
            launch(
                name("sage_quantise_k_bf16", "sage_quantise_k_f16"),
                [tiles_k, heads, 1],
                args![k.at, k.stride as i64, keys as i32, at.k_mean, at.k8, at.k_scale],
            ),
            launch(
                scale_v,
                [tiles_k, heads, 1],
                args![v.at, v.stride as i64, keys as i32, at.v_scale, at.v_tiles],
            ),
            self.attention(float, places, &at),
        ])
    }

    fn attention(&self, float: Float, places: &AttentionPlaces, at: &Parts) -> Launch {
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
            places.y,
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
