//! Weights as they lie in their files: mapped, never copied or widened on opening.
//!
//! A [`WeightSet`] is the tensors of one component, under the names of some file. [`WeightSet::canonical`]
//! translates them through a [`Dialect`] to the original Wan names; a [`Loader`] then hands each one out
//! once, with its shape checked, and reports everything missing, misshapen or left over together.

mod blocks;
mod bytes;
mod delta;
mod gguf;
mod gguf_metadata;
mod loader;
mod names;
mod open;
mod pickle;
mod pickle_globals;
mod pickle_input;
mod scale;
mod stored;
mod torch;
mod widen;

pub use blocks::BlockFormat;
pub use bytes::Bytes;
pub use delta::{Delta, Deltas};
pub use gguf::GGUF_VOCABULARY;
pub use gguf_metadata::GgufMetadata;
pub use loader::Loader;
pub use names::{Dialect, Rule, Unused};
pub use open::{Container, WeightSet};
pub use scale::Scale;
pub use stored::Stored;
pub use widen::widen;
