//! What the CUDA halves share: inputs and outputs of kernels as addresses, and launching.

use candle_core::backend::{BackendDevice, BackendStorage};
use candle_core::cuda_backend::{CudaDevice, CudaStorage};
use candle_core::op::BackpropOp;
use candle_core::{DType, Layout, Result, Shape, Storage, Tensor, bail};
use wan_cuda::gpu::{Gemm, GemmPlaces, Gpu, address};
use wan_cuda::ops::Function;
use wan_cuda::{DevPtr, Float, Launch};

use crate::Activation;

/// The activation format of a dtype.
///
/// Errors: another dtype than f32, bf16 and f16.
pub(crate) fn float(op: &str, dtype: DType) -> Result<Float> {
    Ok(match dtype {
        DType::F32 => Float::F32,
        DType::BF16 => Float::Bf16,
        DType::F16 => Float::F16,
        other => bail!("{op}: found dtype {other:?} on cuda, expected f32, bf16 or f16"),
    })
}

/// A tensor's values, row-major, as a kernel reads them: in place where they lie so already, else gathered.
pub(crate) struct Input<'a> {
    storage: Held<'a>,
    start: DevPtr,
    dtype: DType,
}

enum Held<'a> {
    Lent(&'a CudaStorage),
    Gathered(CudaStorage),
}

impl<'a> Input<'a> {
    /// An op's argument as candle hands it over.
    pub fn new(storage: &'a CudaStorage, layout: &Layout) -> Result<Self> {
        let dtype = storage.dtype();
        if let Some((start, _)) = layout.contiguous_offsets() {
            let start = address(storage).offset(start * dtype.size_in_bytes());
            return Ok(Self { storage: Held::Lent(storage), start, dtype });
        }
        let mut gathered = allocate(storage.device(), layout.shape(), dtype)?;
        storage.copy_strided_src(&mut gathered, 0, layout)?;
        let start = address(&gathered);
        Ok(Self { storage: Held::Gathered(gathered), start, dtype })
    }

    /// Where the values start.
    pub fn ptr(&self) -> DevPtr {
        self.start
    }

    /// Their dtype.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The device they are on.
    pub fn device(&self) -> &CudaDevice {
        match &self.storage {
            Held::Lent(storage) => storage.device(),
            Held::Gathered(storage) => storage.device(),
        }
    }
}

/// Calls `with` with the contiguous values of a tensor that comes beside an op's main inputs.
///
/// Errors: a tensor that is not on a GPU; those of `with`.
pub(crate) fn with_tensor<T>(
    op: &str,
    tensor: &Tensor,
    with: impl FnOnce(&Input<'_>) -> Result<T>,
) -> Result<T> {
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cuda(storage) => with(&Input::new(storage, layout)?),
        _ => bail!("{op}: found an argument on another device, expected cuda like the input"),
    }
}

/// A small tensor's values in f32, kept alive as long as this lives: gates, norms' weights, modulations.
pub(crate) struct Side {
    tensor: Tensor,
    start: DevPtr,
}

impl Side {
    /// Errors: a tensor that is not on a GPU.
    pub fn new(op: &str, tensor: &Tensor) -> Result<Self> {
        let tensor = tensor.to_dtype(DType::F32)?.contiguous()?;
        let start = with_tensor(op, &tensor, |input| Ok(input.ptr()))?;
        Ok(Self { tensor, start })
    }

    /// Of a tensor that may be absent.
    pub fn option(op: &str, tensor: Option<&Tensor>) -> Result<Option<Self>> {
        tensor.map(|t| Self::new(op, t)).transpose()
    }

    /// Where the values start.
    pub fn ptr(&self) -> DevPtr {
        debug_assert_eq!(self.tensor.dtype(), DType::F32);
        self.start
    }
}

/// Address of an optional side tensor; null if absent.
pub(crate) fn optional(side: Option<&Side>) -> DevPtr {
    side.map_or(DevPtr::NULL, Side::ptr)
}

/// A kernel's output.
pub(crate) struct Output {
    storage: CudaStorage,
    shape: Shape,
}

impl Output {
    /// An unwritten tensor.
    pub fn new(device: &CudaDevice, shape: impl Into<Shape>, dtype: DType) -> Result<Self> {
        let shape = shape.into();
        Ok(Self { storage: allocate(device, &shape, dtype)?, shape })
    }

    /// Where it starts.
    pub fn ptr(&self) -> DevPtr {
        address(&self.storage)
    }

    /// As a custom op returns it.
    pub fn finish(self) -> (CudaStorage, Shape) {
        (self.storage, self.shape)
    }

    /// As a tensor.
    pub fn into_tensor(self) -> Tensor {
        Tensor::from_storage(Storage::Cuda(self.storage), self.shape, BackpropOp::none(), false)
    }
}

/// Checks that kernels which hold a row in registers can take one of `dim` values.
pub(crate) fn check_row(op: &str, dim: usize) -> Result<()> {
    use wan_cuda::ops::LONGEST_ROW;
    if dim > LONGEST_ROW {
        bail!("{op}: found rows of {dim} values on cuda, expected at most {LONGEST_ROW}");
    }
    Ok(())
}

/// Puts a launch on the device's stream.
pub(crate) fn launch(device: &CudaDevice, launch: &Launch) -> Result<()> {
    let gpu = Gpu::of(device)?;
    // SAFETY: addresses in this crate come from `Input`, `Side`, `Output` and `linear`'s weights, of the sizes that
    // the ops checked. Their memory is freed on the same stream, behind the launch.
    #[allow(unsafe_code)]
    unsafe {
        Ok(gpu.launch(launch)?)
    }
}

/// Puts a matrix product on the device's stream.
pub(crate) fn gemm(gpu: &Gpu, gemm: &Gemm, places: GemmPlaces, factor: f32) -> Result<()> {
    // SAFETY: as in `launch`; outputs are memory of their own.
    #[allow(unsafe_code)]
    unsafe {
        Ok(gpu.gemm(gemm, places, factor)?)
    }
}

/// An activation as the kernels number it.
pub(crate) fn function(activation: Activation) -> Function {
    match activation {
        Activation::Identity => Function::Identity,
        Activation::GeluTanh => Function::GeluTanh,
        Activation::GeluErf => Function::GeluErf,
        Activation::Silu => Function::Silu,
    }
}

fn allocate(device: &CudaDevice, shape: &Shape, dtype: DType) -> Result<CudaStorage> {
    // SAFETY: kernels write every value of their outputs before anything reads them; the shim's tests hold them to it.
    #[allow(unsafe_code)]
    unsafe {
        device.alloc_uninit(shape, dtype)
    }
}
