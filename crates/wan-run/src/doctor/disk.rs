//! Space and speed of a folder.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::Path;
use std::time::Instant;

use bytesize::ByteSize;

use super::report::Check;

/// Bytes that are written and read back.
const SAMPLE: usize = 64 << 20;
const PART: usize = 1 << 20;
/// Free space below which videos may not be written.
const LITTLE: u64 = 1 << 30;

/// Writes a temporary file in `folder` and reads it back.
pub(super) fn check(name: &'static str, folder: &Path) -> Check {
    let free = match fs4::available_space(folder) {
        Ok(free) => free,
        Err(error) => return Check::fail(name, error, "name a folder that is there with --folder"),
    };
    let size = |bytes: u64| ByteSize::b(bytes).display().iec().to_string();
    if free < SAMPLE as u64 * 2 {
        return Check::fail(name, format!("{} free", size(free)), "free some space");
    }
    match speeds(folder) {
        Err(error) => {
            Check::fail(name, error, "give yourself the right to write there, or name another folder")
        }
        Ok((write, read)) => {
            let found = format!("{} free, writes {write:.0} MB/s, reads {read:.0} MB/s (cached)", size(free));
            match free < LITTLE {
                true => Check::warn(name, found, "free some space"),
                false => Check::ok(name, found),
            }
        }
    }
}

/// MB/s written to the disk, and read again, which the system may do from its cache.
fn speeds(folder: &Path) -> io::Result<(f64, f64)> {
    let mut file = tempfile::tempfile_in(folder)?;
    // Not zeros, which some file systems do not store.
    let part: Vec<u8> = (0..PART).map(|i| ((i * 2_654_435_761) >> 7) as u8).collect();
    let write = rate(|| {
        (0..SAMPLE / PART).try_for_each(|_| file.write_all(&part))?;
        file.sync_all()
    })?;
    let read = rate(|| read_back(&mut file))?;
    Ok((write, read))
}

fn read_back(file: &mut File) -> io::Result<()> {
    let mut part = vec![0; PART];
    file.rewind()?;
    (0..SAMPLE / PART).try_for_each(|_| file.read_exact(&mut part))
}

fn rate(work: impl FnOnce() -> io::Result<()>) -> io::Result<f64> {
    let begun = Instant::now();
    work()?;
    Ok(SAMPLE as f64 / 1e6 / begun.elapsed().as_secs_f64())
}
