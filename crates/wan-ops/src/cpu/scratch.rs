use std::cell::RefCell;

thread_local! {
    static SCRATCH: RefCell<Vec<Vec<f32>>> = const { RefCell::new(Vec::new()) };
}

/// Lends `body` a slice of `len` values that starts on a cache line; its contents are arbitrary.
///
/// The memory is kept by the thread for the next call: mapping fresh pages for every piece of work costs more
/// than many a piece itself. Calls may nest.
pub(crate) fn with_scratch<T>(len: usize, body: impl FnOnce(&mut [f32]) -> T) -> T {
    const LINE: usize = 16;
    let mut buffer = SCRATCH.with_borrow_mut(Vec::pop).unwrap_or_default();
    if buffer.len() < len + LINE {
        buffer = vec![0.0; len + LINE];
    }
    let start = aligned(&buffer);
    let result = body(&mut buffer[start..start + len]);
    SCRATCH.with_borrow_mut(|free| free.push(buffer));
    result
}

/// A zeroed buffer of `len` values, and where its first whole cache line starts: use `[start..start + len]`.
pub(crate) fn aligned_zeros(len: usize) -> (Vec<f32>, usize) {
    let buffer = vec![0.0; len + 16];
    let start = aligned(&buffer);
    (buffer, start)
}

fn aligned(buffer: &[f32]) -> usize {
    buffer.as_ptr().align_offset(64).min(15)
}
