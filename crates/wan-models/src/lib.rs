//! Model descriptions (`models/*.toml`), the registry that finds their files, the hub they are pulled from, and the
//! embedded `tiny` model.

mod description;
mod embedded;
mod error;
mod extra_paths;
pub mod hub;
mod places;
mod registry;
mod source;

pub use description::{
    Defaults, Description, FileEntry, FilePart, KnownSize, LatentRgb, LoraDescription, ModelDescription,
    ModelFileSet, ModelType, Recipe,
};
pub use error::{FilesMissing, ModelsError};
pub use places::Places;
pub use registry::{Registry, files_missing, nearest_name};
pub use source::{ModelFiles, Source};
