// The CUDA language on the host: what kernels use of it, for one emulated thread (see runtime.h for the others).
#pragma once

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "formats.h"
#include "runtime.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __restrict__ __restrict
#define __align__(bytes) alignas(bytes)
#define __constant__ static const

#define threadIdx (shim::current->thread)
#define blockIdx (shim::current->block->index)
#define blockDim (shim::current->block->launch->block)
#define gridDim (shim::current->block->launch->grid)

#define __syncthreads() shim::sync_block(shim::Site{__FILE__, __LINE__, "__syncthreads"})

struct alignas(8) int2 { int x, y; };
struct alignas(16) int4 { int x, y, z, w; };
struct alignas(8) uint2 { unsigned x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
inline int2 make_int2(int x, int y) { return {x, y}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

inline int min(int a, int b) { return a < b ? a : b; }
inline int max(int a, int b) { return a > b ? a : b; }
inline unsigned min(unsigned a, unsigned b) { return a < b ? a : b; }
inline unsigned max(unsigned a, unsigned b) { return a > b ? a : b; }
inline int64_t min(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t max(int64_t a, int64_t b) { return a > b ? a : b; }

inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline float __expf(float x) { return expf(x); }
inline float __logf(float x) { return logf(x); }
inline float __fdividef(float x, float y) { return x / y; }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __fmaf_rn(float x, float y, float z) { return fmaf(x, y, z); }
// Never part of a fused operation.
inline float __fmul_rn(float x, float y) {
  volatile float product = x * y;
  return product;
}
inline int __float2int_rn(float x) { return int(rintf(x)); }
inline int __float_as_int(float x) { return shim::bits_as<int>(x); }
inline unsigned __float_as_uint(float x) { return shim::bits_as<unsigned>(x); }
inline float __int_as_float(int x) { return shim::bits_as<float>(x); }
inline float __uint_as_float(unsigned x) { return shim::bits_as<float>(x); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(unsigned(x)); }
inline int __ffs(int x) { return __builtin_ffs(x); }

template <class T>
inline T __ldg(const T* p) {
  return *p;
}

// Atomics: blocks run on several threads of the host.
inline int atomicAdd(int* p, int x) { return __atomic_fetch_add(p, x, __ATOMIC_RELAXED); }
inline unsigned atomicAdd(unsigned* p, unsigned x) { return __atomic_fetch_add(p, x, __ATOMIC_RELAXED); }
inline float atomicAdd(float* p, float x) {
  return shim::atomic_update(p, [x](float old) { return old + x; });
}
inline int atomicMax(int* p, int x) {
  return shim::atomic_update(p, [x](int old) { return old > x ? old : x; });
}
inline unsigned atomicMax(unsigned* p, unsigned x) {
  return shim::atomic_update(p, [x](unsigned old) { return old > x ? old : x; });
}
inline int atomicExch(int* p, int x) { return __atomic_exchange_n(p, x, __ATOMIC_RELAXED); }

// Collectives of a warp: every lane of `mask` must come to the same one.
template <class T>
inline T __shfl_sync(unsigned mask, T x, int from, int width = 32) {
  return shim::shuffle(mask, x, [=](int lane) { return (lane & ~(width - 1)) | (from & (width - 1)); });
}
template <class T>
inline T __shfl_xor_sync(unsigned mask, T x, int with, int width = 32) {
  return shim::shuffle(mask, x, [=](int lane) {
    const int from = lane ^ with;
    return from / width > lane / width ? lane : from;
  });
}
template <class T>
inline T __shfl_down_sync(unsigned mask, T x, int by, int width = 32) {
  return shim::shuffle(mask, x, [=](int lane) { return lane % width + by < width ? lane + by : lane; });
}
template <class T>
inline T __shfl_up_sync(unsigned mask, T x, int by, int width = 32) {
  return shim::shuffle(mask, x, [=](int lane) { return lane % width >= by ? lane - by : lane; });
}
inline unsigned __ballot_sync(unsigned mask, int predicate) { return shim::ballot(mask, predicate != 0); }
inline int __any_sync(unsigned mask, int predicate) { return shim::ballot(mask, predicate != 0) != 0; }
inline int __all_sync(unsigned mask, int predicate) { return shim::ballot(mask, predicate != 0) == mask; }
inline void __syncwarp(unsigned mask = 0xffffffffu) { shim::ballot(mask, true); }
inline void __threadfence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
inline void __trap() { shim::fail("__trap"); }
