//! The schedule on a GPU's streams.

use std::sync::Arc;

use candle_core::cuda_backend::CudaDevice;
use wan_core::Result;
use wan_cuda::gpu::{CopyStream, DeviceSlab, Event, Gpu, Pinned};

use super::arena::{ArenaPart, HostArena};
use super::schedule::{Action, SwapSchedule};
use super::slab::SlabLayout;
use super::stager::Stager;
use super::swapper::{Queues, Swapper};
use super::{HostSide, SWAP_SLOTS};
use crate::Linear;
use crate::linear::Place;

/// A model's parts on a GPU.
pub(super) struct Placed {
    parts: Arc<[Part]>,
    /// The swapped part whose layers point at a slot.
    visited: Option<usize>,
    swapper: Swapper<Streams>,
}

/// Layers that are visited together.
struct Part {
    layers: Vec<Linear>,
    layout: SlabLayout,
}

impl Part {
    fn new(layers: Vec<Linear>) -> Self {
        let layout = SlabLayout::new(layers.iter().map(|layer| layer.stored().bytes().len()));
        Self { layers, layout }
    }

    /// Tells the layers that their weights lie in `slab`.
    fn put_into(&self, slab: &DeviceSlab) {
        for (layer, offset) in self.layers.iter().zip(self.layout.offsets()) {
            layer.set_place(Place::Slot { slab: slab.memory(), offset: *offset });
        }
    }

    /// Tells the layers that their weights lie in the file only.
    fn put_back(&self) {
        self.layers.iter().for_each(|layer| layer.set_place(Place::Mapped));
    }

    /// Puts the upload of all weights on the copy stream.
    fn upload(&self, stager: &mut Stager, stream: &CopyStream, slab: &DeviceSlab) -> Result<()> {
        for (layer, offset) in self.layers.iter().zip(self.layout.offsets()) {
            let bytes = layer.stored().bytes();
            // SAFETY: the slab has room for the layout's bytes, and its owner waits for the stream before it goes.
            #[allow(unsafe_code)]
            unsafe { stager.upload(stream, bytes, slab.ptr().offset(*offset)) }.map_err(error)?;
        }
        Ok(())
    }
}

impl Placed {
    pub fn new(
        device: &CudaDevice,
        parts: Vec<Vec<Linear>>,
        swapped: &[usize],
        host: HostSide,
        copies: Option<HostCopies>,
    ) -> Result<Self> {
        let gpu = Gpu::of(device).map_err(error)?;
        let parts: Arc<[Part]> = parts.into_iter().map(Part::new).collect();
        let swapped = in_order(swapped, parts.len());
        // First of all: its threads read files while the rest is uploaded.
        let source = match (host, copies) {
            (HostSide::Pinned, Some(copies)) if copies.swapped == swapped => Source::Pinned(copies.arena),
            (HostSide::Pinned, copies) => {
                drop(copies); // of other parts: their memory goes first
                Source::Pinned(arena(&gpu, &parts, &swapped))
            }
            (HostSide::Mapped, _) => Source::Mapped,
        };
        let again = host == HostSide::Pinned;
        let schedule = SwapSchedule::new(&swapped, SWAP_SLOTS, again);
        let largest = swapped.iter().map(|index| parts[*index].layout.bytes()).max().unwrap_or(0);
        let slots = (0..schedule.slots()).map(|_| Slot::new(&gpu, largest)).collect::<Result<_>>()?;
        let streams = Streams {
            copy: CopyStream::new(&gpu).map_err(error)?,
            stager: None,
            source,
            slots,
            resident: Vec::new(),
            swapped,
            parts: parts.clone(),
            gpu,
        };
        // Whole before anything is uploaded: where that fails, dropping it frees what was.
        let mut placed = Self { parts, visited: None, swapper: Swapper::new(schedule, streams) };
        placed.swapper.queues_mut().upload_resident()?;
        Ok(placed)
    }

    pub fn begin(&mut self) -> Result<()> {
        self.put_back();
        self.swapper.begin()
    }

    pub fn enter(&mut self, part: usize) -> Result<()> {
        self.put_back();
        if let Some(slot) = self.swapper.enter(part)? {
            self.parts[part].put_into(&self.swapper.queues().slots[slot].slab);
            self.visited = Some(part);
        }
        Ok(())
    }

    pub fn leave(&mut self) -> Result<()> {
        self.put_back();
        self.swapper.leave()
    }

    /// A slot is read during its visit only: used at any other time, a layer uploads its own copy.
    fn put_back(&mut self) {
        if let Some(part) = self.visited.take() {
            self.parts[part].put_back();
        }
    }
}

impl Drop for Placed {
    /// Layers outlive this in clones: they must not keep slabs alive, nor read slots that others use.
    fn drop(&mut self) {
        self.parts.iter().for_each(Part::put_back);
    }
}

/// Copies in pinned memory that were started before their parts are placed.
pub(super) struct HostCopies {
    swapped: Vec<usize>,
    arena: HostArena<Pinned>,
}

impl HostCopies {
    pub fn start(device: &CudaDevice, parts: Vec<Vec<Linear>>, swapped: &[usize]) -> Result<Self> {
        let gpu = Gpu::of(device).map_err(error)?;
        let parts: Vec<Part> = parts.into_iter().map(Part::new).collect();
        let swapped = in_order(swapped, parts.len());
        Ok(Self { arena: arena(&gpu, &parts, &swapped), swapped })
    }
}

