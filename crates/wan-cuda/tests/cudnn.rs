//! cuDNN's own answer to what this program asks of it, on a machine without a GPU: cuDNN compiles attention for a GPU
//! that it is only told of. `tests/gpu/cudnn/check` has it installed and runs this.

#![cfg(feature = "cuda")]

use wan_cuda::gpu::{CudnnError, compiles_for};
use wan_cuda::ops::{AttentionPlaces, AttentionShape, TokenRows};
use wan_cuda::{DevPtr, Float};

/// An H200's properties, as cuDNN writes them down, but for the compute capability: 900 is 9.0.
fn gpu(capability: u32) -> String {
    format!(
        r#"{{
        "deviceName": "a GPU", "deviceVer": {capability}, "driverVer": 13000, "cudaDeviceId": 0, "pciDeviceId": 0,
        "multiProcessorCount": 132, "warpSize": 32, "maxThreadsPerBlock": 1024, "maxThreadsPerSM": 2048,
        "maxCtasPerSM": 32, "maxGridSize": [2147483647, 65535, 65535], "maxBlockSize": [1024, 1024, 64],
        "regsPerBlock": 65536, "maxRegistersPerSM": 65536, "maxSharedMemoryPerBlock": 49152,
        "maxSharedMemoryPerBlockOptin": 232448, "reservedSharedMemoryPerBlock": 1024, "l2CacheSize": 62914560,
        "totalGlobalMem": 150000000000, "smClockRateKHz": 1980000, "memClockRateKHz": 3201000,
        "memoryBusWidth": 6144, "isTccDriver": 0, "supportCoopLaunch": 1}}"#
    )
}

/// q, k and v in one buffer or apart.
fn compiles(capability: u32, float: Float, shape: AttentionShape, fused: bool) -> Result<(), CudnnError> {
    let width = shape.heads * shape.head_dim;
    let rows = TokenRows { at: DevPtr(4096), stride: if fused { 3 * width } else { width } };
    let places = AttentionPlaces { q: rows, k: rows, v: rows, y: DevPtr(4096), add: false };
    compiles_for(&gpu(capability), float, shape, &places)
}

const fn shape(queries: usize, keys: usize, heads: usize, head_dim: usize) -> AttentionShape {
    AttentionShape { queries, keys, heads, head_dim }
}

#[test]
#[ignore = "needs cuDNN: tests/gpu/cudnn/check"]
fn every_gpu_gets_the_attention_of_the_dit() {
    for capability in [800, 860, 890, 900, 1000, 1200] {
        for float in [Float::Bf16, Float::F16] {
            for (shape, fused) in [
                (shape(32760, 32760, 40, 128), true),
                (shape(32760, 32760, 40, 128), false),
                (shape(32760, 512, 40, 128), false),
                (shape(32760, 257, 40, 128), false),
                (shape(130, 33, 3, 64), false),
            ] {
                if let Err(e) = compiles(capability, float, shape, fused) {
                    panic!("{capability}, {float:?}, {shape:?}, one buffer {fused}: {e}");
                }
            }
        }
    }
}

/// What this program does not ask for, cuDNN does not have, or is told wrongly.
#[test]
#[ignore = "needs cuDNN: tests/gpu/cudnn/check"]
fn what_cudnn_has_not_is_an_error() {
    let plain = shape(64, 64, 2, 128);
    let engine = |result| matches!(result, Err(CudnnError::Engine { .. }));
    assert!(engine(compiles(900, Float::F32, plain, false)));
    assert!(engine(compiles(900, Float::Bf16, shape(64, 64, 2, 20), false)));
    let older = compiles(750, Float::Bf16, plain, false);
    assert!(matches!(older, Err(CudnnError::Unusable { .. })), "{older:?}");
    let places = TokenRows { at: DevPtr(4096), stride: 256 };
    let places = AttentionPlaces { q: places, k: places, v: places, y: DevPtr(4096), add: false };
    let error = compiles_for("{}", Float::Bf16, plain, &places).unwrap_err();
    assert!(matches!(error, CudnnError::Status { what: "properties of a GPU", .. }), "{error}");
}

/// Run where cuDNN does not find NVRTC.
#[test]
#[ignore = "needs cuDNN, and CUDA out of its way: tests/gpu/cudnn/check"]
fn without_its_compiler_it_says_so() {
    let error = compiles(900, Float::Bf16, shape(64, 64, 2, 128), false).unwrap_err();
    assert!(matches!(&error, CudnnError::Unusable { reason } if reason.contains("nvrtc")), "{error}");
}
