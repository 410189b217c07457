//! Matrix products through cublasLt.

mod descriptor;
mod tuning;

use std::ffi::c_void;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use candle_core::cuda_backend::CudaDevice;
use candle_core::cuda_backend::cudarc::cublaslt::result::CublasError;
use candle_core::cuda_backend::cudarc::cublaslt::{result, sys};
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, DevicePtr};

use self::descriptor::Descriptors;
use self::tuning::Tuning;
use super::{Gpu, GpuError};
use crate::{ChoicesError, DevPtr, Float};

/// Scratch that cublasLt's algorithms may use; what NVIDIA recommends for Hopper, and enough elsewhere.
const WORKSPACE_BYTES: usize = 32 << 20;

/// Format of both factors of a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operand {
    /// f32, multiplied as such (no TF32), bf16 or f16.
    Float(Float),
    /// e4m3.
    E4m3,
}

/// What follows the product, before it is rounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Epilogue {
    /// Nothing.
    None,
    /// A bias `[outputs]` in the output's format.
    Bias,
    /// GELU in its tanh form.
    GeluTanh,
    /// A bias, then GELU in its tanh form.
    BiasGeluTanh,
}

/// A product `y = epilogue(factor x wᵀ + bias)` of row-major matrices, sums in f32: `x` `[rows, inputs]`, `w`
/// `[outputs, inputs]`, `y` `[rows, outputs]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Gemm {
    /// Rows of x and y.
    pub rows: usize,
    /// Columns of y.
    pub outputs: usize,
    /// Columns of x.
    pub inputs: usize,
    /// Format of x and w.
    pub operand: Operand,
    /// Format of y and of the bias: the operands' own, or bf16 or f16 for e4m3.
    pub output: Float,
    /// What follows.
    pub epilogue: Epilogue,
}

impl Gemm {
    /// Whether GPUs of this capability have the product in FP8: 8.9 and later, sizes multiples of 16.
    pub fn fits_fp8(capability: (u32, u32), outputs: usize, inputs: usize) -> bool {
        capability >= (8, 9) && outputs.is_multiple_of(16) && inputs.is_multiple_of(16)
    }
}

/// Where the matrices of a [`Gemm`] are.
#[derive(Debug, Clone, Copy)]
pub struct GemmPlaces {
    /// `[rows, inputs]`.
    pub x: DevPtr,
    /// `[outputs, inputs]`.
    pub weight: DevPtr,
    /// `[outputs]`; null where the epilogue has none.
    pub bias: DevPtr,
    /// `[rows, outputs]`.
    pub y: DevPtr,
}

impl GemmPlaces {
    /// The largest power of two, up to 256, that divides every address.
    fn alignment(&self) -> u32 {
        let joined = self.x.0 | self.weight.0 | self.y.0 | self.bias.0 | 256;
        1 << joined.trailing_zeros()
    }
}

/// cublasLt for one device.
pub(super) struct Blas {
    handle: sys::cublasLtHandle_t,
    workspace: CudaSlice<u8>,
    tuning: Mutex<Tuning>,
}

// SAFETY: cublasLt's handle may be used from any thread.
#[allow(unsafe_code)]
unsafe impl Send for Blas {}
// SAFETY: as above; everything else is behind a mutex or only read.
#[allow(unsafe_code)]
unsafe impl Sync for Blas {}

impl Blas {
    pub(super) fn new(device: &CudaDevice) -> Result<Self, GpuError> {
        let what = "cublasLt";
        let handle = result::create_handle().map_err(GpuError::blas(what))?;
        // SAFETY: scratch, which nothing reads before cublasLt has written it.
        #[allow(unsafe_code)]
        let workspace = unsafe { device.cuda_stream().alloc::<u8>(WORKSPACE_BYTES) };
        let workspace = workspace.map_err(GpuError::driver(what))?;
        Ok(Self { handle, workspace, tuning: Mutex::new(Tuning::new(device)) })
    }

    fn tuning(&self) -> MutexGuard<'_, Tuning> {
        self.tuning.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Blas {
    fn drop(&mut self) {
        // SAFETY: made by `create_handle`, destroyed once. There is nobody to tell about an error.
        #[allow(unsafe_code)]
        let _ = unsafe { result::destroy_handle(self.handle) };
    }
}

impl Gpu {
    /// Keeps the algorithms chosen for products in a file of `folder`, one for each GPU, driver and library, and takes
    /// those that it holds. Without it they are chosen anew in every process.
    ///
    /// Errors: a file that cannot be used; it is then replaced.
    pub fn keep_tuning(&self, folder: &Path) -> Result<(), ChoicesError> {
        self.blas.tuning().keep(folder)
    }

    /// Puts a product on the device's stream. The first of each shape times cublasLt's candidates on the places given,
    /// which waits for the stream.
    ///
    /// Errors: [`GpuError::Blas`] for a product that cublasLt does not have, [`GpuError::Driver`].
    ///
    /// # Safety
    /// The places must be device memory of the sizes the product states, valid until the stream has passed it, and
    /// `y` must not overlap the others.
    #[allow(unsafe_code)]
    pub unsafe fn gemm(&self, gemm: &Gemm, places: GemmPlaces, factor: f32) -> Result<(), GpuError> {
        if gemm.rows == 0 || gemm.outputs == 0 {
            return Ok(());
        }
        self.device().cuda_stream().context().bind_to_thread().map_err(GpuError::driver("gemm"))?;
        let descriptors = Descriptors::new(gemm, places.bias)?;
        let call = Call { gpu: self, descriptors: &descriptors, places, factor };
        let algorithm = self.blas.tuning().algorithm(gemm, &call)?;
        self.timed("gemm", || {
            // SAFETY: the caller's.
            unsafe { call.run(&algorithm) }.map_err(GpuError::blas(&format!("{gemm:?}")))
        })
    }
}

/// A product ready to run with one algorithm or another.
struct Call<'a> {
    gpu: &'a Gpu,
    descriptors: &'a Descriptors,
    places: GemmPlaces,
    factor: f32,
}

impl Call<'_> {
    /// # Safety
    /// As for [`Gpu::gemm`].
    #[allow(unsafe_code)]
    unsafe fn run(&self, algorithm: &sys::cublasLtMatmulAlgo_t) -> Result<(), CublasError> {
        let stream = self.gpu.device().cuda_stream();
        let (workspace, _ordered) = self.gpu.blas.workspace.device_ptr(&stream);
        let at = |p: DevPtr| p.0 as *mut c_void;
        let (d, none) = (self.descriptors, 0f32);
        // SAFETY: descriptors and handle are alive; in cublasLt's column-major words the weight is A, transposed, x is
        // B, and y is C and D at once. The workspace is only used on this stream.
        unsafe {
            result::matmul(
                self.gpu.blas.handle,
                d.product,
                (&raw const self.factor).cast(),
                (&raw const none).cast(),
                at(self.places.weight),
                d.weight,
                at(self.places.x),
                d.x,
                at(self.places.y),
                d.y,
                at(self.places.y),
                d.y,
                algorithm,
                workspace as *mut c_void,
                WORKSPACE_BYTES,
                stream.cu_stream().cast(),
            )
        }
    }
}
