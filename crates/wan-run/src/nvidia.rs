//! NVIDIA's driver and cards, as the system tells of them: also where this build cannot use them.

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long `nvidia-smi` may take; with a broken driver it can hang.
const PATIENCE: Duration = Duration::from_secs(10);

/// The cards with their memory and the driver; `None` if there is neither card nor driver.
pub fn card() -> Option<String> {
    let query =
        ["--query-gpu=name,memory.total,memory.free,driver_version,compute_cap", "--format=csv,noheader"];
    let told = output_within(Command::new("nvidia-smi").args(query), PATIENCE);
    let cards: Vec<&str> = told.as_deref().unwrap_or_default().lines().map(str::trim).collect();
    match cards.as_slice() {
        [] => driver().map(|driver| format!("{driver}; nvidia-smi does not answer")),
        cards => Some(cards.iter().map(|card| line(card)).collect::<Vec<_>>().join("; ")),
    }
}

/// `NAME, 24564 MiB, 23000 MiB, 550.1, 8.9` in words.
fn line(card: &str) -> String {
    match card.split(", ").collect::<Vec<_>>().as_slice() {
        [name, total, free, driver, capability] => {
            format!("{name}, {free} free of {total}, driver {driver}, compute capability {capability}")
        }
        _ => card.to_string(),
    }
}

/// The kernel module's version.
fn driver() -> Option<String> {
    let text = std::fs::read_to_string("/proc/driver/nvidia/version").ok()?;
    Some(text.lines().next()?.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// Standard output of a command that succeeds in time.
fn output_within(command: &mut Command, limit: Duration) -> Option<String> {
    let begun = Instant::now();
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().ok()?;
    loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => break,
            Ok(None) if begun.elapsed() < limit => std::thread::sleep(Duration::from_millis(20)),
            _ => {
                // It may have ended by now; there is nothing else to do.
                let _ = child.kill();
                let _ = child.wait();
                return None;
            }
        }
    }
    let mut text = String::new();
    child.stdout.take()?.read_to_string(&mut text).ok()?;
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_hangs_is_not_waited_for() {
        let begun = Instant::now();
        assert_eq!(output_within(Command::new("sleep").arg("60"), Duration::from_millis(100)), None);
        assert!(begun.elapsed() < Duration::from_secs(30));
        assert_eq!(output_within(Command::new("echo").arg("card"), PATIENCE).as_deref(), Some("card\n"));
        assert_eq!(output_within(&mut Command::new("false"), PATIENCE), None);
        assert_eq!(output_within(&mut Command::new("/no/such/program"), PATIENCE), None);
    }

    #[test]
    fn cards_are_told_in_words() {
        let told = "NVIDIA GeForce RTX 4090, 24564 MiB, 23028 MiB, 550.90.07, 8.9";
        assert_eq!(
            line(told),
            "NVIDIA GeForce RTX 4090, 23028 MiB free of 24564 MiB, driver 550.90.07, compute capability 8.9"
        );
        assert_eq!(line("No devices were found"), "No devices were found");
    }
}
