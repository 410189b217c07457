//! The job queue and its history, durable: what was accepted survives a crash at any moment.
//!
//! [`JobQueue`] is the seam: all that a server and its workers know of a queue. [`EmbeddedQueue`] implements it on
//! SQLite in one folder, for one process; a queue that many machines share would implement the same trait.
//!
//! A job is in exactly one place: in the queue (pending or running), or in the history. It is claimed under a
//! [`Lease`] and leaves the queue for the history in one transaction, so that a reader who looks into the queue first
//! and into the history second finds it in one of them.
//!
//! Nothing here knows what a job computes: its graph, its state and its results are JSON text, kept as it came.

mod embedded;
mod error;
mod history;
mod job;
mod queue;

pub use embedded::{EmbeddedQueue, Limits};
pub use error::{QueueError, Result};
pub use history::{History, HistoryEntry, Outcome, Page, Verdict};
pub use job::{Claim, Json, Lease, Priority, QueueItem, Submission};
pub use queue::{Counts, JobQueue, Snapshot};
