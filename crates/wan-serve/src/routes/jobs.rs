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

/// The states of jobs that have ended.
const ENDED: [&str; 3] = ["completed", "failed", "cancelled"];

/// `GET /jobs?status=&limit=&offset=`: `{jobs, pagination}`; `status` is a list with commas, all where it is missing.
pub(crate) async fn list(
    State(app): State<Shared>,
    Query(query): Query<HashMap<String, String>>,
) -> Result<Response, ApiError> {
    let limit = count(&query, "limit")?.unwrap_or(MOST).min(MOST);
    let offset = count(&query, "offset")?.unwrap_or(0);
    app.blocking(move |app| {
        let states: Vec<&str> = query.get("status").map_or(vec![], |list| list.split(',').collect());
        let is_wanted = |state: &str| states.is_empty() || states.contains(&state);
        let snapshot = app.queue.snapshot()?;
        let waiting = snapshot.pending.iter().rev().map(|item| ("pending", item));
        let queued = waiting.chain(snapshot.running.iter().map(|item| ("in_progress", item)));
        let queued: Vec<Value> = queued
            .filter(|(state, _)| is_wanted(state))
            .map(|(state, item)| described(item, state).into())
            .collect();
        let (before, waits) = (offset.saturating_sub(queued.len()), queued.len());
        let mut jobs: Vec<Value> = queued.into_iter().skip(offset).take(limit).collect();
        let (ended, total) = ended(&*app.queue, is_wanted, before, limit - jobs.len())?;
        jobs.extend(ended.iter().map(|entry| Value::from(summary(entry))));
        let total = waits + total;
        let more = offset + jobs.len() < total;
        let pagination = json!({"offset": offset, "limit": limit, "total": total, "has_more": more});
        Ok(json_ok(&json!({"jobs": jobs, "pagination": pagination})))
    })
    .await
}

/// `limit` jobs that have ended, from the one at `offset` on, newest first; and how many there are. All of them are
/// read only where some states are left out.
fn ended(
    queue: &dyn JobQueue,
    is_wanted: impl Fn(&str) -> bool,
    offset: usize,
    limit: usize,
) -> Result<(Vec<HistoryEntry>, usize), ApiError> {
    if !ENDED.into_iter().any(&is_wanted) {
        return Ok((Vec::new(), 0));
    }
    if ENDED.into_iter().all(&is_wanted) {
        let total = queue.counts()?.history;
        let end = total.saturating_sub(offset);
        let start = end.saturating_sub(limit);
        let page = Page { max_items: Some(end - start), offset: Some(start) };
        return Ok((queue.history(page)?.0.into_iter().rev().collect(), total));
    }
    let mut entries = queue.history(Page::default())?.0;
    entries.retain(|entry| is_wanted(state(entry)));
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
        let job = of(&snapshot.running, "in_progress").or_else(|| of(&snapshot.pending, "pending"));
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
    let extra: Value = serde_json::from_str(item.extra_data.get()).unwrap_or_default();
    let mut job = Map::new();
    job.insert("id".into(), item.prompt_id.as_str().into());
    job.insert("status".into(), state.into());
    job.insert("priority".into(), item.number.clone().into());
    job.insert("create_time".into(), item.submitted_ms.into());
    job.insert("outputs_count".into(), 0.into());
    if let Some(id) = extra.pointer("/extra_pnginfo/workflow/id").and_then(Value::as_str) {
        job.insert("workflow_id".into(), id.into());
    }
    job
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
