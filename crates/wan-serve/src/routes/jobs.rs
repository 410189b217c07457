//! `/jobs`: queue and history as one list, as ComfyUI's present front end reads them. The newest come first; what is
//! asked of the order is ignored.

use std::collections::HashMap;

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Map, Value, json};
use wan_queue::{HistoryEntry, JobQueue, Page, QueueItem, Verdict};

use super::history::count;
use super::queue::string_list;
use crate::app::{App, Shared};
use crate::body::{self, SMALL_LIMIT};
use crate::reply::{ApiError, empty, json_ok};

/// Most jobs in one answer.
const MOST: usize = 1000;

/// The states of jobs in the queue.
const QUEUED: [&str; 2] = ["pending", "in_progress"];

/// The states of jobs that have ended.
const ENDED: [&str; 3] = ["completed", "failed", "cancelled"];

/// `GET /jobs?status=&workflow_id=&limit=&offset=`: `{jobs, pagination}`; `status` is a list with commas. What is missing
/// or empty leaves nothing out.
pub(crate) async fn list(
    State(app): State<Shared>,
    Query(query): Query<HashMap<String, String>>,
) -> Result<Response, ApiError> {
    let limit = count(&query, "limit")?.unwrap_or(MOST).min(MOST);
    let offset = count(&query, "offset")?.unwrap_or(0);
    app.blocking(move |app| {
        let wanted = Wanted::read(&query)?;
        let mut seen = app.queue.revision();
        let mut listed = page(&*app.queue, &wanted, offset, limit)?;
        // A job that ends between queue and history would be listed twice.
        for _ in 0..2 {
            match app.queue.revision() {
                now if now == seen => break,
                now => seen = now,
            }
            listed = page(&*app.queue, &wanted, offset, limit)?;
        }
        let (jobs, total) = listed;
        let more = offset + jobs.len() < total;
        let pagination = json!({"offset": offset, "limit": limit, "total": total, "has_more": more});
        Ok(json_ok(&json!({"jobs": jobs, "pagination": pagination})))
    })
    .await
}

/// `limit` jobs from the one at `offset` on, and how many there are.
fn page(
    queue: &dyn JobQueue,
    wanted: &Wanted,
    offset: usize,
    limit: usize,
) -> Result<(Vec<Value>, usize), ApiError> {
    let snapshot = queue.snapshot()?;
    let waiting = snapshot.pending.iter().rev().map(|item| (QUEUED[0], item));
    let queued = waiting.chain(snapshot.running.iter().map(|item| (QUEUED[1], item)));
    let queued: Vec<Value> = queued
        .filter(|(state, item)| wanted.state(state) && wanted.workflow(item))
        .map(|(state, item)| described(item, state).into())
        .collect();
    let (before, waits) = (offset.saturating_sub(queued.len()), queued.len());
    let mut jobs: Vec<Value> = queued.into_iter().skip(offset).take(limit).collect();
    let (ended, total) = ended(queue, wanted, before, limit - jobs.len())?;
    jobs.extend(ended.iter().map(|entry| Value::from(summary(entry))));
    Ok((jobs, waits + total))
}

/// Which jobs a client asks for.
struct Wanted {
    /// All where it is empty.
    states: Vec<String>,
    workflow: Option<String>,
}

impl Wanted {
    /// Errors: 400 for a state that jobs do not have.
    fn read(query: &HashMap<String, String>) -> Result<Self, ApiError> {
        let given = |key: &str| query.get(key).map(String::as_str).unwrap_or_default();
        let states = given("status").split(',').map(|state| state.trim().to_lowercase());
        let states: Vec<String> = states.filter(|state| !state.is_empty()).collect();
        let known = || QUEUED.into_iter().chain(ENDED);
        if let Some(found) = states.iter().find(|state| !known().any(|known| known == **state)) {
            let expected = known().collect::<Vec<_>>().join(", ");
            let message = format!("status: found `{found}`, expected some of {expected}");
            return Err(ApiError::bad_request("invalid_request", message));
        }
        let workflow = Some(given("workflow_id").to_owned()).filter(|id| !id.is_empty());
        Ok(Self { states, workflow })
    }

    fn state(&self, state: &str) -> bool {
        self.states.is_empty() || self.states.iter().any(|wanted| wanted == state)
    }

    fn workflow(&self, item: &QueueItem) -> bool {
        self.workflow.is_none() || workflow_id(item) == self.workflow
    }
}

/// `limit` jobs that have ended, from the one at `offset` on, newest first; and how many there are. All of them are
/// read only where some are left out.
fn ended(
    queue: &dyn JobQueue,
    wanted: &Wanted,
    offset: usize,
    limit: usize,
) -> Result<(Vec<HistoryEntry>, usize), ApiError> {
    if !ENDED.into_iter().any(|state| wanted.state(state)) {
        return Ok((Vec::new(), 0));
    }
    if wanted.workflow.is_none() && ENDED.into_iter().all(|state| wanted.state(state)) {
        let total = queue.counts()?.history;
        let end = total.saturating_sub(offset);
        let start = end.saturating_sub(limit);
        let page = Page { max_items: Some(end - start), offset: Some(start) };
        return Ok((queue.history(page)?.0.into_iter().rev().collect(), total));
    }
    let mut entries = queue.history(Page::default())?.0;
    entries.retain(|entry| wanted.state(state(entry)) && wanted.workflow(&entry.item));
    let total = entries.len();
    Ok((entries.into_iter().rev().skip(offset).take(limit).collect(), total))
}

