//! NVIDIA's libraries, opened when they are first called.
//!
//! candle links the driver, cudart, cuBLAS, cuRAND and NVRTC, and a program linked so does not start where one of them
//! is missing. This crate holds a stand-in for each of their functions; the linker takes it and needs no library. Ask
//! `missing` before the first call: a function of a library that is not there returns an error code.

/// A library that this machine lacks, by its file name; `None` where all can be opened.
#[cfg(feature = "cuda")]
pub fn missing() -> Option<String> {
    #[allow(unsafe_code)]
    unsafe extern "C" {
        fn wan_cuda_missing() -> *const std::ffi::c_char;
    }
    // SAFETY: takes nothing, and returns null or a string of the program's own.
    #[allow(unsafe_code)]
    unsafe {
        let name = wan_cuda_missing();
        (!name.is_null()).then(|| std::ffi::CStr::from_ptr(name).to_string_lossy().into_owned())
    }
}
