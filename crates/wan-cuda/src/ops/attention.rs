use crate::launch::args;
use crate::{DevPtr, Float, Launch};

/// Sizes of an attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AttentionShape {
    /// Tokens that ask.
    pub queries: usize,
    /// Tokens that are asked, at least one.
    pub keys: usize,
    /// Heads.
    pub heads: usize,
    /// Channels of a head.
    pub head_dim: usize,
}

/// `[tokens, heads, head_dim]`, the heads of a token behind each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenRows {
    /// The first token.
    pub at: DevPtr,
    /// Values from a token to the next, at least `heads * head_dim`; more where q, k and v share a buffer.
    pub stride: usize,
}

/// Addresses of an attention, all of one format.
#[derive(Debug, Clone, Copy)]
pub struct AttentionPlaces {
    /// Queries.
    pub q: TokenRows,
    /// Keys.
    pub k: TokenRows,
    /// Values.
    pub v: TokenRows,
    /// `[queries, heads, head_dim]`, contiguous.
    pub y: DevPtr,
    /// Whether the result is added to what `y` holds.
    pub add: bool,
}

/// Largest `head_dim` of [`attention`].
pub const LARGEST_HEAD: usize = 384;

/// `y = softmax(scale q kᵀ + bias) v` for each head, all arithmetic f32; `bias` is `[heads, queries, keys]` f32, null
/// for none. For any `head_dim` up to [`LARGEST_HEAD`]; `None` beyond.
pub fn attention(
    float: Float,
    shape: AttentionShape,
    places: &AttentionPlaces,
    scale: f32,
    bias: DevPtr,
) -> Option<Launch> {
    /// As in `kernels/attention.cu`.
    const KEYS: usize = 32;
    const WARPS: usize = 8;
    let AttentionShape { queries, keys, heads, head_dim } = shape;
    let (kernel, rows) = match (head_dim, float) {
        (0..=64, Float::F32) => ("attention_64_f32", 4),
        (0..=64, Float::Bf16) => ("attention_64_bf16", 4),
        (0..=64, Float::F16) => ("attention_64_f16", 4),
        (65..=128, Float::F32) => ("attention_128_f32", 4),
        (65..=128, Float::Bf16) => ("attention_128_bf16", 4),
        (65..=128, Float::F16) => ("attention_128_f16", 4),
        (129..=LARGEST_HEAD, Float::F32) => ("attention_384_f32", 3),
        (129..=LARGEST_HEAD, Float::Bf16) => ("attention_384_bf16", 3),
        (129..=LARGEST_HEAD, Float::F16) => ("attention_384_f16", 3),
        _ => return None,
    };
    let block = WARPS * rows;
    let fours = head_dim.div_ceil(4);
    let shared = (block * fours + KEYS * (fours | 1)) * 4 * size_of::<f32>();
    let AttentionPlaces { q, k, v, y, add } = *places;
    let args = args![
        q.at,
        k.at,
        v.at,
        bias,
        y,
        q.stride as i64,
        k.stride as i64,
        v.stride as i64,
        queries as i32,
        keys as i32,
        head_dim as i32,
        scale,
        i32::from(add)
    ];
    let launch = Launch::new(kernel, 0, WARPS as u32 * 32, args);
    Some(launch.with_grid([queries.div_ceil(block), heads, 1]).with_shared(shared))
}

/// As [`attention`] without a bias, on the tensor cores: products of 16-bit values with f32 sums.
///
/// `None` for other formats than bf16 and f16, other `head_dim`s than 64, 128 and 384, and rows that do not start at
/// multiples of 16 bytes.
pub fn attention_mma(
    float: Float,
    shape: AttentionShape,
    places: &AttentionPlaces,
    scale: f32,
) -> Option<Launch> {
    /// As in `kernels/attention_mma.cu`.
    const STAGES: usize = 2;
    const WHOLE: Block = Block { parts: 1, keys: 64, warps: 8 };
    const PARTS: Block = Block { parts: 3, keys: 32, warps: 4 };
    struct Block {
        parts: usize,
        keys: usize,
        warps: usize,
    }
    let AttentionShape { queries, keys, heads, head_dim } = shape;
    let (kernel, block) = match (head_dim, float) {
        (64, Float::Bf16) => ("attention_mma_64_bf16", WHOLE),
        (64, Float::F16) => ("attention_mma_64_f16", WHOLE),
        (128, Float::Bf16) => ("attention_mma_128_bf16", WHOLE),
        (128, Float::F16) => ("attention_mma_128_f16", WHOLE),
        (384, Float::Bf16) => ("attention_mma_384_bf16", PARTS),
        (384, Float::F16) => ("attention_mma_384_f16", PARTS),
        _ => return None,
    };
    let AttentionPlaces { q, k, v, y, add } = *places;
    if ![q, k, v].iter().all(|rows| rows.is_in_pieces(float)) || !y.is_aligned(4) {
        return None;
    }
    let shared = STAGES * block.keys * (head_dim + head_dim / block.parts) * float.size();
    let args = args![
        q.at,
        k.at,
        v.at,
        y,
        q.stride as i64,
        k.stride as i64,
        v.stride as i64,
        queries as i32,
        keys as i32,
        scale,
        i32::from(add)
    ];
    let launch = Launch::new(kernel, 0, 32 * block.warps as u32, args);
    Some(launch.with_grid([queries.div_ceil(16 * block.warps), heads, block.parts]).with_shared(shared))
}

impl TokenRows {
    /// Whether every token starts at a multiple of 16 bytes.
    pub(super) fn is_in_pieces(self, float: Float) -> bool {
        self.at.is_aligned(16) && (self.stride * float.size()).is_multiple_of(16)
    }
}
