//! The worker over the embedded model.

mod jobs;
mod kills;
mod support;
