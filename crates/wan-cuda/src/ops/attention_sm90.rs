use super::{AttentionPlaces, AttentionShape, TokenRows};
use crate::launch::args;
use crate::{DevPtr, Float, Launch};

/// As in `kernels/attention_sm90.cu`.
const DIM: usize = 128;
const TOKENS: usize = 128;
const TILE: usize = TOKENS * DIM * 2;

/// Keys and values, such as those of another attention of the same queries, whose result is added.
#[derive(Debug, Clone, Copy)]
pub struct KeySource {
    /// Keys.
    pub k: TokenRows,
    /// Values.
    pub v: TokenRows,
    /// Tokens, at least one.
    pub keys: usize,
}

/// Bytes of scratch memory for [`attention_sm90`]: keys and values, each head's tokens rounded up to whole tiles.
///
/// `None` for f32 and other `head_dim`s than 128.
pub fn attention_sm90_scratch(
    float: Float,
    shape: AttentionShape,
    second: Option<&KeySource>,
) -> Option<usize> {
    let bytes = 2 * packed_bytes(shape.heads, shape.keys)
        + 2 * second.map_or(0, |second| packed_bytes(shape.heads, second.keys));
    (float != Float::F32 && shape.head_dim == DIM).then_some(bytes)
}

/// Bytes of keys or of values in tiles.
fn packed_bytes(heads: usize, keys: usize) -> usize {
    heads * keys.div_ceil(TOKENS) * TILE
}

/// As [`attention_mma`](super::attention_mma), for compute capability 9.0: products of warpgroups; and of two sources at
/// once. The launches, in order; `scratch`: [`attention_sm90_scratch`] bytes aligned to 256.
///
/// `None` where there is no scratch memory for it, and for rows that do not start at multiples of 16 bytes.
pub fn attention_sm90(
    float: Float,
    shape: AttentionShape,
    places: &AttentionPlaces,
    second: Option<&KeySource>,
    scale: f32,
    scratch: DevPtr,
) -> Option<Vec<Launch>> {
    const PACK_THREADS: u32 = 256;
    const THREADS: u32 = 384;
    const STAGES: usize = 3;
    const SHARED: usize = (1 + 2 * STAGES) * TILE + 1024;
    attention_sm90_scratch(float, shape, second)?;
    let AttentionShape { queries, keys, heads, .. } = shape;
    let AttentionPlaces { q, k, v, y, add } = *places;
    let (pack, attend) = match float {
        Float::Bf16 => ("attention_sm90_pack_bf16", "attention_sm90_bf16"),
        Float::F16 => ("attention_sm90_pack_f16", "attention_sm90_f16"),
        Float::F32 => return None,
    };
    let sources = [Some(KeySource { k, v, keys }), second.copied()];
    let rows = sources.iter().flatten().flat_map(|source| [source.k, source.v]).chain([q]);
    if !rows.into_iter().all(|rows| rows.is_in_pieces(float)) || !y.is_aligned(4) {
        return None;
    }
    let (mut launches, mut args, mut at) = (Vec::new(), args![q.at, q.stride as i64], scratch);
    for source in sources {
        let Some(KeySource { k, v, keys }) = source else {
            args.extend(args![DevPtr::NULL, DevPtr::NULL]);
            continue;
        };
        let bytes = packed_bytes(heads, keys);
        let (k_tiles, v_tiles) = (at, at.offset(bytes));
        at = v_tiles.offset(bytes);
        let packed = args![k.at, k.stride as i64, v.at, v.stride as i64, keys as i32, k_tiles, v_tiles];
        launches.push(Launch::new(pack, 0, PACK_THREADS, packed).with_grid([
            keys.div_ceil(TOKENS),
            heads,
            2,
        ]));
        args.extend(args![k_tiles, v_tiles]);
    }
    let more = second.map_or(0, |second| second.keys);
    args.extend(args![y, queries as i32, keys as i32, more as i32, scale, i32::from(add)]);
    let attend = Launch::new(attend, 0, THREADS, args);
    launches.push(attend.with_grid([queries.div_ceil(TOKENS), heads, 1]).with_shared(SHARED));
    Some(launches)
}
