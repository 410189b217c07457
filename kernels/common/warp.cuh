// Sums and maxima over a warp and over a block.
#pragma once

constexpr unsigned FULL_WARP = 0xffffffffu;
constexpr int WARP_SIZE = 32;

// The sum over the warp, in every lane.
__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
  for (int lane = WARP_SIZE / 2; lane > 0; lane /= 2) x += __shfl_xor_sync(FULL_WARP, x, lane);
  return x;
}

// The maximum over the warp, in every lane.
__device__ __forceinline__ float warp_max(float x) {
#pragma unroll
  for (int lane = WARP_SIZE / 2; lane > 0; lane /= 2) x = fmaxf(x, __shfl_xor_sync(FULL_WARP, x, lane));
  return x;
}

namespace block_detail {
struct Sum {
  static __device__ __forceinline__ float warp(float x) { return warp_sum(x); }
  static __device__ __forceinline__ float identity() { return 0.0f; }
};
struct Max {
  static __device__ __forceinline__ float warp(float x) { return warp_max(x); }
  static __device__ __forceinline__ float identity() { return -INFINITY; }
};

// `x` reduced over the block, in every thread. `partial` holds a value for each warp and may be used again
// right afterwards. The block is one-dimensional and of whole warps.
template <class Reduce>
__device__ __forceinline__ float block_reduce(float x, float* partial) {
  const int lane = threadIdx.x % WARP_SIZE;
  x = Reduce::warp(x);
  if (lane == 0) partial[threadIdx.x / WARP_SIZE] = x;
  __syncthreads();
  const int warps = blockDim.x / WARP_SIZE;
  x = Reduce::warp(lane < warps ? partial[lane] : Reduce::identity());
  __syncthreads();
  return x;
}
}  // namespace block_detail

// The sum over the block, in every thread; `partial`: 32 floats of shared memory.
__device__ __forceinline__ float block_sum(float x, float* partial) {
  return block_detail::block_reduce<block_detail::Sum>(x, partial);
}

// The maximum over the block, in every thread; `partial`: 32 floats of shared memory.
__device__ __forceinline__ float block_max(float x, float* partial) {
  return block_detail::block_reduce<block_detail::Max>(x, partial);
}
