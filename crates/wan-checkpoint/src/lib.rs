//! What a checkpoint file is, whatever its name says, and its conversion to other dtypes.
//!
//! Knows all components; [`identify`] tells them apart by their tensors, [`inspect()`] describes a file, and
//! [`convert()`] rewrites one in bf16, FP8 or scaled FP8.

mod component;
mod convert;
mod inspect;
mod quantise;
mod write;

pub use component::{Component, Identity, expect, identify};
pub use convert::{ConvertOptions, Converted, ScaleUnit, Target, TensorReport, convert};
pub use inspect::{DtypeCount, Report, inspect};
