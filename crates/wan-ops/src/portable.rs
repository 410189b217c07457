/// Leaves out kernels that are for one kind of GPU alone (Hopper's attention), on GPUs that are opened from now on: to tell
/// whether they are at fault, and to go on without them. Portable ones do the same, more slowly. Nothing in a build for the
/// CPU.
pub fn use_portable_kernels() {
    #[cfg(feature = "cuda")]
    wan_cuda::gpu::use_portable_kernels();
}
