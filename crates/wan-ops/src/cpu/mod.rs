//! What the CPU halves share: the matrix-product tile, packing, vectorised functions and access to storages.
//!
//! Instruction sets are chosen at run time (AVX-512, AVX2, NEON or plain loops). Every op cuts its work into
//! pieces by shape alone, never by the number of threads, and sums in one fixed order: results are
//! byte-identical whatever the size of rayon's global pool. Nothing here starts parallel work inside a piece.

pub(crate) mod math;
pub(crate) mod panels;
pub(crate) mod rows;
pub(crate) mod scratch;
pub(crate) mod storage;
pub(crate) mod tile;
mod vector;