/// Those of the numbers that there are, rising.
fn in_order(swapped: &[usize], parts: usize) -> Vec<usize> {
    (0..parts).filter(|index| swapped.contains(index)).collect()
}

/// One slot, and the two events that order its use.
struct Slot {
    slab: DeviceSlab,
    filled: Event,
    free: Event,
}

impl Slot {
    fn new(gpu: &Gpu, bytes: usize) -> Result<Self> {
        let slab = DeviceSlab::new(gpu, bytes).map_err(error)?;
        let slot =
            Self { slab, filled: Event::new(gpu).map_err(error)?, free: Event::new(gpu).map_err(error)? };
        // The allocation is an entry of the compute stream: the first copy must come behind it.
        gpu.record(&slot.free).map_err(error)?;
        Ok(slot)
    }
}

/// Where swapped parts come from.
enum Source {
    /// One slab per swapped part, in their order.
    Pinned(HostArena<Pinned>),
    Mapped,
}

fn arena(gpu: &Arc<Gpu>, parts: &[Part], swapped: &[usize]) -> HostArena<Pinned> {
    let of = |index: &usize| {
        let Part { layers, layout } = &parts[*index];
        ArenaPart { tensors: layers.iter().map(|l| l.stored().clone()).collect(), layout: layout.clone() }
    };
    let gpu = gpu.clone();
    HostArena::start(swapped.iter().map(of).collect(), move |bytes| Pinned::new(&gpu, bytes).map_err(error))
}

/// The copy stream, the compute stream, and the memory between which they copy.
struct Streams {
    copy: CopyStream,
    /// Made at its first use.
    stager: Option<Stager>,
    source: Source,
    slots: Vec<Slot>,
    /// Slabs of resident parts.
    resident: Vec<DeviceSlab>,
    swapped: Vec<usize>,
    parts: Arc<[Part]>,
    gpu: Arc<Gpu>,
}

impl Streams {
    /// One slab for each resident part.
    fn upload_resident(&mut self) -> Result<()> {
        for index in 0..self.parts.len() {
            if self.swapped.binary_search(&index).is_ok() {
                continue;
            }
            let part = &self.parts[index];
            let slab = DeviceSlab::new(&self.gpu, part.layout.bytes()).map_err(error)?;
            let allocated = Event::new(&self.gpu).map_err(error)?;
            self.gpu.record(&allocated).map_err(error)?;
            self.copy.wait(&allocated).map_err(error)?;
            // Kept before the copies are queued: dropping `self` waits for them.
            self.resident.push(slab);
            let slab = &self.resident[self.resident.len() - 1];
            part.upload(stager(&mut self.stager, &self.gpu)?, &self.copy, slab)?;
            part.put_into(slab);
        }
        let uploaded = Event::new(&self.gpu).map_err(error)?;
        self.copy.record(&uploaded).map_err(error)?;
        self.gpu.wait(&uploaded).map_err(error)?;
        if matches!(self.source, Source::Pinned(_)) && self.stager.is_some() {
            self.copy.finish(); // the buffer is read until then
            self.stager = None;
        }
        Ok(())
    }

    fn fill(&mut self, part: usize, slot: usize) -> Result<()> {
        let slab = &self.slots[slot].slab;
        match &self.source {
            Source::Pinned(arena) => {
                let memory = arena.part(self.swapped.binary_search(&part).unwrap_or(usize::MAX))?;
                // SAFETY: slots are as large as the largest part; the arena outlives the stream's work, see `drop`.
                #[allow(unsafe_code)]
                unsafe { self.copy.copy(&memory, self.parts[part].layout.bytes(), slab.ptr()) }.map_err(error)
            }
            Source::Mapped => self.parts[part].upload(stager(&mut self.stager, &self.gpu)?, &self.copy, slab),
        }
    }
}

fn stager<'a>(stager: &'a mut Option<Stager>, gpu: &Gpu) -> Result<&'a mut Stager> {
    Ok(match stager {
        Some(stager) => stager,
        None => stager.insert(Stager::new(gpu).map_err(error)?),
    })
}

impl Queues for Streams {
    type Error = wan_core::Error;

    fn put(&mut self, action: Action) -> Result<()> {
        match action {
            Action::AwaitFree { slot } => self.copy.wait(&self.slots[slot].free).map_err(error),
            Action::Copy { part, slot } => self.fill(part, slot),
            Action::RecordFilled { slot } => self.copy.record(&self.slots[slot].filled).map_err(error),
            Action::AwaitFilled { slot } => self.gpu.wait(&self.slots[slot].filled).map_err(error),
            Action::RecordFree { slot } => self.gpu.record(&self.slots[slot].free).map_err(error),
        }
    }
}

impl Drop for Streams {
    /// No copy may be under way when the slabs and the pinned memory go. Kernels may: slabs are freed behind them.
    fn drop(&mut self) {
        self.copy.finish();
    }
}

pub(super) fn release_unused(device: &CudaDevice) -> Result<()> {
    Gpu::of(device).and_then(|gpu| gpu.release_unused()).map_err(error)
}

fn error(error: wan_cuda::gpu::GpuError) -> wan_core::Error {
    candle_core::Error::from(error).into()
}
