use serde::Serialize;
use wan_core::memory;

/// Part of the main memory that is free which a choice may count on; the rest is for the video's encoder, the mapped
/// weights' pages and everything unforeseen.
const HOST_SHARE: (u64, u64) = (17, 20);

/// The same of a GPU's memory: only the allocator's gaps are unforeseen there.
const DEVICE_SHARE: (u64, u64) = (19, 20);

/// Limits that the user sets, in bytes; what is not set is asked of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MemoryLimits {
    /// Memory of the GPU.
    pub vram: Option<u64>,
    /// Main memory that the job may allocate.
    pub ram: Option<u64>,
}

/// Where the models compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Processor {
    /// In main memory, on weights mapped from their files.
    Cpu,
    /// On a GPU, in its own memory.
    Gpu,
}

/// What a job may use, in bytes; `None` where nobody can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Budget {
    /// Where the models compute.
    pub processor: Processor,
    /// Main memory that may be allocated.
    pub host_bytes: Option<u64>,
    /// Whether `host_bytes` is the user's word, which a choice may use up, or what happens to be free.
    pub host_is_limit: bool,
    /// Memory of the GPU, the context and the libraries included.
    pub device_bytes: Option<u64>,
}

impl Budget {
    /// The limits that are set; else the main memory that is free now, and `free_vram` of the GPU, as its driver says.
    pub fn of_this_machine(processor: Processor, limits: MemoryLimits, free_vram: Option<u64>) -> Self {
        Self {
            processor,
            host_bytes: limits.ram.or_else(memory::available_bytes),
            host_is_limit: limits.ram.is_some(),
            device_bytes: match processor {
                Processor::Cpu => None,
                Processor::Gpu => limits.vram.or(free_vram),
            },
        }
    }

    /// Main memory to choose settings by.
    pub(crate) fn host_to_choose_by(&self) -> u64 {
        match self.host_bytes {
            None => u64::MAX,
            Some(limit) if self.host_is_limit => limit,
            Some(free) => part(free, HOST_SHARE),
        }
    }

    /// Memory of the GPU to choose settings by.
    pub(crate) fn device_to_choose_by(&self) -> u64 {
        self.device_bytes.map_or(u64::MAX, |bytes| part(bytes, DEVICE_SHARE))
    }
}

fn part(bytes: u64, (numerator, denominator): (u64, u64)) -> u64 {
    bytes / denominator * numerator
}
