//! How much memory this process and this machine have, from the kernel's own counters.

use std::fs;

/// Bytes a new allocation can use without swapping: the machine's `MemAvailable`, or what a container's limit leaves if
/// that is less. `None` where the system does not tell.
pub fn available_bytes() -> Option<u64> {
    let machine = kib_field("/proc/meminfo", "MemAvailable:")?;
    Some(container_bytes().map_or(machine, |container| machine.min(container)))
}

/// What the memory limit of this process's own control group leaves (cgroup v2, as a container sees it): page cache that
/// has not been read lately is given back and counts as free.
fn container_bytes() -> Option<u64> {
    let read = |file: &str| fs::read_to_string(format!("/sys/fs/cgroup/{file}")).ok();
    left_of_limit(&read("memory.max")?, &read("memory.current")?, &read("memory.stat")?)
}

fn left_of_limit(max: &str, current: &str, stat: &str) -> Option<u64> {
    let limit = max.trim().parse::<u64>().ok()?; // `max` where there is none
    let used = current.trim().parse::<u64>().ok()?;
    let cached = stat.lines().find_map(|l| l.strip_prefix("inactive_file ")?.trim().parse::<u64>().ok());
    Some(limit.saturating_sub(used.saturating_sub(cached.unwrap_or(0))))
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

/// Lets the allocator keep freed memory of any size for later allocations, until [`release_unused`]; to be called before
/// anything is allocated. Does nothing where the allocator is not glibc's.
///
/// As it is, glibc maps every large tensor afresh and unmaps it when it goes. The page faults, and interrupting the other
/// threads at each unmapping, took a fifth of a forward of the DiT on two cores (benches/RESULTS.md).
pub fn keep_freed() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // One heap for all threads: others than the first can only hold small blocks.
        for (what, value) in [(libc::M_MMAP_MAX, 0), (libc::M_TRIM_THRESHOLD, -1), (libc::M_ARENA_MAX, 1)] {
            // SAFETY: settings, of values that the manual names.
            #[allow(unsafe_code)]
            unsafe {
                libc::mallopt(what, value);
            }
        }
    }
}

/// Gives what the allocator keeps for later allocations back to the system, where it can be asked to (glibc).
pub fn release_unused() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // SAFETY: may be called at any time, from any thread; it keeps nothing at the top of the heaps.
        #[allow(unsafe_code)]
        unsafe {
            libc::malloc_trim(0);
        }
    }
}

fn kib_field(file: &str, field: &str) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find(|l| l.starts_with(field))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_containers_limit_leaves_what_is_not_used() {
        let stat = "anon 10\ninactive_file 30\nactive_file 5\n";
        assert_eq!(left_of_limit("1000\n", "400\n", stat), Some(630));
        assert_eq!(left_of_limit("300", "400", ""), Some(0));
        assert_eq!(left_of_limit("max\n", "400\n", stat), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn there_is_some_memory_and_less_is_free() {
        let (free, total) = (available_bytes().unwrap(), total_bytes().unwrap());
        assert!(0 < free && free <= total, "{free} of {total}");
    }
}
