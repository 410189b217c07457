//! Whether there is room for more in the data folder.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::StatusCode;

use crate::limits::Limits;
use crate::reply::ApiError;

/// How long the size of the data folder, once added up, is relied upon; what is accepted meanwhile is added to it.
const FRESH: Duration = Duration::from_secs(5);

/// The room that uploads and outputs may fill.
pub(crate) struct Disk {
    folder: PathBuf,
    free: u64,
    quota: Option<u64>,
    used: Mutex<Option<(Instant, u64)>>,
}

impl Disk {
    /// The disk of `folder`.
    pub fn new(folder: &Path, limits: &Limits) -> Self {
        Self {
            folder: folder.to_path_buf(),
            free: limits.free_disk,
            quota: limits.data,
            used: Mutex::default(),
        }
    }

    /// Has `bytes` more come in.
    ///
    /// Errors: 507 with the figures if they do not fit.
    pub fn take(&self, bytes: u64) -> Result<(), ApiError> {
        self.admit(bytes, true)
    }

    /// Whether a job fits that writes `bytes`. They come later, and most of them do not stay.
    ///
    /// Errors: 507 with the figures if they do not fit.
    pub fn fits(&self, bytes: u64) -> Result<(), ApiError> {
        self.admit(bytes, false)
    }

    fn admit(&self, bytes: u64, counts: bool) -> Result<(), ApiError> {
        let available = fs4::available_space(&self.folder)?;
        if available.saturating_sub(bytes) < self.free {
            return Err(full(format!(
                "the disk of the data folder is full: {} MiB are free, expected at least {} MiB for this and {} MiB \
                 beside it; remove files, or lower --min-free-disk",
                available >> 20,
                mib(bytes),
                mib(self.free)
            )));
        }
        let Some(quota) = self.quota else { return Ok(()) };
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, size) = match *used {
            Some((since, size)) if since.elapsed() < FRESH => (since, size),
            _ => (Instant::now(), size_below(&self.folder)),
        };
        let after = size.saturating_add(bytes);
        *used = Some((since, if counts && after <= quota { after } else { size }));
        if after > quota {
            return Err(full(format!(
                "the data folder is full: it holds {} MiB, expected at most {} MiB with {} MiB for this; remove files, or \
                 raise --max-data",
                size >> 20,
                quota >> 20,
                mib(bytes)
            )));
        }
        Ok(())
    }
}

/// Rounded up: what is asked for is never said to be nothing.
fn mib(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}

fn full(message: String) -> ApiError {
    ApiError::new(StatusCode::INSUFFICIENT_STORAGE, "disk_full", message)
}

/// Bytes in all files below `folder`; links are not followed, and what vanishes meanwhile does not count.
fn size_below(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| Some((entry.path(), entry.metadata().ok()?)))
        .map(|(path, metadata)| if metadata.is_dir() { size_below(&path) } else { metadata.len() })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_refused_with_the_figures() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("output")).expect("made");
        std::fs::write(folder.path().join("output/a.mp4"), vec![0; 3 << 20]).expect("written");
        let disk =
            |free_disk, data| Disk::new(folder.path(), &Limits { free_disk, data, ..Limits::default() });
        assert!(disk(0, None).take(1 << 20).is_ok());
        let error = format!("{:?}", disk(u64::MAX, None).take(0).expect_err("no disk is that large"));
        assert!(error.contains("507") && error.contains("--min-free-disk"), "{error}");
        let bounded = disk(0, Some(5 << 20));
        assert!(bounded.take(1 << 20).is_ok() && bounded.take(1 << 20).is_ok());
        let error = format!("{:?}", bounded.take(1).expect_err("what was taken counts"));
        assert!(error.contains("it holds 5 MiB") && error.contains("--max-data"), "{error}");
        let bounded = disk(0, Some(5 << 20));
        assert!(bounded.fits(2 << 20).is_ok() && bounded.fits(2 << 20).is_ok(), "a job's bytes do not stay");
        assert!(bounded.fits((2 << 20) + 1).is_err());
    }
}
