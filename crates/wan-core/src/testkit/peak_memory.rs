use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// The system's allocator, counting: for tests of how much memory something takes. A test binary makes it its
/// `#[global_allocator]` and has one test, since all threads count together.
pub struct PeakMemory {
    live: AtomicUsize,
    peak: AtomicUsize,
}

impl PeakMemory {
    /// Nothing allocated yet.
    pub const fn new() -> Self {
        Self { live: AtomicUsize::new(0), peak: AtomicUsize::new(0) }
    }

    /// Most bytes that were allocated at one time while `work` ran, beyond those before it, and its result.
    pub fn of<T>(&self, work: impl FnOnce() -> T) -> (usize, T) {
        let before = self.begin();
        let result = work();
        (self.since(before), result)
    }

    /// Begins a measurement where one closure does not hold it; returns the bytes allocated now.
    pub fn begin(&self) -> usize {
        let live = self.live.load(Relaxed);
        self.peak.store(live, Relaxed);
        live
    }

    /// Most bytes that were allocated at one time since [`PeakMemory::begin`], beyond the `before` that it returned.
    pub fn since(&self, before: usize) -> usize {
        self.peak.load(Relaxed) - before
    }

    fn add(&self, bytes: usize) {
        let live = self.live.fetch_add(bytes, Relaxed) + bytes;
        self.peak.fetch_max(live, Relaxed);
    }
}

impl Default for PeakMemory {
    fn default() -> Self {
        Self::new()
    }
}

#[allow(unsafe_code)]
// SAFETY: every call goes to the system's allocator unchanged; the counters touch no memory of its blocks. The
// provided `realloc` and `alloc_zeroed` come down to these two.
unsafe impl GlobalAlloc for PeakMemory {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.add(layout.size());
        // SAFETY: the caller's promises about `layout` are those that `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        self.live.fetch_sub(layout.size(), Relaxed);
        // SAFETY: `block` came from `System.alloc` with this layout, above.
        unsafe { System.dealloc(block, layout) }
    }
}
