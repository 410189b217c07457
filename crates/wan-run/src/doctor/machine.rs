//! System, processor, memory.

use std::fs;

use bytesize::ByteSize;
use wan_core::memory;

use super::report::Check;

/// Free memory below which even small jobs may not run.
const LITTLE: u64 = 1 << 30;

/// What the machine and the program are.
pub(super) fn facts() -> Vec<(&'static str, String)> {
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    let sets = crate::info::instruction_sets().join(" ");
    let ffmpeg = wan_media::probe::library_version();
    vec![
        ("system", format!("{}, Linux {}, {}", distribution(), kernel(), std::env::consts::ARCH)),
        ("processor", format!("{}, {threads} threads, {sets}", processor())),
        (
            "build",
            format!("{}, {ffmpeg}", if cfg!(feature = "cuda") { "CPU and NVIDIA GPUs" } else { "CPU only" }),
        ),
    ]
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn distribution() -> String {
    let text = read("/etc/os-release");
    let name = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.map_or("an unknown system", |name| name.trim_matches('"')).to_string()
}

fn kernel() -> String {
    read("/proc/sys/kernel/osrelease").trim().to_string()
}

fn processor() -> String {
    let text = read("/proc/cpuinfo");
    let name = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    name.map_or("an unknown processor", |(_, name)| name.trim()).to_string()
}

/// Main memory.
pub(super) fn memory() -> Check {
    const NAME: &str = "memory";
    let size = |bytes: u64| ByteSize::b(bytes).display().iec().to_string();
    match (memory::available_bytes(), memory::total_bytes()) {
        (Some(free), Some(total)) => {
            let found = format!("{} free of {}", size(free), size(total));
            match free < LITTLE {
                true => Check::warn(NAME, found, "close other programs, or raise the container's limit"),
                false => Check::ok(NAME, found),
            }
        }
        _ => Check::warn(NAME, "the system does not tell", "give the limit with --max-ram"),
    }
}
