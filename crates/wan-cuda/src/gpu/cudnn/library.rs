use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::Path;
use std::ptr;
use std::sync::Arc;

use candle_core::cuda_backend::cudarc::driver::{DriverError, sys::CUresult};

use super::{CudnnError, GpuError};

/// The first version with the fused attention operation in the form that cudnn-frontend asks for.
const OLDEST: usize = 91301;

const NAME: &str = "libcudnn.so.9";

/// Where else than the loader does it is looked for: beside the program, bare or as `pip install --target lib` leaves it.
const BESIDE: [&str; 2] = ["lib", "lib/nvidia/cudnn/lib"];

/// `CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED`.
const NO_DEVICE_MEMORY: c_int = 4004;

pub(super) type Raw = *mut c_void;

/// The functions of cuDNN's graph interface (cudnn.h, cudnn_graph.h of version 9).
pub(super) struct Library {
    create: unsafe extern "C" fn(*mut Raw) -> c_int,
    destroy: unsafe extern "C" fn(Raw) -> c_int,
    set_stream: unsafe extern "C" fn(Raw, *mut c_void) -> c_int,
    error_string: unsafe extern "C" fn(c_int) -> *const c_char,
    last_error: unsafe extern "C" fn(*mut c_char, usize),
    pub create_descriptor: unsafe extern "C" fn(c_int, *mut Raw) -> c_int,
    pub destroy_descriptor: unsafe extern "C" fn(Raw) -> c_int,
    pub set_attribute: unsafe extern "C" fn(Raw, c_int, c_int, i64, *const c_void) -> c_int,
    pub get_attribute: unsafe extern "C" fn(Raw, c_int, c_int, i64, *mut i64, *mut c_void) -> c_int,
    pub finalize: unsafe extern "C" fn(Raw) -> c_int,
    pub execute: unsafe extern "C" fn(Raw, Raw, Raw) -> c_int,
    _open: libloading::Library,
}

impl Library {
    pub fn open() -> Result<Self, CudnnError> {
        let absent = |e: libloading::Error| CudnnError::Absent { reason: e.to_string() };
        // SAFETY: cuDNN's initialisers only prepare the library itself.
        #[allow(unsafe_code)]
        let open = |path: &Path| unsafe { libloading::Library::new(path) };
        let program = std::env::current_exe().unwrap_or_default();
        let mut beside = BESIDE.iter().map(|folder| program.with_file_name(folder).join(NAME));
        let open = open(Path::new(NAME))
            .or_else(|error| beside.find_map(|path| open(&path).ok()).ok_or(error))
            .map_err(absent)?;
        // SAFETY: each symbol has the type that version 9's headers declare; the version is checked before any other
        // is called, and the library stays open as long as the pointers.
        #[allow(unsafe_code)]
        unsafe {
            let version =
                open.get::<unsafe extern "C" fn() -> usize>(b"cudnnGetVersion\0").map_err(absent)?;
            let found = version();
            if found < OLDEST {
                return Err(CudnnError::Version { found });
            }
            Ok(Self {
                create: *open.get(b"cudnnCreate\0").map_err(absent)?,
                destroy: *open.get(b"cudnnDestroy\0").map_err(absent)?,
                set_stream: *open.get(b"cudnnSetStream\0").map_err(absent)?,
                error_string: *open.get(b"cudnnGetErrorString\0").map_err(absent)?,
                last_error: *open.get(b"cudnnGetLastErrorString\0").map_err(absent)?,
                create_descriptor: *open.get(b"cudnnBackendCreateDescriptor\0").map_err(absent)?,
                destroy_descriptor: *open.get(b"cudnnBackendDestroyDescriptor\0").map_err(absent)?,
                set_attribute: *open.get(b"cudnnBackendSetAttribute\0").map_err(absent)?,
                get_attribute: *open.get(b"cudnnBackendGetAttribute\0").map_err(absent)?,
                finalize: *open.get(b"cudnnBackendFinalize\0").map_err(absent)?,
                execute: *open.get(b"cudnnBackendExecute\0").map_err(absent)?,
                _open: open,
            })
        }
    }

    /// A status as a result.
    pub fn check(&self, what: &'static str, status: c_int) -> Result<(), CudnnError> {
        if status == 0 {
            return Ok(());
        }
        if status == NO_DEVICE_MEMORY {
            return Err(GpuError::driver(what)(DriverError(CUresult::CUDA_ERROR_OUT_OF_MEMORY)).into());
        }
        // SAFETY: returns a string of the library's own for any number.
        #[allow(unsafe_code)]
        let answer = unsafe { CStr::from_ptr((self.error_string)(status)) };
        let mut answer = answer.to_string_lossy().into_owned();
        if let Some(reason) = self.reason() {
            answer = format!("{answer}: {reason}");
        }
        Err(CudnnError::Status { what, answer })
    }

    /// What cuDNN last complained of on this thread, the innermost of its reasons.
    pub fn reason(&self) -> Option<String> {
        let mut text = [0u8; 4096];
        // SAFETY: writes a string of at most so many bytes, its end included.
        #[allow(unsafe_code)]
        unsafe {
            (self.last_error)(text.as_mut_ptr().cast(), text.len());
        }
        let text = String::from_utf8_lossy(&text);
        let text = text.split('\0').next()?;
        let reason = text.split_once("Reason: ").map_or(text, |(_, rest)| rest);
        reason.lines().next().map(str::trim).filter(|reason| !reason.is_empty()).map(str::to_owned)
    }
}

/// cuDNN's state for a device and stream.
pub(super) struct Handle {
    raw: Raw,
    library: Arc<Library>,
}

// SAFETY: a handle may be used by any thread, one at a time.
#[allow(unsafe_code)]
unsafe impl Send for Handle {}

impl Handle {
    /// For the current context.
    pub fn new(library: Arc<Library>, stream: *mut c_void) -> Result<Self, CudnnError> {
        let mut raw = ptr::null_mut();
        // SAFETY: writes a handle to `raw`.
        #[allow(unsafe_code)]
        library.check("cudnnCreate", unsafe { (library.create)(&raw mut raw) })?;
        let handle = Self { raw, library };
        // SAFETY: a live handle, and a stream that lives as long as candle's device.
        #[allow(unsafe_code)]
        let status = unsafe { (handle.library.set_stream)(raw, stream) };
        handle.library.check("cudnnSetStream", status)?;
        Ok(handle)
    }

    pub fn raw(&self) -> Raw {
        self.raw
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: created by this library and destroyed once.
        #[allow(unsafe_code)]
        unsafe {
            (self.library.destroy)(self.raw);
        }
    }
}
