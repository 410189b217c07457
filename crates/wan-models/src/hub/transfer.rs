//! Bytes of one file: from the network into the partial file, hashed on the way.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Duration;

use sha2::{Digest, Sha256};
use ureq::http::Response;
use wan_core::progress::CancelToken;

use super::metadata::Metadata;
use super::{Hub, HubError, PullEvent, PullObserver, RemoteFile, interrupted};

/// Attempts in a row that bring nothing before the transfer is given up.
pub(super) const MAX_ATTEMPTS: u32 = 5;
/// Pause before the first new attempt; doubled with each further one.
const PAUSE: Duration = Duration::from_millis(250);
const BUFFER: usize = 1 << 20;

/// The partial file of a transfer and the hash of what it holds.
struct Partial<'a> {
    file: File,
    path: &'a Path,
    length: u64,
    hash: Sha256,
}

impl<'a> Partial<'a> {
    /// Opens what an earlier run left and hashes it; starts anew if it is longer than the file.
    fn open(path: &'a Path, bytes: u64, cancel: &CancelToken) -> Result<Self, HubError> {
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(HubError::io(path))?;
        let mut hash = Sha256::new();
        let mut length = hash_into(&mut hash, &mut file, cancel).map_err(HubError::io(path))?;
        if cancel.is_cancelled() {
            return Err(HubError::Cancelled);
        }
        if length > bytes {
            (hash, length) = (Sha256::new(), 0);
            file.set_len(0).map_err(HubError::io(path))?;
        }
        file.seek(SeekFrom::Start(length)).map_err(HubError::io(path))?;
        Ok(Self { file, path, length, hash })
    }

    fn push(&mut self, data: &[u8]) -> Result<(), HubError> {
        self.file.write_all(data).map_err(HubError::io(self.path))?;
        self.hash.update(data);
        self.length += data.len() as u64;
        Ok(())
    }

    fn restart(&mut self) -> Result<(), HubError> {
        self.file.set_len(0).map_err(HubError::io(self.path))?;
        self.file.seek(SeekFrom::Start(0)).map_err(HubError::io(self.path))?;
        (self.length, self.hash) = (0, Sha256::new());
        Ok(())
    }
}

/// Hashes a reader to its end or until cancelled; its length in bytes.
pub(super) fn hash_into(
    hash: &mut Sha256,
    from: &mut impl Read,
    cancel: &CancelToken,
) -> std::io::Result<u64> {
    let mut buffer = vec![0; BUFFER];
    let mut length = 0;
    while !cancel.is_cancelled() {
        let read = from.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        hash.update(&buffer[..read]);
        length += read as u64;
    }
    Ok(length)
}

/// Pause after the n-th failure in a row, counted from 1.
pub(super) fn pause(failures: u32) -> Duration {
    PAUSE * 2u32.pow(failures.saturating_sub(1).min(8))
}

/// A digest in lower-case hex.
pub(super) fn hex(hash: Sha256) -> String {
    hash.finalize().iter().map(|b| format!("{b:02x}")).collect()
}

impl Hub {
    /// Fills `path` with the file's bytes, going on where an earlier run stopped, until length and hash are right.
    ///
    /// Whether a hash was known to check against is returned. The partial file is kept when the connection fails,
    /// and removed when what came is wrong.
    pub(super) fn transfer(
        &self,
        file: &RemoteFile,
        metadata: &Metadata,
        path: &Path,
        observer: &dyn PullObserver,
        cancel: &CancelToken,
    ) -> Result<bool, HubError> {
        let mut partial = Partial::open(path, metadata.bytes, cancel)?;
        let mut kept = partial.length;
        loop {
            observer.on_event(&PullEvent::Started { file, from: partial.length, bytes: metadata.bytes });
            let filled = self.fill(file, metadata, &mut partial, observer, cancel);
            if matches!(filled, Err(HubError::WrongSize { .. })) && partial.length == 0 {
                let _ = std::fs::remove_file(path);
            }
            filled?;
            partial.file.sync_all().map_err(HubError::io(path))?;
            let found = hex(std::mem::take(&mut partial.hash));
            let expected = file.sha256.as_deref().or(metadata.sha256());
            match expected {
                Some(expected) if expected != found => {
                    if kept > 0 {
                        // The bytes of an earlier run may be at fault, after a power cut for instance.
                        kept = 0;
                        partial.restart()?;
                        continue;
                    }
                    std::fs::remove_file(path).map_err(HubError::io(path))?;
                    return Err(HubError::WrongHash {
                        file: file.label(),
                        found,
                        place: "in what was fetched",
                        expected: expected.to_string(),
                    });
                }
                known => return Ok(known.is_some()),
            }
        }
    }

