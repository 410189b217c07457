//! Host memory for kernels: what a launch reads and writes, between guard bytes.

use std::alloc::{Layout, alloc, dealloc};
use std::slice;

use candle_core::{DType, Device, Tensor};
use float8::F8E4M3;
use half::{bf16, f16};
use wan_cuda::{DevPtr, Launch, shim};

/// Bytes before and behind every buffer; a multiple of any alignment a kernel asks for.
const GUARD: usize = 4096;
/// What guards and unwritten outputs hold: NaN as f32, bf16, f16 and e4m3, -1 as an integer.
const POISON: u8 = 0xff;

/// A buffer of device memory as the shim sees it.
pub struct Buffer {
    base: *mut u8,
    bytes: usize,
}

impl Buffer {
    /// `bytes` unwritten bytes.
    pub fn poisoned_bytes(bytes: usize) -> Self {
        let layout = layout(bytes);
        // SAFETY: the layout has a size above zero.
        #[allow(unsafe_code)]
        let base = unsafe { alloc(layout) };
        assert!(!base.is_null(), "{bytes} bytes of memory");
        // SAFETY: just allocated with this size.
        #[allow(unsafe_code)]
        unsafe {
            base.write_bytes(POISON, layout.size());
        }
        Self { base, bytes }
    }

    /// An output of `elements` values of `dtype`, full of NaN.
    pub fn poisoned(dtype: DType, elements: usize) -> Self {
        Self::poisoned_bytes(elements * dtype.size_in_bytes())
    }

    /// A copy of `bytes`.
    pub fn of_bytes(bytes: &[u8]) -> Self {
        let mut buffer = Self::poisoned_bytes(bytes.len());
        buffer.slice_mut().copy_from_slice(bytes);
        buffer
    }

    /// A tensor's values, row-major in its dtype.
    pub fn of(tensor: &Tensor) -> Self {
        Self::of_bytes(&bytes_of(tensor))
    }

    /// Where it starts; aligned to 4096.
    pub fn ptr(&self) -> DevPtr {
        // SAFETY: the allocation is larger than a guard.
        #[allow(unsafe_code)]
        let start = unsafe { self.base.add(GUARD) };
        DevPtr(start.expose_provenance() as u64)
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: allocated and initialised in `poisoned_bytes`; kernels run only inside `run`.
        #[allow(unsafe_code)]
        unsafe {
            slice::from_raw_parts(self.base.add(GUARD), self.bytes)
        }
    }

    /// The values as a tensor on the CPU.
    pub fn tensor(&self, dtype: DType, shape: &[usize]) -> Tensor {
        Tensor::from_raw_buffer(self.bytes(), dtype, shape, &Device::Cpu).unwrap()
    }

    fn slice_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`, borrowed mutably.
        #[allow(unsafe_code)]
        unsafe {
            slice::from_raw_parts_mut(self.base.add(GUARD), self.bytes)
        }
    }

    /// Panics if anything was written around the buffer.
    #[track_caller]
    fn check_guards(&self, kernel: &str) {
        // SAFETY: both guards belong to the allocation.
        #[allow(unsafe_code)]
        let guards = unsafe {
            [
                slice::from_raw_parts(self.base, GUARD),
                slice::from_raw_parts(self.base.add(GUARD + self.bytes), GUARD),
            ]
        };
        let written = |guard: &[u8]| guard.iter().position(|b| *b != POISON);
        assert_eq!(written(guards[0]), None, "{kernel}: wrote before a buffer of {} bytes", self.bytes);
        assert_eq!(written(guards[1]), None, "{kernel}: wrote past a buffer of {} bytes", self.bytes);
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout.
        #[allow(unsafe_code)]
        unsafe {
            dealloc(self.base, layout(self.bytes));
        }
    }
}

fn layout(bytes: usize) -> Layout {
    Layout::from_size_align(bytes + 2 * GUARD, GUARD).unwrap()
}

/// Runs a launch over `buffers`, which must be all that its pointers point into, and checks their guards.
///
/// # Panics
/// With what the shim found wrong, and if the kernel wrote around a buffer.
#[track_caller]
pub fn run(launch: &Launch, buffers: &[&Buffer]) {
    // SAFETY: the caller lists every buffer; each lives until after this call and nobody else has it.
    #[allow(unsafe_code)]
    if let Err(error) = unsafe { shim::run(launch) } {
        panic!("{error}");
    }
    buffers.iter().for_each(|buffer| buffer.check_guards(launch.kernel));
}

fn bytes_of(tensor: &Tensor) -> Vec<u8> {
    let flat = tensor.flatten_all().unwrap();
    match tensor.dtype() {
        DType::F32 => flat.to_vec1::<f32>().unwrap().iter().flat_map(|v| v.to_le_bytes()).collect(),
        DType::BF16 => flat.to_vec1::<bf16>().unwrap().iter().flat_map(|v| v.to_le_bytes()).collect(),
        DType::F16 => flat.to_vec1::<f16>().unwrap().iter().flat_map(|v| v.to_le_bytes()).collect(),
        DType::F8E4M3 => flat.to_vec1::<F8E4M3>().unwrap().iter().map(|v| v.to_bits()).collect(),
        DType::U8 => flat.to_vec1::<u8>().unwrap(),
        DType::U32 => flat.to_vec1::<u32>().unwrap().iter().flat_map(|v| v.to_le_bytes()).collect(),
        other => panic!("no kernel reads {other:?}"),
    }
}
