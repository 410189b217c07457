//! Names of outputs that are still being made, held against other processes.

use std::fs::{self, File, TryLockError};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::atomic::{PREFIX, Unfinished};
use crate::error::{MediaError, Result};

/// The right to make one output, held until dropped: no other process that asks for it gets it meanwhile.
///
/// It is a lock on a hidden file beside the output. If the process is killed, the lock goes with it and the file
/// stays, free to be taken again.
pub struct Reservation {
    lock: PathBuf,
    _file: File,
    _unfinished: Unfinished,
}

impl Reservation {
    /// Reserves `path`, or gives `None` if another process makes it at present. Also shows, before any work is
    /// done, that files can be made in its folder.
    ///
    /// # Errors
    /// [`MediaError::Write`] or [`MediaError::DiskFull`] if they cannot.
    pub fn take(path: &Path) -> Result<Option<Self>> {
        let failed = |error| MediaError::write(path, error);
        let mut hasher = DefaultHasher::new();
        path.file_name().hash(&mut hasher);
        // Not the name itself, which may be as long as names can be.
        let lock = path.with_file_name(format!("{PREFIX}{:016x}.lock", hasher.finish()));
        let file = File::options().create(true).write(true).truncate(false).open(&lock).map_err(failed)?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => return Ok(None),
            // A file system without locks: nothing can be held on it, and nothing is lost.
            Ok(()) | Err(TryLockError::Error(_)) => {}
        }
        // Whoever held the lock may have removed the file between the two calls above.
        let inode = file.metadata().map_err(failed)?.ino();
        if fs::metadata(&lock).is_ok_and(|there| there.ino() == inode) {
            let unfinished = Unfinished::new(&lock);
            return Ok(Some(Self { lock, _file: file, _unfinished: unfinished }));
        }
        Ok(None)
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        // It is empty, hidden and free to be taken: leaving it would do no harm.
        let _ = fs::remove_file(&self.lock);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_and_nothing_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x".repeat(255));
        let held = Reservation::take(&path).unwrap().expect("free");
        assert!(Reservation::take(&path).unwrap().is_none());
        assert!(Reservation::take(&folder.path().join("other")).unwrap().is_some());
        drop(held);
        assert!(Reservation::take(&path).unwrap().is_some());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        assert!(Reservation::take(Path::new("/proc/x")).is_err());
    }
}
