use rayon::prelude::*;

/// Values that one piece of row-wise work writes: enough to outweigh handing it out, few enough for the cache.
const PIECE: usize = 1 << 14;

/// Calls `body(first, rows)` for consecutive blocks of whole rows of `out`, `dim` values each, in parallel;
/// `first` is the number of the block's first row.
pub(crate) fn for_row_blocks(out: &mut [f32], dim: usize, body: impl Fn(usize, &mut [f32]) + Sync) {
    if out.is_empty() {
        return;
    }
    let rows = (PIECE / dim).max(1);
    out.par_chunks_mut(rows * dim).enumerate().for_each(|(i, block)| body(i * rows, block));
}
