//! Shared ground of wan-run: errors, geometry, devices, weights, configuration and progress.
//!
//! This crate knows no model. Axis letters used in the documentation of every crate:
//! `B` batch, `C` channels, `F` latent frames, `T` pixel frames (4k+1), `H` `W` pixels, `h` `w` latent
//! pixels, `L` video tokens, `S` text tokens, `D` head_dim.

#[cfg(not(unix))]
compile_error!("wan-run is for Unix systems: files are mapped, locked and renamed as there");

pub mod config;
pub mod device;
mod error;
pub mod geometry;
pub mod memory;
pub mod progress;
#[cfg(feature = "testkit")]
pub mod testkit;
pub mod weights;

pub use error::{Error, Result, WeightsError};
pub use weights::{Delta, Deltas, Dialect, Loader, Rule, Stored, Unused, WeightSet};
