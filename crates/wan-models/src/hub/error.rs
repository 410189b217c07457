use std::path::PathBuf;

/// Why files cannot be fetched from the hub.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// The hub does not have the file.
    #[error("{file}: not found at {endpoint} (404); check the repository's name, the path and HF_ENDPOINT")]
    NotFound {
        /// Repository and path.
        file: String,
        /// The hub asked.
        endpoint: String,
    },
    /// The hub refuses the file to this user.
    #[error(
        "{file}: the hub refuses it ({status}); {}",
        if *with_token {
            "the token of HF_TOKEN may not read it: accept the repository's terms on its page, or use another token"
        } else {
            "set HF_TOKEN to a token that may read it"
        }
    )]
    Denied {
        /// Repository and path.
        file: String,
        /// HTTP status.
        status: u16,
        /// Whether a token was sent.
        with_token: bool,
    },
    /// The answer is not one of a hub.
    #[error("{file}: found {found} from {endpoint}, expected {expected}; check HF_ENDPOINT")]
    Unexpected {
        /// Repository and path.
        file: String,
        /// The hub asked.
        endpoint: String,
        /// What came.
        found: String,
        /// What a hub answers.
        expected: &'static str,
    },
    /// The connection failed more often than is tried again.
    #[error("{}", interrupted(file, reason, *kept))]
    Interrupted {
        /// Repository and path.
        file: String,
        /// The last failure.
        reason: String,
        /// Bytes in the partial file.
        kept: u64,
    },
    /// What should be the hub's address is none.
    #[error("HF_ENDPOINT: found `{endpoint}`, expected an address such as https://huggingface.co")]
    Endpoint {
        /// What was named.
        endpoint: String,
    },
    /// The file has another length than its description or the hub says.
    #[error(
        "{file}: found {found} bytes {place}, expected {expected}; the file changed, or a mirror is wrong"
    )]
    WrongSize {
        /// Repository and path.
        file: String,
        /// Length found.
        found: u64,
        /// Where it was found.
        place: &'static str,
        /// Length expected.
        expected: u64,
    },
    /// The file has another SHA-256 than its description or the hub says.
    #[error(
        "{file}: found sha256 {found} {place}, expected {expected}; what was fetched is not kept, try again or use \
         another mirror"
    )]
    WrongHash {
        /// Repository and path.
        file: String,
        /// Hash found.
        found: String,
        /// Where it was found.
        place: &'static str,
        /// Hash expected.
        expected: String,
    },
    /// The files do not fit on the disk.
    #[error(
        "{}: found {available} bytes free, expected {needed} for what is missing; free some space, or move the cache \
         with HF_HOME", folder.display()
    )]
    NoSpace {
        /// Folder of the cache.
        folder: PathBuf,
        /// Bytes free.
        available: u64,
        /// Bytes still to fetch.
        needed: u64,
    },
    /// Files are missing and the network is not to be used.
    #[error("offline: {} not in {}; pull once without --offline and HF_HUB_OFFLINE", files.join(", "), cache.display())]
    Offline {
        /// Files that are missing.
        files: Vec<String>,
        /// Folder of the cache.
        cache: PathBuf,
    },
    /// Reading or writing failed.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The user stopped it.
    #[error("stopped; what was fetched is kept, the same command goes on from there")]
    Cancelled,
}

fn interrupted(file: &str, reason: &str, kept: u64) -> String {
    match kept {
        0 => format!("{file}: {reason}; run the same command to try again"),
        _ => format!("{file}: {reason}; {kept} bytes are kept, the same command goes on from there"),
    }
}

impl HubError {
    pub(super) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}
