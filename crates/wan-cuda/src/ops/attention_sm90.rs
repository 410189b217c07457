use super::{AttentionPlaces, AttentionShape};
use crate::launch::args;
use crate::{DevPtr, Float, Launch};

/// As in `kernels/attention_sm90.cu`.
const DIM: usize = 128;
const TOKENS: usize = 128;
const TILE: usize = TOKENS * DIM * 2;

/// Bytes of scratch memory for [`attention_sm90`]: keys and values, each head's tokens rounded up to whole tiles.
///
/// `None` for f32 and other `head_dim`s than 128.
pub fn attention_sm90_scratch(float: Float, shape: AttentionShape) -> Option<usize> {
    let tiles = shape.heads * shape.keys.div_ceil(TOKENS);
    (float != Float::F32 && shape.head_dim == DIM).then_some(2 * tiles * TILE)
}

/// As [`attention_mma`](super::attention_mma), for compute capability 9.0: products of warpgroups. The launches, in
/// order; `scratch`: [`attention_sm90_scratch`] bytes aligned to 256.
///
/// `None` where there is no scratch memory for it, and for rows that do not start at multiples of 16 bytes.
pub fn attention_sm90(
    float: Float,
    shape: AttentionShape,
    places: &AttentionPlaces,
    scale: f32,
    scratch: DevPtr,
) -> Option<[Launch; 2]> {
    const PACK_THREADS: u32 = 256;
    const THREADS: u32 = 384;
    const STAGES: usize = 3;
    const SHARED: usize = (1 + 2 * STAGES) * TILE + 1024;
    let bytes = attention_sm90_scratch(float, shape)?;
    let AttentionShape { queries, keys, heads, .. } = shape;
    let AttentionPlaces { q, k, v, y, add } = *places;
    let (pack, attend) = match float {
        Float::Bf16 => ("attention_sm90_pack_bf16", "attention_sm90_bf16"),
        Float::F16 => ("attention_sm90_pack_f16", "attention_sm90_f16"),
        Float::F32 => return None,
    };
    if ![q, k, v].iter().all(|rows| rows.is_in_pieces(float)) || !y.is_aligned(4) {
        return None;
    }
    let (k_tiles, v_tiles) = (scratch, scratch.offset(bytes / 2));
    let packed = args![k.at, k.stride as i64, v.at, v.stride as i64, keys as i32, k_tiles, v_tiles];
    let attended =
        args![q.at, q.stride as i64, k_tiles, v_tiles, y, queries as i32, keys as i32, scale, i32::from(add)];
    Some([
        Launch::new(pack, 0, PACK_THREADS, packed).with_grid([keys.div_ceil(TOKENS), heads, 2]),
        Launch::new(attend, 0, THREADS, attended)
            .with_grid([queries.div_ceil(TOKENS), heads, 1])
            .with_shared(SHARED),
    ])
}
