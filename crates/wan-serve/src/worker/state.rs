//! What of a running job survives the worker.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use wan_pipeline::{DenoiseState, Job, SavedJob};
use wan_queue::{Claim, JobQueue, Lease};

use super::failure::JobError;
use super::job::RenderJob;

/// What is kept in the job's row of the queue.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Row {
    /// Steps that the checkpoint has.
    steps: usize,
    /// Per output node: the number in its files' names, decided before they appear.
    numbers: BTreeMap<String, u32>,
}

/// The job's row, as this worker knows it.
pub(super) struct RowState<'a> {
    queue: &'a dyn JobQueue,
    lease: &'a Lease,
    row: Mutex<Row>,
}

impl<'a> RowState<'a> {
    /// What an earlier worker left, or nothing.
    pub fn of(queue: &'a dyn JobQueue, claim: &'a Claim) -> Self {
        let read = |text: &RawValue| serde_json::from_str(text.get()).ok();
        let row = claim.state.as_deref().and_then(read).unwrap_or_default();
        Self { queue, lease: &claim.lease, row: Mutex::new(row) }
    }

    fn update(&self, change: impl FnOnce(&mut Row)) -> Result<(), JobError> {
        let mut row = self.row.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut row);
        let text = to_raw_value(&*row).map_err(|e| JobError::Io(e.to_string()))?;
        Ok(self.queue.save_state(self.lease, &text)?)
    }

    /// The number that a node's files were to get.
    pub fn number(&self, node: &str) -> Option<u32> {
        self.row.lock().unwrap_or_else(PoisonError::into_inner).numbers.get(node).copied()
    }

    /// Decides on the number of a node's files.
    pub fn set_number(&self, node: &str, number: u32) -> Result<(), JobError> {
        self.update(|row| {
            row.numbers.insert(node.to_owned(), number);
        })
    }
}

/// The file of a job's last whole step.
pub(super) fn checkpoint_path(work: &Path) -> PathBuf {
    work.join("checkpoint.safetensors")
}

/// The job as it was after its last saved step; `None` if there is no such file, or it is not this job's.
pub(super) fn restore(work: &Path, job: &RenderJob, model: &str) -> Option<Job> {
    let path = checkpoint_path(work);
    if !path.exists() {
        return None;
    }
    match SavedJob::open(&path) {
        Ok(saved)
            if saved.model == model && saved.extra == job.model && saved.job.plan.request == job.request =>
        {
            Some(saved.job)
        }
        Ok(_) => {
            tracing::warn!("a checkpoint of another model or request is not used");
            None
        }
        Err(error) => {
            tracing::warn!(%error, "a checkpoint cannot be used");
            None
        }
    }
}

/// Saves the state after each step on a thread of its own, so that the device does not wait for the disk. Where steps
/// are faster than the disk only the last is saved.
pub(super) struct Checkpointer<'a> {
    path: PathBuf,
    row: &'a RowState<'a>,
    slot: Mutex<Slot>,
    changed: Condvar,
}

#[derive(Default)]
struct Slot {
    waiting: Option<SavedJob>,
    closed: bool,
}

impl<'a> Checkpointer<'a> {
    /// Into the folder `work`.
    pub fn new(work: &Path, row: &'a RowState<'a>) -> Self {
        Self { path: checkpoint_path(work), row, slot: Mutex::default(), changed: Condvar::new() }
    }

    fn slot(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has `state` of `job` saved.
    pub fn keep(&self, job: &Job, state: &DenoiseState, model: &str, key: &str) {
        let job = Job { state: state.clone(), ..job.clone() };
        let saved = SavedJob { job, model: model.to_owned(), extra: key.into() };
        self.slot().waiting = Some(saved);
        self.changed.notify_one();
    }

    /// Lets [`Self::run`] return once everything is saved.
    pub fn close(&self) {
        self.slot().closed = true;
        self.changed.notify_one();
    }

    /// Saves until closed.
    pub fn run(&self) {
        loop {
            let saved = {
                let wait = |slot: &mut Slot| slot.waiting.is_none() && !slot.closed;
                let mut slot =
                    self.changed.wait_while(self.slot(), wait).unwrap_or_else(PoisonError::into_inner);
                match slot.waiting.take() {
                    Some(saved) => saved,
                    None => return,
                }
            };
            let steps = saved.job.state.sampler.step;
            let kept = saved.save(&self.path).map_err(JobError::from);
            if let Err(error) = kept.and_then(|()| self.row.update(|row| row.steps = steps)) {
                tracing::warn!(%error, steps, "the state after a step could not be saved; the job goes on");
            }
        }
    }
}
