//! Launches on an NVIDIA GPU, on the stream of candle's device.

mod cudnn;
mod error;
mod gemm;
mod images;
mod pinned;
mod pool;
mod profile;
mod report;
mod scratch;
mod storage;
mod timer;
mod transfer;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ffi::c_void;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use candle_core::cuda_backend::cudarc::driver::sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES as MAX_DYNAMIC_SHARED;
use candle_core::cuda_backend::cudarc::driver::sys::{CUstream, cuDriverGetVersion};
use candle_core::cuda_backend::cudarc::driver::{CudaFunction, CudaModule, result};
use candle_core::cuda_backend::cudarc::nvrtc::Ptx;
use candle_core::cuda_backend::{CudaDevice, DeviceId};

pub use cudnn::{Cudnn, CudnnError, compiles_for};
pub use error::GpuError;
pub use gemm::{Epilogue, Gemm, GemmPlaces, Operand};
pub use images::{IMAGES, Image, KERNELS_DIGEST, Target, images_for, special_ops, use_portable_kernels};
pub use pinned::Pinned;
pub use pool::PoolMemory;
pub use profile::KernelTime;
pub use report::{KernelReport, losses, parse as parse_report};
pub use scratch::ScratchGuard;
pub use storage::address;
pub use timer::Timer;
pub use transfer::{CopyStream, DeviceSlab, Event};

use crate::{Arg, Launch};

/// Dynamic shared memory that every launch may use without asking: a block has 48 KiB, some of which a kernel may have
/// declared for itself.
const PLAIN_SHARED: u32 = 32 << 10;

/// What the engine keeps for one of candle's devices: the loaded kernels, cublasLt, and scratch.
pub struct Gpu {
    device: CudaDevice,
    capability: (u32, u32),
    /// The module of each kernel that this GPU's images have.
    modules: HashMap<&'static str, Arc<CudaModule>>,
    functions: Mutex<HashMap<&'static str, Function>>,
    blas: gemm::Blas,
    scratch: scratch::Scratch,
    profile: profile::Recorder,
}

/// A loaded kernel, and the dynamic shared memory that its launches may have.
struct Function {
    loaded: CudaFunction,
    shared_bytes: u32,
}

impl Gpu {
    /// The state of `device`, made at its first use and kept until the process ends.
    ///
    /// Errors: [`GpuError::Capability`] for a GPU older than compute capability 8.0; [`GpuError::Unbuilt`] for one that this
    /// build leaves out; [`GpuError::Driver`] where the driver refuses a module.
    pub fn of(device: &CudaDevice) -> Result<Arc<Self>, GpuError> {
        static GPUS: OnceLock<Mutex<HashMap<DeviceId, Arc<Gpu>>>> = OnceLock::new();
        let mut gpus = GPUS.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(gpu) = gpus.get(&device.id()) {
            return Ok(gpu.clone());
        }
        let gpu = Arc::new(Self::open(device)?);
        gpus.insert(device.id(), gpu.clone());
        Ok(gpu)
    }

    fn open(device: &CudaDevice) -> Result<Self, GpuError> {
        let stream = device.cuda_stream();
        let context = stream.context();
        let capability = capability_of(device)?;
        let images = images_for(capability);
        if images.is_empty() {
            return Err(match capability {
                (8.., _) => GpuError::Unbuilt { found: capability, built: images::built_for() },
                _ => GpuError::Capability { found: capability },
            });
        }
        let mut modules = HashMap::new();
        for image in images {
            let code = match image.target {
                Target::Ptx => Ptx::from_src(String::from_utf8_lossy(image.bytes)),
                Target::Cubin(..) => Ptx::from_binary(image.bytes.to_vec()),
            };
            let module = context.load_module(code).map_err(GpuError::driver(image.file))?;
            modules.extend(image.kernels().map(|kernel| (kernel, module.clone())));
        }
        Ok(Self {
            device: device.clone(),
            capability,
            modules,
            functions: Mutex::default(),
            blas: gemm::Blas::new(device)?,
            scratch: scratch::Scratch::default(),
            profile: profile::Recorder::default(),
        })
    }

    /// Candle's device.
    pub fn device(&self) -> &CudaDevice {
        &self.device
    }

