use std::time::Duration;

use serde::Serialize;
use serde_json::Number;

use crate::{Claim, History, HistoryEntry, Json, Lease, Outcome, Page, QueueItem, Result, Submission};

/// What is in the queue at one moment. Serialises as ComfyUI's `{queue_running, queue_pending}`.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Snapshot {
    /// Claimed jobs.
    #[serde(rename = "queue_running")]
    pub running: Vec<QueueItem>,
    /// The others, in the order in which they will run.
    #[serde(rename = "queue_pending")]
    pub pending: Vec<QueueItem>,
}

/// How many jobs there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Claimed jobs.
    pub running: usize,
    /// Jobs waiting.
    pub pending: usize,
    /// Entries of the history.
    pub history: usize,
}

impl Counts {
    /// Jobs that have not ended: ComfyUI's `queue_remaining`.
    pub fn remaining(self) -> usize {
        self.running + self.pending
    }
}

/// A durable queue of jobs with their history. When a method returns `Ok`, what it did survives a crash.
///
/// All methods may be called from many threads, and block for as long as the storage takes.
pub trait JobQueue: Send + Sync {
    /// Accepts a job and returns its number. An entry of the history with the same id is dropped.
    ///
    /// Errors: [`crate::QueueError::Full`], [`crate::QueueError::Duplicate`], [`crate::QueueError::Number`]; the
    /// storage's own.
    fn submit(&self, submission: &Submission) -> Result<Number>;

    /// Counts a submission without a number of its own that was refused before it got here: the counter grows.
    ///
    /// Errors: the storage's own.
    fn count_refused(&self) -> Result<()>;

    /// Claims the job that is next, if there is one, for the time of `lease`: first those that were begun and lost
    /// their worker, then by number and arrival.
    ///
    /// Errors: the storage's own.
    fn claim(&self, worker: &str, lease: Duration) -> Result<Option<Claim>>;

    /// Keeps a lease for the time of `lease` from now on.
    ///
    /// Errors: [`crate::QueueError::LeaseLost`]; the storage's own.
    fn renew(&self, lease: &Lease, duration: Duration) -> Result<()>;

    /// Whether the job is to be stopped.
    ///
    /// Errors: [`crate::QueueError::LeaseLost`]; the storage's own.
    fn is_cancelled(&self, lease: &Lease) -> Result<bool>;

    /// Keeps what the next worker needs if this one is lost: names of outputs, where the checkpoint is.
    ///
    /// Errors: [`crate::QueueError::LeaseLost`]; the storage's own.
    fn save_state(&self, lease: &Lease, state: &Json) -> Result<()>;

    /// Moves a job from the queue into the history.
    ///
    /// Errors: [`crate::QueueError::LeaseLost`]; the storage's own, after which the job is still the caller's.
    fn finish(&self, lease: &Lease, outcome: &Outcome) -> Result<()>;

    /// Gives a job back unfinished, as a server does that shuts down; it is claimed again before all others.
    ///
    /// Errors: [`crate::QueueError::LeaseLost`]; the storage's own.
    fn release(&self, lease: &Lease) -> Result<()>;

    /// Asks the running job of this id, or every running job, to stop; returns the ids of those asked.
    ///
    /// Errors: the storage's own.
    fn cancel(&self, prompt_id: Option<&str>) -> Result<Vec<String>>;

    /// Removes pending jobs, which leave no history; other ids are ignored. Returns how many were removed.
    ///
    /// Errors: the storage's own.
    fn delete_pending(&self, prompt_ids: &[String]) -> Result<usize>;

    /// Removes all pending jobs. Returns how many.
    ///
    /// Errors: the storage's own.
    fn clear_pending(&self) -> Result<usize>;

    /// The queue at this moment.
    ///
    /// Errors: the storage's own.
    fn snapshot(&self) -> Result<Snapshot>;

    /// How many jobs there are at this moment.
    ///
    /// Errors: the storage's own.
    fn counts(&self) -> Result<Counts>;

    /// The history entry of one job, if it has ended.
    ///
    /// Errors: the storage's own.
    fn history_entry(&self, prompt_id: &str) -> Result<Option<HistoryEntry>>;

    /// Entries of the history from the oldest to the newest.
    ///
    /// Errors: the storage's own.
    fn history(&self, page: Page) -> Result<History>;

    /// Removes entries of the history; unknown ids are ignored. Returns how many were removed.
    ///
    /// Errors: the storage's own.
    fn delete_history(&self, prompt_ids: &[String]) -> Result<usize>;

    /// Removes the whole history. Returns the number of entries.
    ///
    /// Errors: the storage's own.
    fn clear_history(&self) -> Result<usize>;

    /// The present revision.
    fn revision(&self) -> u64 {
        // No revision is so high: it is not waited for.
        self.wait_for_change(u64::MAX, Duration::ZERO)
    }

    /// Waits until the queue has changed since the revision `seen`, or the time is over; returns the present
    /// revision. Revisions count up from 0; renewals and saved states change nothing.
    fn wait_for_change(&self, seen: u64, timeout: Duration) -> u64;
}
