// What every kernel includes: how a kernel is declared, and the types and helpers all of them use.
//
// A kernel is one `KERNEL(name, max_threads, parameters...) { body }`, usually a call of a template:
//
//   KERNEL(scale_f32, 256, const float* x, float* y, int64_t count, float factor) {
//     scale(x, y, count, factor);
//   }
//
// Parameters are pointers, int, unsigned, int64_t and float only: that is what a launch can carry.
// The same source compiles for the GPU (nvcc) and, with WAN_SHIM, for the host (see ../shim).
#pragma once

#include <stdint.h>

#ifdef WAN_SHIM
#include "../shim/device.h"

#define KERNEL_OCCUPANCY(name, max_threads, min_blocks, ...)                            \
  extern "C" void name(__VA_ARGS__);                                                    \
  static const shim::Registered registered_##name(#name, max_threads, &name);           \
  extern "C" void name(__VA_ARGS__)

// Shared memory whose size the launch decides.
#define DYNAMIC_SHARED(name) unsigned char* const name = shim::dynamic_shared()
// Shared memory of a fixed size: SHARED(float, tile, [32][33]).
#define SHARED(type, name, dims)                                                        \
  using name##_type = type dims;                                                        \
  name##_type& name = *static_cast<name##_type*>(                                       \
      shim::static_shared(__FILE__, __LINE__, sizeof(name##_type)))

#else
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>

#define KERNEL_OCCUPANCY(name, max_threads, min_blocks, ...)                            \
  extern "C" __global__ void __launch_bounds__(max_threads, min_blocks) name(__VA_ARGS__)
#define DYNAMIC_SHARED(name) extern __shared__ __align__(1024) unsigned char name[]
#define SHARED(type, name, dims) __shared__ __align__(16) type name dims
#endif

// A kernel of at most `max_threads` threads a block.
#define KERNEL(name, max_threads, ...) KERNEL_OCCUPANCY(name, max_threads, 1, __VA_ARGS__)

#include "types.cuh"
#include "warp.cuh"
