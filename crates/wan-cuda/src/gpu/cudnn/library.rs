use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr;
use std::sync::Arc;

use super::CudnnError;

/// The first version with the fused attention operation in the form that cudnn-frontend asks for.
const OLDEST: usize = 91301;

const NAMES: [&str; 2] = ["libcudnn.so.9", "libcudnn.so"];

pub(super) type Raw = *mut c_void;

/// The functions of cuDNN's graph interface (cudnn.h, cudnn_graph.h of version 9).
pub(super) struct Library {
    create: unsafe extern "C" fn(*mut Raw) -> c_int,
    destroy: unsafe extern "C" fn(Raw) -> c_int,
    set_stream: unsafe extern "C" fn(Raw, *mut c_void) -> c_int,
    error_string: unsafe extern "C" fn(c_int) -> *const c_char,
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
        let mut opened = NAMES.iter().map(|name| unsafe { libloading::Library::new(*name) });
        let first = opened.next().expect("names");
        let open = first.or_else(|error| opened.next().and_then(Result::ok).ok_or(error)).map_err(absent)?;
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
        // SAFETY: returns a string of the library's own for any number.
        #[allow(unsafe_code)]
        let answer = unsafe { CStr::from_ptr((self.error_string)(status)) };
        Err(CudnnError::Status { what, answer: answer.to_string_lossy().into_owned() })
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
