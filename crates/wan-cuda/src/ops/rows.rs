/// Longest row that kernels which hold a row in the registers of one block can take.
pub const LONGEST_ROW: usize = ROW_THREADS * VALUES_PER_THREAD;

/// As in `kernels/common/row.cuh`.
const ROW_THREADS: usize = 896;

/// As `CHUNKS * GROUP` of `kernels/common/row.cuh`.
const VALUES_PER_THREAD: usize = 16;

/// As `GROUP` of `kernels/common/row.cuh`: neighbouring values that a thread takes at once.
pub(super) const GROUP: usize = 8;

/// Threads that hold a row of `dim` values, whole warps.
///
/// # Panics
/// For a row longer than [`LONGEST_ROW`].
pub(super) fn threads_for_row(dim: usize) -> u32 {
    assert!(dim <= LONGEST_ROW, "a row of {dim} values, expected at most {LONGEST_ROW}");
    dim.div_ceil(VALUES_PER_THREAD).max(1).next_multiple_of(32) as u32
}
