//! The worker: takes jobs from the queue one after another, runs them, and tells what happens.

mod bus;
mod event;

pub use bus::{Bus, EventSink, JobRef, status_data};
pub use event::{Event, Failure, NodeProgress, NodeRef, NodeState, now_ms};