    /// Compute capability, (major, minor).
    pub fn capability(&self) -> (u32, u32) {
        self.capability
    }

    /// Whether this GPU has a kernel: those for one architecture alone are absent elsewhere.
    pub fn has(&self, kernel: &'static str) -> bool {
        self.modules.contains_key(kernel)
    }

    /// Puts a launch on the device's stream.
    ///
    /// Errors: [`GpuError::Kernel`] for a kernel that no image of this GPU has; [`GpuError::Driver`].
    ///
    /// # Safety
    /// Every pointer of the launch must be device memory that is valid for what the kernel reads and writes, until
    /// the stream has passed the launch; memory of candle is, as its freeing is ordered on the same stream.
    #[allow(unsafe_code)]
    pub unsafe fn launch(&self, launch: &Launch) -> Result<(), GpuError> {
        if launch.is_empty() {
            return Ok(());
        }
        let fail = GpuError::driver(launch.kernel);
        let stream = self.device.cuda_stream();
        stream.context().bind_to_thread().map_err(&fail)?;
        let function = self.function(launch.kernel, launch.shared_bytes)?;
        let cu_stream: CUstream = stream.cu_stream();
        let mut params: Vec<*mut c_void> = launch.args.iter().map(address_of).collect();
        let ([gx, gy, gz], [bx, by, bz]) = (launch.grid, launch.block);
        self.timed(launch.kernel, || {
            // SAFETY: the function belongs to this device's context, each parameter points at a value of its type
            // (held against the kernel's parameters by the shim's tests), and the caller vouches for the pointers.
            unsafe {
                result::launch_kernel(
                    function.cu_function(),
                    (gx, gy, gz),
                    (bx, by, bz),
                    launch.shared_bytes,
                    cu_stream,
                    &mut params,
                )
            }
            .map_err(fail)
        })
    }

    /// A kernel that may use `shared_bytes`. The calling thread must have bound the context.
    fn function(&self, kernel: &'static str, shared_bytes: u32) -> Result<CudaFunction, GpuError> {
        let mut functions = self.functions.lock().unwrap_or_else(PoisonError::into_inner);
        let function = match functions.entry(kernel) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                let absent = GpuError::Kernel { kernel, capability: self.capability };
                let module = self.modules.get(kernel).ok_or(absent)?;
                let loaded = module.load_function(kernel).map_err(GpuError::driver(kernel))?;
                entry.insert(Function { loaded, shared_bytes: PLAIN_SHARED })
            }
        };
        // Only ever raised: it is the function's, whoever launches it.
        if shared_bytes > function.shared_bytes {
            let bytes = shared_bytes as i32;
            function.loaded.set_attribute(MAX_DYNAMIC_SHARED, bytes).map_err(GpuError::driver(kernel))?;
            function.shared_bytes = shared_bytes;
        }
        Ok(function.loaded.clone())
    }
}

/// Compute capability, (major, minor).
///
/// Errors: the driver's.
pub fn capability_of(device: &CudaDevice) -> Result<(u32, u32), GpuError> {
    let stream = device.cuda_stream();
    let capability = stream.context().compute_capability();
    let (major, minor) = capability.map_err(GpuError::driver("compute capability"))?;
    Ok((major.cast_unsigned(), minor.cast_unsigned()))
}

/// A GPU and its driver's version, in words.
pub fn machine(device: &CudaDevice) -> String {
    let name = device.cuda_stream().context().name().unwrap_or_default();
    let mut driver = 0;
    // SAFETY: writes one integer.
    #[allow(unsafe_code)]
    let _ = unsafe { cuDriverGetVersion(&raw mut driver) };
    format!("{name}, driver {driver}")
}

/// Where an argument's value lies.
fn address_of(arg: &Arg) -> *mut c_void {
    match arg {
        Arg::Ptr(v) => (&raw const v.0).cast_mut().cast(),
        Arg::I32(v) => (&raw const *v).cast_mut().cast(),
        Arg::U32(v) => (&raw const *v).cast_mut().cast(),
        Arg::I64(v) => (&raw const *v).cast_mut().cast(),
        Arg::F32(v) => (&raw const *v).cast_mut().cast(),
    }
}
