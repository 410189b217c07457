//! Model descriptions (`models/*.toml`), the registry that finds their files, and the embedded `tiny` model.

mod description;
mod embedded;
mod error;
mod registry;

pub use description::{Defaults, FileEntry, LatentRgb, ModelDescription, ModelFileSet, ModelType};
pub use error::ModelsError;
pub use registry::{Component, ModelFiles, Registry, Source};