    /// Fetches until the length is right, over as many connections as it takes.
    fn fill(
        &self,
        file: &RemoteFile,
        metadata: &Metadata,
        partial: &mut Partial<'_>,
        observer: &dyn PullObserver,
        cancel: &CancelToken,
    ) -> Result<(), HubError> {
        let mut attempt = 0;
        while partial.length < metadata.bytes {
            let before = partial.length;
            match self.one_connection(file, metadata, partial, observer, cancel) {
                Ok(()) => {}
                Err(HubError::Interrupted { reason, .. }) => {
                    attempt = if partial.length > before { 1 } else { attempt + 1 };
                    if attempt >= MAX_ATTEMPTS {
                        let kept = partial.length;
                        return Err(HubError::Interrupted { file: file.label(), reason, kept });
                    }
                    observer.on_event(&PullEvent::Retrying { file, reason: &reason, kept: partial.length });
                    std::thread::sleep(pause(attempt));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn one_connection(
        &self,
        file: &RemoteFile,
        metadata: &Metadata,
        partial: &mut Partial<'_>,
        observer: &dyn PullObserver,
        cancel: &CancelToken,
    ) -> Result<(), HubError> {
        let wrong = |found| HubError::WrongSize {
            file: file.label(),
            found,
            place: "in what was fetched",
            expected: metadata.bytes,
        };
        let response = self.request(file, &self.url(file), false, Some(partial.length))?;
        let total = match response.status().as_u16() {
            206 => {
                let (start, total) = content_range(&response)
                    .ok_or_else(|| interrupted(file, "an answer with an unreadable Content-Range"))?;
                if start != partial.length {
                    return Err(interrupted(
                        file,
                        format!("asked from byte {}, sent from {start}", partial.length),
                    ));
                }
                total
            }
            200 => response.body().content_length(),
            416 => {
                partial.restart()?;
                return Err(interrupted(file, "the hub has no such range"));
            }
            status => return Err(interrupted(file, format!("the hub answers {status}"))),
        };
        // Something else than the file, such as a proxy's page. What is here already is not touched for it.
        if let Some(total) = total.filter(|t| *t != metadata.bytes) {
            return Err(wrong(total));
        }
        // All of it, which is what was asked for unless a part is here already: then the server knows no ranges, and
        // everything comes again.
        if response.status() == 200 && partial.length > 0 {
            partial.restart()?;
            observer.on_event(&PullEvent::Started { file, from: 0, bytes: metadata.bytes });
        }
        let mut reader = response.into_body().into_reader();
        let mut buffer = vec![0; BUFFER];
        loop {
            if cancel.is_cancelled() {
                return Err(HubError::Cancelled);
            }
            let read = reader.read(&mut buffer).map_err(|e| interrupted(file, e))?;
            if read == 0 {
                break;
            }
            if partial.length + read as u64 > metadata.bytes {
                let found = partial.length + read as u64;
                partial.restart()?;
                return Err(wrong(found));
            }
            partial.push(&buffer[..read])?;
            observer.on_event(&PullEvent::Bytes(read as u64));
        }
        if partial.length < metadata.bytes {
            Err(interrupted(file, "the connection ended early"))
        } else {
            Ok(())
        }
    }
}

/// Start and total length of `Content-Range: bytes START-END/TOTAL`; the total may be `*`.
fn content_range<B>(response: &Response<B>) -> Option<(u64, Option<u64>)> {
    let text = response.headers().get("content-range")?.to_str().ok()?;
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let start = range.split_once('-')?.0.trim().parse().ok()?;
    let total = if total == "*" { None } else { Some(total.trim().parse().ok()?) };
    Some((start, total))
}
