use candle_core::cuda_backend::cudarc::driver::{CudaSlice, DevicePtr};
use candle_core::cuda_backend::{CudaStorage, CudaStorageSlice};

use crate::DevPtr;

/// Where a storage of candle starts.
///
/// # Panics
/// For candle's placeholder dtypes (below 8 bits), which hold nothing on CUDA.
pub fn address(storage: &CudaStorage) -> DevPtr {
    let stream = storage.device.cuda_stream();
    fn start<T>(
        slice: &CudaSlice<T>,
        stream: &candle_core::cuda_backend::cudarc::driver::CudaStream,
    ) -> DevPtr {
        DevPtr(slice.device_ptr(stream).0)
    }
    match &storage.slice {
        CudaStorageSlice::U8(s) => start(s, &stream),
        CudaStorageSlice::U32(s) => start(s, &stream),
        CudaStorageSlice::I16(s) => start(s, &stream),
        CudaStorageSlice::I32(s) => start(s, &stream),
        CudaStorageSlice::I64(s) => start(s, &stream),
        CudaStorageSlice::BF16(s) => start(s, &stream),
        CudaStorageSlice::F16(s) => start(s, &stream),
        CudaStorageSlice::F32(s) => start(s, &stream),
        CudaStorageSlice::F64(s) => start(s, &stream),
        CudaStorageSlice::F8E4M3(s) => start(s, &stream),
        _ => panic!("a dtype without storage on CUDA"),
    }
}
