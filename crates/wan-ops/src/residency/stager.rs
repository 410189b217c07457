//! From mapped files to the device through a small pinned buffer.

use rayon::prelude::*;
use wan_cuda::DevPtr;
use wan_cuda::gpu::{CopyStream, Event, Gpu, GpuError, Pinned};

/// Bytes of one half of the buffer: one is filled while the other is copied.
const HALF: usize = 32 << 20;

/// Bytes that one thread copies at a time.
const PIECE: usize = 1 << 20;

/// Two pinned halves, used in turn.
pub(super) struct Stager {
    halves: [Half; 2],
    next: usize,
}

struct Half {
    memory: Pinned,
    copied: Event,
}

impl Stager {
    pub fn new(gpu: &Gpu) -> Result<Self, GpuError> {
        let half = || Ok(Half { memory: Pinned::new(gpu, HALF)?, copied: Event::new(gpu)? });
        Ok(Self { halves: [half()?, half()?], next: 0 })
    }

    /// Puts copies of `bytes` to `to` on the copy stream. The host waits for room in the buffer.
    ///
    /// # Safety
    /// `to` must be device memory of as many bytes, valid until the stream has passed the copies.
    #[allow(unsafe_code)]
    pub unsafe fn upload(&mut self, stream: &CopyStream, bytes: &[u8], to: DevPtr) -> Result<(), GpuError> {
        for (index, chunk) in bytes.chunks(HALF).enumerate() {
            let half = &mut self.halves[self.next];
            self.next = 1 - self.next;
            half.copied.synchronize()?; // at once where nothing was recorded yet
            let memory = &mut half.memory.as_mut()[..chunk.len()];
            memory
                .par_chunks_mut(PIECE)
                .zip(chunk.par_chunks(PIECE))
                .for_each(|(to, from)| to.copy_from_slice(from));
            // SAFETY: `to` is the caller's; the half is written again only behind its event.
            unsafe { stream.copy(&half.memory, chunk.len(), to.offset(index * HALF)) }?;
            stream.record(&half.copied)?;
        }
        Ok(())
    }
}
