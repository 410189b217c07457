//! Kernels on the host: the same source, compiled for the CPU, with blocks and threads emulated.
//!
//! Found and reported: threads that never come together at a barrier, shuffle or matrix instruction; writes past
//! shared arrays; asynchronous copies and matrix loads outside of shared memory or unaligned; arguments of other
//! types than the kernel's parameters; more threads than the kernel was declared for. Shared memory is full of NaN
//! until written, and so is the target of an asynchronous copy until it is waited for. Not found: writes outside of
//! the caller's own buffers, unless their surroundings are checked afterwards.

use std::ffi::{CStr, CString, c_char, c_int};
use std::thread;

use crate::{Arg, Launch};

/// What is wrong with a kernel or its launch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ShimError(String);

#[repr(C)]
struct RawLaunch {
    kernel: *const c_char,
    grid: [u32; 3],
    block: [u32; 3],
    shared_bytes: u32,
    arguments: *const u64,
    kinds: *const c_char,
}

// SAFETY: the pointers are only read, and outlive the threads they are lent to.
#[allow(unsafe_code)]
unsafe impl Sync for RawLaunch {}

#[allow(unsafe_code)]
unsafe extern "C" {
    fn wan_shim_run(launch: *const RawLaunch, first: u64, step: u64, message: *mut c_char) -> c_int;
    fn wan_shim_digest() -> *const c_char;
}

/// Bytes of an error message, as `kernels/shim/runtime.cpp` writes it.
const MESSAGE_BYTES: usize = 1024;

/// Runs a launch whose pointers are addresses of this process.
///
/// Errors: [`ShimError`] for what is listed in the module's documentation; outputs are then partly written.
///
/// # Safety
/// Every pointer must be valid for what the kernel reads and writes there, and nothing else may use it meanwhile.
#[allow(unsafe_code)]
pub unsafe fn run(launch: &Launch) -> Result<(), ShimError> {
    if launch.is_empty() {
        return Ok(());
    }
    let kernel = CString::new(launch.kernel).expect("kernel names hold no zero");
    let arguments: Vec<u64> = launch.args.iter().map(slot).collect();
    let kinds = CString::new(launch.args.iter().map(kind).collect::<Vec<u8>>()).expect("letters");
    let raw = RawLaunch {
        kernel: kernel.as_ptr(),
        grid: launch.grid,
        block: launch.block,
        shared_bytes: launch.shared_bytes,
        arguments: arguments.as_ptr(),
        kinds: kinds.as_ptr(),
    };
    let raw = &raw;
    let blocks: u64 = launch.grid.iter().map(|n| u64::from(*n)).product();
    let threads = thread::available_parallelism().map_or(1, |n| n.get() as u64).min(blocks);
    let part = |first: u64| {
        let mut message = [0 as c_char; MESSAGE_BYTES];
        // SAFETY: `raw` and what it points at live until the threads are joined, the message has the agreed size,
        // and the caller vouches for the kernel's own pointers.
        let failed = unsafe { wan_shim_run(raw, first, threads, message.as_mut_ptr()) } != 0;
        // SAFETY: the shim ends the message with a zero.
        failed.then(|| unsafe { CStr::from_ptr(message.as_ptr()) }.to_string_lossy().into_owned())
    };
    let failures: Vec<Option<String>> = thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|first| scope.spawn(move || part(first))).collect();
        running.into_iter().map(|t| t.join().expect("the shim does not panic")).collect()
    });
    failures.into_iter().flatten().next().map_or(Ok(()), |message| Err(ShimError(message)))
}

/// The argument's bytes at the start of a slot.
fn slot(arg: &Arg) -> u64 {
    match *arg {
        Arg::Ptr(p) => p.0,
        Arg::I32(v) => u64::from(v.cast_unsigned()),
        Arg::U32(v) => u64::from(v),
        Arg::I64(v) => v.cast_unsigned(),
        Arg::F32(v) => u64::from(v.to_bits()),
    }
}

fn kind(arg: &Arg) -> u8 {
    match arg {
        Arg::Ptr(_) => b'p',
        Arg::I32(_) => b'i',
        Arg::U32(_) => b'u',
        Arg::I64(_) => b'l',
        Arg::F32(_) => b'f',
    }
}

/// A hash over the sources that the linked kernels were compiled from.
pub fn digest() -> String {
    // SAFETY: returns a string constant.
    #[allow(unsafe_code)]
    unsafe { CStr::from_ptr(wan_shim_digest()) }.to_string_lossy().into_owned()
}