/// `GET /jobs/{id}`: one job, with its graph and outputs once it has ended; 404 if there is none.
pub(crate) async fn one(State(app): State<Shared>, Path(id): Path<String>) -> Result<Response, ApiError> {
    app.blocking(move |app| {
        // In this order a job that ends meanwhile is found in the history.
        let snapshot = app.queue.snapshot()?;
        if let Some(entry) = app.queue.history_entry(&id)? {
            return Ok(json_ok(&details(&entry)));
        }
        let of = |items: &[QueueItem], state| {
            items.iter().find(|item| item.prompt_id == id).map(|item| described(item, state))
        };
        let job = of(&snapshot.running, QUEUED[1]).or_else(|| of(&snapshot.pending, QUEUED[0]));
        job.map(|job| json_ok(&job)).ok_or_else(|| unknown(&id))
    })
    .await
}

/// `POST /jobs/{id}/cancel`: takes a job out of the queue, or stops it; 404 if it is not there.
pub(crate) async fn cancel(State(app): State<Shared>, Path(id): Path<String>) -> Result<Response, ApiError> {
    app.blocking(move |app| match cancel_all(app, std::slice::from_ref(&id))? {
        0 => Err(unknown(&id)),
        _ => Ok(empty(StatusCode::OK)),
    })
    .await
}

/// `POST /jobs/cancel`: the same for `{"job_ids": [id...]}`; ids that are not in the queue are ignored.
pub(crate) async fn cancel_several(State(app): State<Shared>, body: Body) -> Result<Response, ApiError> {
    let request = body::read_json(body, SMALL_LIMIT).await?;
    let ids = string_list(&request, "job_ids")?;
    app.blocking(move |app| cancel_all(app, &ids).map(|_| empty(StatusCode::OK))).await
}

fn cancel_all(app: &App, ids: &[String]) -> Result<usize, ApiError> {
    let mut cancelled = app.queue.delete_pending(ids)?;
    for id in ids {
        cancelled += app.queue.cancel(Some(id))?.len();
    }
    app.bus.publish_status();
    Ok(cancelled)
}

fn unknown(id: &str) -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "unknown_job", format!("{id}: found no such job"))
}

fn state(entry: &HistoryEntry) -> &'static str {
    match entry.outcome.verdict {
        Verdict::Success => ENDED[0],
        Verdict::Error => ENDED[1],
        Verdict::Interrupted => ENDED[2],
    }
}

/// What is known of every job.
fn described(item: &QueueItem, state: &str) -> Map<String, Value> {
    let mut job = Map::new();
    job.insert("id".into(), item.prompt_id.as_str().into());
    job.insert("status".into(), state.into());
    job.insert("priority".into(), item.number.clone().into());
    job.insert("create_time".into(), item.submitted_ms.into());
    job.insert("outputs_count".into(), 0.into());
    if let Some(id) = workflow_id(item) {
        job.insert("workflow_id".into(), id.into());
    }
    job
}

/// The id of the workflow that the graph was made of.
fn workflow_id(item: &QueueItem) -> Option<String> {
    let extra: Value = serde_json::from_str(item.extra_data.get()).unwrap_or_default();
    extra.pointer("/extra_pnginfo/workflow/id").and_then(Value::as_str).map(str::to_owned)
}

/// A job that has ended, as the list shows it.
fn summary(entry: &HistoryEntry) -> Map<String, Value> {
    let mut job = described(&entry.item, state(entry));
    let messages: Vec<(String, Value)> =
        serde_json::from_str(entry.outcome.messages.get()).unwrap_or_default();
    for (kind, data) in &messages {
        let time = match kind.as_str() {
            "execution_start" => "execution_start_time",
            "execution_success" | "execution_error" | "execution_interrupted" => "execution_end_time",
            _ => continue,
        };
        job.insert(time.into(), data["timestamp"].clone());
        if kind == "execution_error" {
            job.insert("execution_error".into(), data.clone());
        }
    }
    let outputs: Map<String, Value> = serde_json::from_str(entry.outcome.outputs.get()).unwrap_or_default();
    let files = files(&outputs);
    job.insert("outputs_count".into(), files.len().into());
    let kept = files.iter().find(|file| file["type"] == "output");
    if let Some(shown) = kept.or(files.first()) {
        job.insert("preview_output".into(), shown.clone());
    }
    job
}

/// A job that has ended, with everything.
fn details(entry: &HistoryEntry) -> Map<String, Value> {
    let mut job = summary(entry);
    let mut whole = serde_json::to_value(entry).unwrap_or_default();
    job.insert("outputs".into(), whole["outputs"].take());
    job.insert("execution_status".into(), whole["status"].take());
    let workflow = json!({"prompt": whole["prompt"][2].take(), "extra_data": whole["prompt"][3].take()});
    job.insert("workflow".into(), workflow);
    job
}

/// The files among the outputs, each with its node and kind; what nodes say in words is no file.
fn files(outputs: &Map<String, Value>) -> Vec<Value> {
    let mut files = Vec::new();
    for (node, kinds) in outputs {
        for (kind, items) in kinds.as_object().into_iter().flatten() {
            for item in items.as_array().into_iter().flatten().filter_map(Value::as_object) {
                let mut file = item.clone();
                file.insert("nodeId".into(), node.as_str().into());
                file.insert("mediaType".into(), kind.as_str().into());
                files.push(file.into());
            }
        }
    }
    files
}
