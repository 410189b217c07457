use serde::{Serialize, Serializer};
use serde_json::Number;
use serde_json::value::RawValue;

/// JSON text as it came: order of keys, numbers and all.
pub type Json = Box<RawValue>;

/// Where a job is put. The lowest number runs first; of equal ones the one that came first.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Priority {
    /// Behind the others: the counter, which then grows by one.
    #[default]
    Next,
    /// Before the others: minus the counter, which then grows by one.
    Front,
    /// The client's own number; the counter stays.
    Number(f64),
}

/// A job to be accepted.
#[derive(Debug, Clone)]
pub struct Submission {
    /// Its id, unique among the jobs that have not ended.
    pub prompt_id: String,
    /// Its place.
    pub priority: Priority,
    /// The graph to run, an object.
    pub prompt: Json,
    /// What the client sent along, an object.
    pub extra_data: Json,
    /// Ids of the output nodes to run.
    pub outputs: Vec<String>,
}

/// A job as clients see it in the queue.
///
/// Serialises as ComfyUI's array of five: `[number, prompt_id, prompt, extra_data, outputs]`.
#[derive(Debug, Clone)]
pub struct QueueItem {
    /// Its arrival: unique over the queue's whole life, also where an id is used again. Not serialised.
    pub arrival: i64,
    /// When it was accepted, in milliseconds since 1970. Not serialised.
    pub submitted_ms: i64,
    /// Its number: an integer from the counter, a float from a client.
    pub number: Number,
    /// Its id.
    pub prompt_id: String,
    /// The graph.
    pub prompt: Json,
    /// What the client sent along.
    pub extra_data: Json,
    /// Ids of the output nodes to run.
    pub outputs: Vec<String>,
}

impl Serialize for QueueItem {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (&self.number, &self.prompt_id, &self.prompt, &self.extra_data, &self.outputs).serialize(serializer)
    }
}

/// The right to run one job. Whoever holds an older lease of the same job can no longer change it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The job.
    pub prompt_id: String,
    /// Its [`QueueItem::arrival`].
    pub arrival: i64,
    /// How often the job has been claimed.
    pub token: i64,
}

/// A job that was claimed.
#[derive(Debug, Clone)]
pub struct Claim {
    /// The right to run it.
    pub lease: Lease,
    /// The job.
    pub item: QueueItem,
    /// Claims since a worker last saved a state, this one included: a job that brings down every worker before it
    /// gets anywhere counts up.
    pub attempts: u32,
    /// What the last worker saved ([`crate::JobQueue::save_state`]).
    pub state: Option<Json>,
    /// Whether it was to be stopped while it ran before.
    pub cancelled: bool,
}
