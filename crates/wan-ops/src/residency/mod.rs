//! Where the weights of a model's parts (blocks, layers) lie while it computes on a GPU, and bringing them in time.
//!
//! Resident parts are uploaded once. Swapped parts lie in host memory; a copy stream brings the next ones into a few
//! slots on the device while the present one computes. The order is made by [`schedule`], which knows no device.

#[cfg_attr(not(feature = "cuda"), allow(dead_code))] // used and tested without
mod arena;
#[cfg(feature = "cuda")]
mod cuda;
#[cfg_attr(not(feature = "cuda"), allow(dead_code))]
mod schedule;
#[cfg(test)]
mod simulation;
#[cfg_attr(not(feature = "cuda"), allow(dead_code))]
mod slab;
#[cfg(feature = "cuda")]
mod stager;
#[cfg_attr(not(feature = "cuda"), allow(dead_code))]
mod swapper;
#[cfg(test)]
mod tests;

use candle_core::Device;
use wan_core::Result;

use crate::Linear;

/// Slots on the device that swapped parts take turns in: one in use, one filling, one more to even out the link.
pub const SWAP_SLOTS: usize = 3;

/// What a swapped part is copied from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostSide {
    /// A copy of its own in pinned memory, made once: for parts that are visited again and again. Copies take no time
    /// of the host's.
    Pinned,
    /// Its file, through a small pinned buffer, at every visit: for parts that are visited once or twice.
    Mapped,
}

/// Copies of parts in pinned memory, made in the background before the parts are placed. Nothing on the CPU.
pub struct HostCopies {
    #[cfg(feature = "cuda")]
    copies: Option<cuda::HostCopies>,
}

impl HostCopies {
    /// Starts to copy those of `parts` whose number is in `swapped`, for a later [`Residency::place`] of the same ones.
    /// Dropping it stops that and frees them.
    ///
    /// Errors: the driver's.
    pub fn start(device: &Device, parts: Vec<Vec<Linear>>, swapped: &[usize]) -> Result<Self> {
        #[cfg(feature = "cuda")]
        if let Device::Cuda(device) = device {
            return Ok(Self { copies: Some(cuda::HostCopies::start(device, parts, swapped)?) });
        }
        let _ = (device, parts, swapped);
        Ok(Self {
            #[cfg(feature = "cuda")]
            copies: None,
        })
    }
}

impl std::fmt::Debug for HostCopies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HostCopies")
    }
}

/// Where the parts of a model lie. On the CPU they stay in their files and nothing here has an effect.
pub struct Residency {
    #[cfg(feature = "cuda")]
    placed: Option<std::sync::Mutex<cuda::Placed>>,
}

impl Residency {
    /// Nothing decided: on a GPU each layer uploads its weight at its first use and keeps it.
    pub fn on_demand() -> Self {
        Self {
            #[cfg(feature = "cuda")]
            placed: None,
        }
    }

    /// Places the weights of `parts`, given as the layers of each, in the order in which they are visited. Parts whose
    /// number is in `swapped` go through at most [`SWAP_SLOTS`] slots; the others are uploaded now. `copies` of the same
    /// parts, if they were started before, take the place of those that [`HostSide::Pinned`] would make.
    ///
    /// Changes beside a weight (LoRA) and biases are no part of this: they stay on the device, where a layer puts them
    /// at its first use.
    ///
    /// Errors: [`wan_core::Error::OutOfMemory`] where the device has no room; the driver's errors.
    pub fn place(
        device: &Device,
        parts: Vec<Vec<Linear>>,
        swapped: &[usize],
        host: HostSide,
        copies: Option<HostCopies>,
    ) -> Result<Self> {
        #[cfg(feature = "cuda")]
        if let Device::Cuda(device) = device {
            let copies = copies.and_then(|copies| copies.copies);
            let placed = cuda::Placed::new(device, parts, swapped, host, copies)?;
            return Ok(Self { placed: Some(std::sync::Mutex::new(placed)) });
        }
        let _ = (device, parts, swapped, host, copies);
        Ok(Self::on_demand())
    }

    /// A pass over the parts. One at a time: another one waits until this is dropped.
    ///
    /// Errors: the driver's.
    pub fn pass(&self) -> Result<Pass<'_>> {
        #[cfg(feature = "cuda")]
        if let Some(placed) = &self.placed {
            let mut placed = placed.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            placed.begin()?;
            return Ok(Pass { placed: Some(placed), _of: std::marker::PhantomData });
        }
        Ok(Pass {
            #[cfg(feature = "cuda")]
            placed: None,
            _of: std::marker::PhantomData,
        })
    }
}

impl std::fmt::Debug for Residency {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        #[cfg(feature = "cuda")]
        if self.placed.is_some() {
            return f.write_str("Residency(placed)");
        }
        f.write_str("Residency(on demand)")
    }
}

/// A pass over a model's parts; see [`Residency::pass`]. It may end anywhere.
pub struct Pass<'a> {
    #[cfg(feature = "cuda")]
    placed: Option<std::sync::MutexGuard<'a, cuda::Placed>>,
    _of: std::marker::PhantomData<&'a Residency>,
}

impl Pass<'_> {
    /// What is launched from now on may use the weights of `part`, until [`Pass::leave`].
    ///
    /// Errors: the driver's; those of reading its file.
    pub fn enter(&mut self, part: usize) -> Result<()> {
        #[cfg(feature = "cuda")]
        if let Some(placed) = &mut self.placed {
            return placed.enter(part);
        }
        let _ = part;
        Ok(())
    }

    /// Ends the visit of the part entered last; its slot is refilled behind what was launched.
    ///
    /// Errors: as [`Pass::enter`].
    pub fn leave(&mut self) -> Result<()> {
        #[cfg(feature = "cuda")]
        if let Some(placed) = &mut self.placed {
            return placed.leave();
        }
        Ok(())
    }
}

/// Gives back what the allocators of a device and of the host keep for later use, and a device's scratch, once all work on
/// it is done.
///
/// Errors: the driver's.
pub fn release_unused(device: &Device) -> Result<()> {
    wan_core::memory::release_unused();
    #[cfg(feature = "cuda")]
    if let Device::Cuda(device) = device {
        return cuda::release_unused(device);
    }
    let _ = device;
    Ok(())
}
