use serde::ser::{SerializeMap, SerializeStruct};
use serde::{Serialize, Serializer};

use crate::{Json, QueueItem};

/// How a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Everything was made.
    Success,
    /// Something went wrong.
    Error,
    /// It was stopped on request.
    Interrupted,
}

impl Verdict {
    /// ComfyUI's `status_str`, which knows two values.
    pub fn status_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Error | Self::Interrupted => "error",
        }
    }

    pub(crate) const ALL: [(Self, &str); 3] =
        [(Self::Success, "success"), (Self::Error, "error"), (Self::Interrupted, "interrupted")];
}

/// What a job leaves behind.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// How it ended.
    pub verdict: Verdict,
    /// Per node: what it made, an object.
    pub outputs: Json,
    /// The messages of its execution, an array of `[type, data]`.
    pub messages: Json,
    /// Per node of `outputs`: its identity, an object.
    pub meta: Json,
}

/// A job that has ended.
///
/// Serialises as ComfyUI's history entry: `{prompt: [5], outputs, status: {status_str, completed, messages}, meta}`.
#[derive(Debug, Clone)]
pub struct HistoryEntry {
    /// The job as it was in the queue.
    pub item: QueueItem,
    /// What it left.
    pub outcome: Outcome,
}

/// Entries from the oldest to the newest. Serialises as an object from prompt id to entry.
#[derive(Debug, Clone, Default)]
pub struct History(pub Vec<HistoryEntry>);

/// Which part of the history is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Page {
    /// Entries at most: the last ones, or those from `offset` on.
    pub max_items: Option<usize>,
    /// Entries to skip, from the oldest.
    pub offset: Option<usize>,
}

impl Serialize for HistoryEntry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut entry = serializer.serialize_struct("HistoryEntry", 4)?;
        entry.serialize_field("prompt", &self.item)?;
        entry.serialize_field("outputs", &self.outcome.outputs)?;
        entry.serialize_field("status", &Status(&self.outcome))?;
        entry.serialize_field("meta", &self.outcome.meta)?;
        entry.end()
    }
}

struct Status<'a>(&'a Outcome);

impl Serialize for Status<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut status = serializer.serialize_struct("Status", 3)?;
        status.serialize_field("status_str", self.0.verdict.status_str())?;
        status.serialize_field("completed", &(self.0.verdict == Verdict::Success))?;
        status.serialize_field("messages", &self.0.messages)?;
        status.end()
    }
}

impl Serialize for History {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for entry in &self.0 {
            map.serialize_entry(&entry.item.prompt_id, entry)?;
        }
        map.end()
    }
}
