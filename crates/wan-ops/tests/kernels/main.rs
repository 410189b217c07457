//! The GPU kernels, run on the host (see `wan_cuda::shim`) and held against the CPU halves of their ops.
//!
//! Every test builds a launch over host memory, with outputs full of NaN and guard bytes around every buffer, runs
//! it, and compares what came out with the op's public function on the same values.

mod activation;
mod attention;
mod attention_sage;
mod channel_norm;
mod conv3d;
mod dequantise;
mod host;
mod layer_norm;
mod quantised;
mod residual;
mod rms_norm;
mod shim;
mod shim_sm90;
// Deterministic inputs and comparisons, shared with the ops' own tests.
#[path = "../../src/testing.rs"]
#[allow(dead_code)]
mod testing;

use candle_core::DType;
use wan_cuda::Float;

/// Activation formats, each with a tolerance relative to the largest value: for the 16-bit ones a unit in the last
/// place, since sums of another order may round to a neighbour; for f32 the sums' own error.
const FLOATS: [(Float, DType, f32); 3] = [
    (Float::F32, DType::F32, 2e-6),
    (Float::Bf16, DType::BF16, 1.0 / 128.0),
    (Float::F16, DType::F16, 1.0 / 1024.0),
];
