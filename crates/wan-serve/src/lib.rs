//! The ComfyUI-compatible HTTP server and its web page (`page/`).
//!
//! [`Server::start`] opens a data folder with its queue and takes an address; [`Server::run`] answers until
//! [`Stop::stop`]. What the endpoints say is ComfyUI's API, so that its clients work unchanged; where ComfyUI fails
//! with a 500 or trusts its clients, this server answers 4xx with JSON.
//!
//! | module | what it does |
//! |---|---|
//! | `app` | the state, and which path leads where |
//! | `routes` | the endpoints, one file for each resource |
//! | `guard` | the token, the origin of browsers' requests |
//! | `socket` | `/ws`: who listens, and what each is told |
//! | `graphs` | graphs on the models that are here |
//! | `limits`, `disk` | what clients and jobs may take |
//! | `folders`, `names`, `user_files` | files, and names that do not lead out of their folder |
//! | [`worker`] | runs the jobs |
//!
//! Beside ComfyUI's routes the page uses two of its own, both authenticated like the others:
//! - `GET /wan-run/session`: `{"version", "model", "device", "token", "sample"}`: the token null where none is set; the
//!   sample null but for the embedded model: the settings that its page begins with
//! - `POST /wan-run/convert`: a workflow in UI or API format; `{"prompt": API graph}`

mod address;
mod app;
mod body;
mod disk;
mod error;
mod folders;
mod graphs;
mod guard;
mod image_check;
mod limits;
mod metrics;
mod names;
mod page;
mod render_job;
mod reply;
mod request_log;
mod routes;
mod server;
mod socket;
mod user_files;
pub mod worker;

pub use error::ServeError;
pub use graphs::Engine;
pub use guard::token::Token;
pub use limits::Limits;
pub use server::{Access, Options, Server, Stop, Stopped};
