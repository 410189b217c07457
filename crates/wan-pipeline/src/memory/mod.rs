//! What a job takes, told from headers and shapes alone, and how it is made to fit.
//!
//! [`MemoryPlan::new`] is a pure function of [`ModelSizes`] (what the files hold), a [`Plan`](crate::Plan) (what is
//! asked) and a [`Budget`] (what may be used, and where), so that it can be asked about machines that are elsewhere.
//! Every stage loads its component, runs and drops it before the next one: the peak is that of the largest stage, not
//! the sum.

mod advice;
mod blocks_to_swap;
mod budget;
mod device;
mod host;
mod job;
mod plan;
mod sizes;
#[cfg(test)]
mod tests;

pub use blocks_to_swap::BlocksToSwap;
pub use budget::{Budget, MemoryLimits, Processor};
use job::JobShape;
pub use plan::{DecodeMode, MemoryItem, MemoryPlan};
pub(crate) use plan::{DecodeWay, decode_way};
pub(crate) use sizes::stored_bytes;
pub use sizes::{DitSizes, ImageEncoderSizes, ModelSizes, TextEncoderSizes, VaeSizes};
