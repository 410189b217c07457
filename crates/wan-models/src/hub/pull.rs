//! Pulling files: what is missing, whether it fits, one lock and one transfer a file.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use wan_core::progress::CancelToken;

use super::metadata::Metadata;
use super::transfer::{MAX_ATTEMPTS, hash_into, hex, pause};
use super::{Hub, HubCache, HubError, RemoteFile};

/// Left free on the disk beyond the files themselves, for their links and for others.
const SPARE_BYTES: u64 = 16 << 20;

/// One thing that happened during a pull.
#[derive(Debug)]
pub enum PullEvent<'a> {
    /// Another process fetches the file; this one waits.
    Waiting {
        /// The file.
        file: &'a RemoteFile,
    },
    /// A transfer begins, or begins anew.
    Started {
        /// The file.
        file: &'a RemoteFile,
        /// Bytes already here.
        from: u64,
        /// Length in bytes.
        bytes: u64,
    },
    /// This many more bytes are here.
    Bytes(u64),
    /// The connection failed and is tried again.
    Retrying {
        /// The file.
        file: &'a RemoteFile,
        /// Why.
        reason: &'a str,
        /// Bytes already here.
        kept: u64,
    },
    /// The file is whole and visible.
    Finished {
        /// The file.
        file: &'a RemoteFile,
        /// Whether its SHA-256 was known and is right; the length always is.
        hashed: bool,
    },
}

/// Receives the events of a pull.
pub trait PullObserver {
    /// One event.
    fn on_event(&self, event: &PullEvent<'_>);
}

impl HubCache {
    /// The finished file, if its length (and the hash in its blob's name) are as described.
    pub fn finished(&self, file: &RemoteFile) -> Option<PathBuf> {
        let path = self.find(&file.repo, &file.path)?;
        let length = std::fs::metadata(&path).ok()?.len();
        let blob = path.canonicalize().ok()?;
        let name = blob.file_name()?.to_str()?;
        let other_hash = file.sha256.as_deref().is_some_and(|s| super::is_sha256(name) && s != name);
        (file.bytes.is_none_or(|b| b == length) && !other_hash).then_some(path)
    }
}

/// Reads a whole file and checks length and SHA-256, the described one or the one in the name of its blob.
///
/// Returns whether a hash was known. Errors: [`HubError::WrongSize`], [`HubError::WrongHash`], [`HubError::Io`],
/// [`HubError::Cancelled`].
pub fn verify(path: &Path, file: &RemoteFile, cancel: &CancelToken) -> Result<bool, HubError> {
    let mut opened = std::fs::File::open(path).map_err(HubError::io(path))?;
    let length = opened.metadata().map_err(HubError::io(path))?.len();
    if let Some(expected) = file.bytes.filter(|b| *b != length) {
        return Err(HubError::WrongSize {
            file: path.display().to_string(),
            found: length,
            place: "on disk",
            expected,
        });
    }
    let blob = path.canonicalize().map_err(HubError::io(path))?;
    let named = blob.file_name().and_then(|n| n.to_str()).filter(|n| super::is_sha256(n));
    let Some(expected) = file.sha256.as_deref().or(named) else { return Ok(false) };
    let mut hash = Sha256::new();
    hash_into(&mut hash, &mut opened, cancel).map_err(HubError::io(path))?;
    if cancel.is_cancelled() {
        return Err(HubError::Cancelled);
    }
    let found = hex(hash);
    if found != expected {
        return Err(HubError::WrongHash {
            file: path.display().to_string(),
            found,
            place: "on disk",
            expected: expected.to_string(),
        });
    }
    Ok(true)
}

impl Hub {
    /// Brings all files into the cache; those that are there already are left alone. A file appears under its name
    /// only when its length, and its SHA-256 where one is known, are right. Two pulls of one file at once are safe:
    /// the second waits.
    ///
    /// Errors: [`HubError`]; files that were finished before it stay.
    pub fn pull(
        &self,
        files: &[RemoteFile],
        observer: &dyn PullObserver,
        cancel: &CancelToken,
    ) -> Result<Vec<PathBuf>, HubError> {
        let cache = &self.options.cache;
        let missing: Vec<&RemoteFile> = files.iter().filter(|f| cache.finished(f).is_none()).collect();
        if self.options.offline && !missing.is_empty() {
            let files = missing.iter().map(|f| f.label()).collect();
            return Err(HubError::Offline { files, cache: cache.folder().to_path_buf() });
        }
        if !missing.is_empty() {
            self.check_endpoint()?;
        }
        let mut wanted = Vec::with_capacity(missing.len());
        for file in missing {
            if cancel.is_cancelled() {
                return Err(HubError::Cancelled);
            }
            wanted.push((file, self.metadata_again(file, observer)?));
        }
        self.check_space(&wanted)?;
        for (file, metadata) in &wanted {
            self.pull_one(file, metadata, observer, cancel)?;
        }
        files
            .iter()
            .map(|f| {
                let gone =
                    std::io::Error::new(std::io::ErrorKind::NotFound, "removed while others were fetched");
                cache
                    .finished(f)
                    .ok_or(HubError::Io { path: cache.repo_folder(&f.repo).join(&f.path), source: gone })
            })
            .collect()
    }

