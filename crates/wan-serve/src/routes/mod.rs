//! The endpoints, one file for each resource.

pub(crate) mod control;
pub(crate) mod features;
pub(crate) mod filename;
pub(crate) mod history;
pub(crate) mod jobs;
pub(crate) mod models;
pub(crate) mod object_info;
pub(crate) mod prompt;
pub(crate) mod queue;
pub(crate) mod range;
pub(crate) mod session;
pub(crate) mod settings;
pub(crate) mod submission;
pub(crate) mod system;
pub(crate) mod upload;
pub(crate) mod userdata;
pub(crate) mod view;
pub(crate) mod view_image;
