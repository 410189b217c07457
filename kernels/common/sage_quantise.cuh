// What quantises for 8-bit attention. A token of a head has 16 threads, each with 8 of its channels. Maxima are taken over
// the bits of magnitudes, where NaN is above all numbers: it then reaches the scale, and through it the result.
#pragma once

#include "row.cuh"
#include "sage.cuh"

constexpr int SAGE_LANES = SAGE_DIM / GROUP;
constexpr float SMALLEST = 1e-12f;  // magnitude that a scale is made for
constexpr float INT8_MAX_VALUE = 127.0f;

__device__ __forceinline__ unsigned magnitude(float x) { return __float_as_uint(x) & 0x7fffffffu; }

__device__ __forceinline__ unsigned largest(const float (&x)[GROUP]) {
  unsigned most = 0;
#pragma unroll
  for (int i = 0; i < GROUP; i++) most = max(most, magnitude(x[i]));
  return most;
}

// The factor that brings values up to `most` (the bits of a magnitude) to `limit`, and its inverse.
__device__ __forceinline__ float2 scales(unsigned most, float limit) {
  const float largest = __uint_as_float(max(most, __float_as_uint(SMALLEST)));
  return make_float2(limit / largest, largest / limit);
}

// 8 int8 values of row `row` of a tile.
__device__ __forceinline__ void store_int8(uint8_t* tile, const float (&x)[GROUP], float factor, int row, int channel) {
  Pack<int8_t, GROUP> pack;
#pragma unroll
  for (int i = 0; i < GROUP; i++) pack.values[i] = int8_t(__float2int_rn(x[i] * factor));
  store_pack(reinterpret_cast<int8_t*>(tile + sage_piece(row, channel / 16) + channel % 16), pack);
}

// A query of a tile, by the 16 threads that have it, and its scale times `factor`. All threads of a warp take part;
// those that are not `inside` write nothing.
__device__ __forceinline__ void store_query(uint8_t* tile, float* scale, const float (&x)[GROUP], float factor, int row,
                                            int channel, bool inside) {
  unsigned most = largest(x);
#pragma unroll
  for (int lane = SAGE_LANES / 2; lane > 0; lane /= 2) most = max(most, __shfl_xor_sync(FULL_WARP, most, lane));
  if (!inside) return;
  const float2 to = scales(most, INT8_MAX_VALUE);
  store_int8(tile, x, to.x, row, channel);
  if (channel == 0) scale[row] = to.y * factor;
}