    /// The metadata, asked for again while the hub is only out of reach or busy.
    fn metadata_again(&self, file: &RemoteFile, observer: &dyn PullObserver) -> Result<Metadata, HubError> {
        let mut attempt = 1;
        loop {
            match self.metadata(file) {
                Err(HubError::Interrupted { reason, .. }) if attempt < MAX_ATTEMPTS => {
                    observer.on_event(&PullEvent::Retrying { file, reason: &reason, kept: 0 });
                    std::thread::sleep(pause(attempt));
                    attempt += 1;
                }
                result => return result,
            }
        }
    }

    fn check_space(&self, wanted: &[(&RemoteFile, Metadata)]) -> Result<(), HubError> {
        let cache = &self.options.cache;
        let length = |path: PathBuf| std::fs::metadata(path).map_or(0, |m| m.len());
        let needed: u64 = wanted
            .iter()
            .filter(|(f, m)| length(cache.blob(&f.repo, &m.etag)) != m.bytes)
            .map(|(f, m)| m.bytes.saturating_sub(length(cache.partial(&f.repo, &m.etag))))
            .fold(0, u64::saturating_add);
        if needed == 0 {
            return Ok(());
        }
        std::fs::create_dir_all(cache.folder()).map_err(HubError::io(cache.folder()))?;
        let available = fs4::available_space(cache.folder()).map_err(HubError::io(cache.folder()))?;
        let needed = needed.saturating_add(SPARE_BYTES);
        if needed > available {
            return Err(HubError::NoSpace { folder: cache.folder().to_path_buf(), available, needed });
        }
        Ok(())
    }

    fn pull_one(
        &self,
        file: &RemoteFile,
        metadata: &Metadata,
        observer: &dyn PullObserver,
        cancel: &CancelToken,
    ) -> Result<(), HubError> {
        let cache = &self.options.cache;
        let waiting = || observer.on_event(&PullEvent::Waiting { file });
        let _lock = cache.lock(&file.repo, &metadata.etag, cancel, waiting)?;
        let blob = cache.blob(&file.repo, &metadata.etag);
        // Another process may have finished it meanwhile, or another path has the same contents.
        let whole = std::fs::metadata(&blob).is_ok_and(|m| m.len() == metadata.bytes);
        let mut hashed = false; // what is there already was not hashed here
        if !whole {
            let partial = cache.partial(&file.repo, &metadata.etag);
            if let Some(folder) = partial.parent() {
                std::fs::create_dir_all(folder).map_err(HubError::io(folder))?;
            }
            hashed = self.transfer(file, metadata, &partial, observer, cancel)?;
            std::fs::rename(&partial, &blob).map_err(HubError::io(&blob))?;
        }
        cache.publish(&file.repo, &metadata.commit, &file.path, &blob)?;
        observer.on_event(&PullEvent::Finished { file, hashed });
        Ok(())
    }
}
