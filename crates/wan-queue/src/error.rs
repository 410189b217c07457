use std::path::PathBuf;

/// Result of the queue.
pub type Result<T, E = QueueError> = std::result::Result<T, E>;

/// What can go wrong with a queue.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// No more jobs are taken at present.
    #[error("the queue is full: {pending} jobs are pending, expected fewer than {limit}; try again later")]
    Full {
        /// Jobs pending.
        pending: usize,
        /// Most jobs that may be pending.
        limit: usize,
    },
    /// The id belongs to a job that has not ended.
    #[error("prompt_id {prompt_id}: a job of this id is pending or running, expected an id of its own")]
    Duplicate {
        /// The id.
        prompt_id: String,
    },
    /// A priority that cannot be ordered.
    #[error("number: found {found}, expected a finite number")]
    Number {
        /// The number.
        found: f64,
    },
    /// The job is not the caller's any more: somebody else holds it, or it has ended.
    #[error("job {prompt_id}: its lease has passed to another worker")]
    LeaseLost {
        /// The job.
        prompt_id: String,
    },
    /// Another process has the folder open.
    #[error("{}: in use by another server, expected a data folder of its own", folder.display())]
    InUse {
        /// The folder.
        folder: PathBuf,
    },
    /// The database was written by a later version.
    #[error("{}: schema version {found}, expected at most {expected}; use the version that wrote it", path.display())]
    Version {
        /// The database.
        path: PathBuf,
        /// Its version.
        found: usize,
        /// The newest known.
        expected: usize,
    },
    /// A value of the database is not what this crate writes.
    #[error("{what}: damaged value in the queue's database: {reason}")]
    Damaged {
        /// The value.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The folder cannot be used.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The database does not do what it was asked; a full disk, most of the time.
    #[error("{}: {source}", path.display())]
    Storage {
        /// The database.
        path: PathBuf,
        /// What it says.
        source: rusqlite::Error,
    },
}
