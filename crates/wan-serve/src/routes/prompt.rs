//! `/prompt`: a graph into the queue.

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use serde_json::{Map, Value, json};

use super::submission::{Submission, counts, object};
use crate::app::{App, Shared};
use crate::body::{self, PROMPT_LIMIT};
use crate::reply::{ApiError, json_ok};

/// `GET /prompt`: how many jobs have not ended.
pub(crate) async fn status(State(app): State<Shared>) -> Result<Response, ApiError> {
    app.blocking(|app| {
        let remaining = app.queue.counts()?.remaining();
        Ok(json_ok(&json!({"exec_info": {"queue_remaining": remaining}})))
    })
    .await
}

/// `POST /prompt`: validates the graph, and queues it if at least one of its outputs can be made.
pub(crate) async fn submit(State(app): State<Shared>, body: Body) -> Result<Response, ApiError> {
    let body = object(body::read_json(body, PROMPT_LIMIT).await?)?;
    app.blocking(move |app| {
        let counted = counts(&body);
        let accepted = accept(app, body);
        if counted && accepted.is_err() {
            app.queue.count_refused()?;
        }
        let (submission, node_errors, disk_bytes) = accepted?;
        app.disk.fits(disk_bytes)?;
        let number = app.queue.submit(&submission)?;
        app.bus.publish_status();
        Ok(json_ok(&json!({"prompt_id": submission.prompt_id, "number": number, "node_errors": node_errors})))
    })
    .await
}

fn accept(app: &App, body: Map<String, Value>) -> Result<(wan_queue::Submission, Value, u64), ApiError> {
    let submission = Submission::read(body)?;
    let accepted = app.graphs.accept(&submission.prompt, submission.targets.as_deref())?;
    let queued = submission.for_queue(&accepted.prompt, accepted.outputs)?;
    Ok((queued, accepted.node_errors, accepted.disk_bytes))
}

/// `POST /wan-run/convert`: a workflow in UI or API format; the answer is `{"prompt": API graph}`.
pub(crate) async fn convert(State(app): State<Shared>, body: Body) -> Result<Response, ApiError> {
    let workflow = body::read_json(body, PROMPT_LIMIT).await?;
    app.blocking(move |app| Ok(json_ok(&json!({"prompt": app.graphs.convert(&workflow)?})))).await
}
