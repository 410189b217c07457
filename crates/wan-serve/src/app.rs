//! The server's state, and which path leads where.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use axum::response::IntoResponse;
use axum::routing::{get, patch, post};
use candle_core::Device;
use serde_json::Value;
use tokio::sync::Semaphore;
use tower::util::MapRequest;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::decompression::RequestDecompressionLayer;
use wan_queue::JobQueue;

use crate::address;
use crate::disk::Disk;
use crate::folders::Folders;
use crate::graphs::Graphs;
use crate::guard::origin::OriginPolicy;
use crate::guard::throttle::Throttle;
use crate::guard::token::Token;
use crate::guard::{access, origin};
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::page::{self, FrontEnd};
use crate::reply::ApiError;
use crate::request_log;
use crate::routes::*;
use crate::socket::{self, Hub};
use crate::worker::{Bus, Worker};

/// A request as it comes from the connection.
pub(crate) type Arriving = axum::http::Request<hyper::body::Incoming>;

/// The state as handlers have it.
pub(crate) type Shared = Arc<App>;

/// What the server consists of.
pub(crate) struct App {
    pub queue: Arc<dyn JobQueue>,
    pub bus: Arc<Bus>,
    pub hub: Arc<Hub>,
    pub worker: Mutex<Option<Worker>>,
    pub folders: Folders,
    pub graphs: Graphs,
    pub token: Option<Token>,
    pub origins: OriginPolicy,
    pub throttle: Throttle,
    pub front_end: FrontEnd,
    pub metrics: Arc<Metrics>,
    /// Name of the model.
    pub model: String,
    /// What the page begins with, on the demonstration model.
    pub sample: Value,
    /// Name of the device.
    pub device: String,
    /// The device itself, to ask it for its memory.
    pub processor: Device,
    /// Pictures are decoded two at a time: each takes memory for all its pixels.
    pub decoding: Semaphore,
    /// Room in the data folder.
    pub disk: Arc<Disk>,
    pub limits: Limits,
    /// Held while files get their names.
    pub names: Mutex<()>,
}

impl App {
    /// Runs `work` on a thread that may block.
    pub async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&App) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let app = self.clone();
        tokio::task::spawn_blocking(move || work(&app)).await.map_err(ApiError::internal)?
    }

    /// [`Self::blocking`], for work that decodes a picture.
    pub async fn converting<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&App) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let _turn = self.decoding.acquire().await.map_err(ApiError::internal)?;
        self.blocking(work).await
    }

    /// To be held while a file gets its name, so that two requests do not take the same one.
    pub fn writing(&self) -> MutexGuard<'_, ()> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes the model before the next job.
    pub fn free(&self) {
        if let Some(worker) = &*self.worker.lock().unwrap_or_else(PoisonError::into_inner) {
            worker.free();
        }
    }
}

/// The service that answers requests.
pub(crate) fn service(app: Shared) -> MapRequest<Router, fn(Arriving) -> Arriving> {
    MapRequest::new(router(app), canonical)
}

/// Before the router looks at the path.
fn canonical(mut request: Arriving) -> Arriving {
    if let Some(uri) = address::canonical(request.uri()) {
        *request.uri_mut() = uri;
    }
    request
}

/// Innermost first: inflating, the token, the origin, the log. Nothing that these refuse reaches a handler.
fn router(app: Shared) -> Router {
    endpoints()
        .fallback(page::file)
        .method_not_allowed_fallback(async || (StatusCode::METHOD_NOT_ALLOWED, "405: Method Not Allowed"))
        .layer(RequestDecompressionLayer::new().pass_through_unaccepted(true))
        .layer(from_fn_with_state(app.clone(), access::guard))
        .layer(from_fn_with_state(app.clone(), origin::guard))
        .layer(from_fn_with_state(app.clone(), request_log::limit_time))
        .layer(CatchPanicLayer::custom(|_| ApiError::internal("a handler panicked").into_response()))
        .layer(from_fn_with_state(app.clone(), request_log::log))
        .with_state(app)
}

fn endpoints() -> Router<Shared> {
    Router::new()
        .route("/prompt", get(prompt::status).post(prompt::submit))
        .route("/queue", get(queue::show).post(queue::change))
        .route("/history", get(history::list).post(history::change))
        .route("/history/{id}", get(history::one))
        .route("/jobs", get(jobs::list))
        .route("/jobs/cancel", post(jobs::cancel_several))
        .route("/jobs/{id}", get(jobs::one))
        .route("/jobs/{id}/cancel", post(jobs::cancel))
        .route("/interrupt", post(control::interrupt))
        .route("/free", post(control::free))
        // The handler counts for itself, and reads on past the limit so that its answer is read.
        .route("/upload/image", post(upload::image).layer(DefaultBodyLimit::disable()))
        .route("/upload/mask", post(upload::mask))
        .route("/view", get(view::view))
        .route("/view_metadata/{folder}", get(models::metadata))
        .route("/ws", get(socket::upgrade))
        .route("/object_info", get(object_info::all))
        .route("/object_info/{class}", get(object_info::one))
        .route("/models", get(models::folders))
        .route("/models/{folder}", get(models::files))
        .route("/experiment/models", get(models::folders_with_paths))
        .route("/experiment/models/{folder}", get(models::files_with_sizes))
        .route("/embeddings", get(features::empty_list))
        .route("/extensions", get(page::extensions))
        .route("/features", get(features::features))
        .route("/i18n", get(features::empty_object))
        .route("/workflow_templates", get(features::empty_object))
        .route("/global_subgraphs", get(features::empty_object))
        .route("/system_stats", get(system::stats))
        .route("/users", get(settings::users).post(settings::add_user))
        .route("/settings", get(settings::all).post(settings::merge))
        .route("/settings/{id}", get(settings::one).post(settings::set))
        .route("/userdata", get(userdata::list))
        .route("/userdata/{file}", get(userdata::read).post(userdata::write).delete(userdata::delete))
        .route("/userdata/{file}/move/{dest}", post(userdata::rename))
        .route("/v2/userdata", get(userdata::list_v2))
        .route("/internal/logs", get(features::logs))
        .route("/internal/logs/raw", get(features::raw_logs))
        .route("/internal/logs/subscribe", patch(features::subscribe_logs))
        .route("/internal/files/{kind}", get(features::files))
        .route("/wan-run/session", get(session::show))
        .route("/wan-run/convert", post(prompt::convert))
        .route("/login", get(page::login).post(access::login))
        .route("/health", get(system::health))
        .route("/metrics", get(system::metrics))
}
