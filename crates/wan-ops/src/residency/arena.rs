//! Copies of weights in memory that a device can read at full speed, filled in the background.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use wan_core::{Error, Result, Stored};

use super::slab::SlabLayout;

/// Threads that fill an arena: enough for a fast disk, and for main memory's bandwidth.
const THREADS: usize = 4;

/// One piece of memory for each part, laid out like the device's slots. Threads of its own read the parts from their
/// files, in order; whoever asks for one waits until it is there. Dropping it stops them.
pub(crate) struct HostArena<M> {
    shared: Arc<Shared<M>>,
    threads: Vec<JoinHandle<()>>,
}

/// A part's tensors and where each goes.
pub(crate) struct ArenaPart {
    pub tensors: Vec<Stored>,
    pub layout: SlabLayout,
}

struct Shared<M> {
    parts: Vec<ArenaPart>,
    slabs: Mutex<Vec<Slab<M>>>,
    changed: Condvar,
    next: AtomicUsize,
    stop: AtomicBool,
}

enum Slab<M> {
    Awaited,
    Filled(Arc<M>),
    /// The error, until somebody has asked for it.
    Failed(Option<Error>),
}

impl<M: AsMut<[u8]> + Send + Sync + 'static> HostArena<M> {
    /// Starts to fill memory from `allocate`, which gets the number of bytes.
    pub fn start(
        parts: Vec<ArenaPart>,
        allocate: impl Fn(usize) -> Result<M> + Send + Sync + 'static,
    ) -> Self {
        let slabs = Mutex::new(parts.iter().map(|_| Slab::Awaited).collect());
        let threads = THREADS.min(parts.len());
        let shared = Arc::new(Shared {
            parts,
            slabs,
            changed: Condvar::new(),
            next: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
        });
        let allocate = Arc::new(allocate);
        let threads = (0..threads).map(|_| {
            let (shared, allocate) = (shared.clone(), allocate.clone());
            std::thread::spawn(move || shared.fill(&*allocate))
        });
        Self { threads: threads.collect(), shared }
    }

    /// The memory of a part, once it is filled.
    ///
    /// Errors: what kept it from being filled.
    pub fn part(&self, part: usize) -> Result<Arc<M>> {
        let mut slabs = self.shared.slabs();
        loop {
            match slabs.get_mut(part) {
                Some(Slab::Filled(memory)) => return Ok(memory.clone()),
                Some(Slab::Awaited) => {}
                Some(Slab::Failed(error)) => {
                    let again = || Error::invalid("weights in host memory", "a failed copy", "a whole one");
                    return Err(error.take().unwrap_or_else(again));
                }
                None => return Err(Error::invalid("part of a model", part, "one of those in host memory")),
            }
            slabs = self.shared.changed.wait(slabs).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl<M> Shared<M> {
    fn slabs(&self) -> MutexGuard<'_, Vec<Slab<M>>> {
        self.slabs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<M: AsMut<[u8]>> Shared<M> {
    fn fill(&self, allocate: &impl Fn(usize) -> Result<M>) {
        loop {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(part) = self.parts.get(index).filter(|_| !self.stop.load(Ordering::Relaxed)) else {
                return;
            };
            // Reading a mapped file that shrinks is a fault, not a panic; this is for the allocator.
            let filled = catch_unwind(AssertUnwindSafe(|| self.filled(part, allocate)));
            let filled = filled
                .unwrap_or_else(|_| Err(Error::invalid("weights in host memory", "a panic", "a whole copy")));
            self.slabs()[index] = match filled {
                Ok(memory) => Slab::Filled(Arc::new(memory)),
                Err(error) => Slab::Failed(Some(error)),
            };
            self.changed.notify_all();
        }
    }

    fn filled(&self, part: &ArenaPart, allocate: &impl Fn(usize) -> Result<M>) -> Result<M> {
        let mut memory = allocate(part.layout.bytes())?;
        let slab = memory.as_mut();
        for (tensor, offset) in part.tensors.iter().zip(part.layout.offsets()) {
            if self.stop.load(Ordering::Relaxed) {
                return Err(Error::Cancelled);
            }
            let bytes = tensor.bytes();
            slab[*offset..*offset + bytes.len()].copy_from_slice(bytes);
        }
        Ok(memory)
    }
}

impl<M> Drop for HostArena<M> {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join(); // it catches its panics
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::DType;
    use wan_core::weights::Bytes;

    use super::*;

    fn part(number: u8, sizes: &[usize]) -> ArenaPart {
        let tensors = sizes.iter().map(|size| {
            let bytes = (0..*size).map(|i| number ^ i as u8).collect::<Vec<_>>();
            Stored::new("t", DType::U8, vec![*size], Bytes::new(bytes)).unwrap()
        });
        ArenaPart { tensors: tensors.collect(), layout: SlabLayout::new(sizes.iter().copied()) }
    }

    #[test]
    fn parts_are_laid_out_as_in_the_slots_and_wait_for_nobody_else() {
        let arena =
            HostArena::start((0..20).map(|n| part(n, &[300, 7, 512])).collect(), |n| Ok(vec![0u8; n]));
        for n in (0..20u8).rev() {
            let memory = arena.part(usize::from(n)).unwrap();
            assert_eq!(memory.len(), 1280);
            for (start, size) in [(0, 300), (512, 7), (768, 512)] {
                assert!(memory[start..start + size].iter().enumerate().all(|(i, b)| *b == n ^ i as u8));
            }
        }
        assert!(arena.part(20).is_err());
    }

    #[test]
    fn a_failure_is_told_to_whoever_asks_and_the_other_parts_arrive() {
        let allocate = |bytes: usize| match bytes {
            256 => Ok(vec![0u8; 256]),
            512 => panic!("no memory"),
            _ => Err(Error::invalid("memory", "none", "some")),
        };
        let arena =
            HostArena::start(vec![part(0, &[1]), part(1, &[600]), part(2, &[400]), part(3, &[2])], allocate);
        assert!(arena.part(1).unwrap_err().to_string().starts_with("memory: "));
        assert!(arena.part(1).is_err());
        assert!(arena.part(2).unwrap_err().to_string().contains("panic"));
        assert!(arena.part(3).is_ok() && arena.part(0).is_ok());
    }

    #[test]
    fn dropping_stops_the_threads_and_frees_the_memory() {
        let alive = Arc::new(());
        struct Counted(Vec<u8>, #[allow(dead_code)] Arc<()>);
        impl AsMut<[u8]> for Counted {
            fn as_mut(&mut self) -> &mut [u8] {
                &mut self.0
            }
        }
        let counter = alive.clone();
        let arena = HostArena::start((0..8).map(|n| part(n, &[64])).collect(), move |bytes| {
            Ok(Counted(vec![0; bytes], counter.clone()))
        });
        arena.part(7).unwrap();
        drop(arena);
        assert_eq!(Arc::strong_count(&alive), 1);
    }
}
