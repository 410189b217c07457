//! How much memory this process and this machine have, from the kernel's own counters, and what a weight takes.

use std::fs;

use candle_core::DType;

use crate::Stored;

/// Bytes a new allocation can use without swapping (`MemAvailable`); `None` where the system does not tell.
pub fn available_bytes() -> Option<u64> {
    kib_field("/proc/meminfo", "MemAvailable:")
}

/// Bytes of main memory.
pub fn total_bytes() -> Option<u64> {
    kib_field("/proc/meminfo", "MemTotal:")
}

/// Anonymous resident bytes of this process (`RssAnon`): what it allocated, mapped files not counted.
pub fn anonymous_bytes() -> Option<u64> {
    kib_field("/proc/self/status", "RssAnon:")
}

/// Peak resident bytes of this process (`VmHWM`).
pub fn peak_resident_bytes() -> Option<u64> {
    kib_field("/proc/self/status", "VmHWM:")
}

/// Bytes of a weight on a GPU: as stored, FP8 and Q8_0 included, but for f32 matrices, which are rounded to bf16, in
/// which they are multiplied anyway.
pub fn device_bytes(weight: &Stored) -> u64 {
    let stored = weight.bytes().len() as u64;
    if weight.dtype() == DType::F32 && weight.shape().len() >= 2 { stored / 2 } else { stored }
}

fn kib_field(file: &str, field: &str) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find(|l| l.starts_with(field))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib * 1024)
}
