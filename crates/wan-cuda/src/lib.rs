//! GPU kernels: launches as data, and two ways to run them.
//!
//! A kernel is a file of `kernels/` at the repository's root. Its launch is a plain value, a [`Launch`], built by a
//! pure function in [`ops`] from addresses and sizes. It runs on a GPU (`gpu::Gpu`, feature `cuda`) or on the host
//! (`shim`, feature `shim`), where blocks and threads are emulated and mistakes of a kernel are found.

#[cfg(feature = "cuda")]
use wan_cuda_libs as _; // stands in for the libraries that cudarc links

mod choices;
mod launch;
pub mod ops;

#[cfg(feature = "cuda")]
pub mod gpu;
#[cfg(feature = "shim")]
pub mod shim;

pub use choices::{Choices, ChoicesError, Words};
pub use launch::{Arg, DevPtr, Float, Launch};
