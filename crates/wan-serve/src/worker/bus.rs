//! From the worker and the HTTP routes to the sockets, in one order.

use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};
use wan_queue::JobQueue;

use super::event::Event;

/// The job that an event belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobRef {
    /// Its id.
    pub prompt_id: Arc<str>,
    /// The client that is told; a job without one tells nobody.
    pub client_id: Option<Arc<str>>,
    /// Its `extra_data` asks for previews, whatever the client's socket has announced.
    pub asks_previews: bool,
}

impl JobRef {
    /// From what is kept of a job in the queue.
    pub fn new(prompt_id: &str, extra_data: &Value) -> Self {
        let text = |key: &str| extra_data.get(key).and_then(Value::as_str);
        Self {
            prompt_id: prompt_id.into(),
            client_id: text("client_id").map(Into::into),
            asks_previews: !matches!(text("preview_method").unwrap_or("none"), "none" | "default" | ""),
        }
    }
}

/// Takes messages to the sockets. Called from the worker's threads: return at once.
pub trait EventSink: Send + Sync {
    /// For the sockets of the job's client.
    fn job_event(&self, job: &JobRef, event: &Event);

    /// The `status` message, for every socket: this many jobs have not ended.
    fn status(&self, queue_remaining: usize);

    /// Whether somebody looks at previews of this job.
    fn wants_previews(&self, job: &JobRef) -> bool;
}

/// Where everybody who changes the queue or runs a job says so.
pub struct Bus {
    queue: Arc<dyn JobQueue>,
    sink: Box<dyn EventSink>,
    /// Held while a count is read and sent: the last `status` is never an outdated one.
    order: Mutex<()>,
}

impl Bus {
    /// A bus from the changes of `queue` to `sink`.
    pub fn new(queue: Arc<dyn JobQueue>, sink: Box<dyn EventSink>) -> Self {
        Self { queue, sink, order: Mutex::new(()) }
    }

    /// Sends `status` to everybody: to be called after each change of the queue, on a thread that may block.
    pub fn publish_status(&self) {
        let _order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        // Where the count cannot be read there is nothing true to say.
        if let Ok(counts) = self.queue.counts() {
            self.sink.status(counts.remaining());
        }
    }

    /// Sends an event to the job's client.
    pub fn publish(&self, job: &JobRef, event: &Event) {
        self.sink.job_event(job, event);
    }

    pub(super) fn wants_previews(&self, job: &JobRef) -> bool {
        self.sink.wants_previews(job)
    }
}

/// The data of a `status` message.
pub fn status_data(queue_remaining: usize) -> Value {
    json!({"status": {"exec_info": {"queue_remaining": queue_remaining}}})
}
