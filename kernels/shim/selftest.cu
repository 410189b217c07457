// Kernels that test the emulation itself: instructions held against their definition, and mistakes it must find.
// Not part of any GPU image.
#include "../common/ptx.cuh"

// ---- formats and instructions ------------------------------------------------------------------------------

// Every value to each format and back.
KERNEL(selftest_formats, 256, const float* x, uint16_t* bf16_codes, uint16_t* f16_codes, uint8_t* e4m3_codes,
       float* back, int count) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= count) return;
  const bf16 b = from_float<bf16>(x[i]);
  const f16 h = from_float<f16>(x[i]);
  const e4m3 e = from_float<e4m3>(x[i]);
  bf16_codes[i] = b.bits;
  f16_codes[i] = h.bits;
  e4m3_codes[i] = e.bits;
  back[3 * i] = to_float(b);
  back[3 * i + 1] = to_float(h);
  back[3 * i + 2] = to_float(e);
}

// One warp: D = A B, with A row-major 16 x DEPTH and B column-major (8 rows of DEPTH), in the way kernels do it:
// cp.async to shared memory, ldmatrix, mma. 16-bit rows have 16 values, 8-bit rows 32: 32 bytes either way.
template <class Multiply>
__device__ __forceinline__ void multiply_tiles(const uint8_t* a, const uint8_t* b, const Multiply& multiply) {
  SHARED(uint8_t, tile, [24][32]);
  const int lane = threadIdx.x;
  for (int i = lane; i < 24 * 2; i += 32) {
    const int row = i / 2, half = 16 * (i % 2);
    cp_async16(&tile[row][half], row < 16 ? a + row * 32 + half : b + (row - 16) * 32 + half);
  }
  cp_async_commit();
  cp_async_wait<0>();
  __syncthreads();
  uint32_t fa[4], fb[2];
  ldmatrix_x4(fa, &tile[lane % 16][16 * (lane / 16)]);
  ldmatrix_x2(fb, &tile[16 + lane % 8][16 * (lane / 8 % 2)]);
  multiply(fa, fb);
}

// Row and column of d[i] in this lane.
__device__ __forceinline__ int place_of(int i) {
  const int lane = threadIdx.x;
  return (lane / 4 + 8 * (i / 2)) * 8 + 2 * (lane % 4) + i % 2;
}

#define SELFTEST_MMA(name, Sum, multiply)                                                  \
  KERNEL(selftest_##name, 32, const uint8_t* a, const uint8_t* b, Sum* d) {                \
    Sum sums[4];                                                                           \
    for (int i = 0; i < 4; i++) sums[i] = d[place_of(i)];                                  \
    multiply_tiles(a, b, [&](const uint32_t(&fa)[4], const uint32_t(&fb)[2]) {             \
      multiply(sums, fa, fb);                                                              \
    });                                                                                    \
    for (int i = 0; i < 4; i++) d[place_of(i)] = sums[i];                                  \
  }
SELFTEST_MMA(mma_bf16, float, mma_bf16)
SELFTEST_MMA(mma_f16, float, mma_f16)
SELFTEST_MMA(mma_s8, int, mma_s8)

#define SELFTEST_MMA_F16_SUMS(name, multiply)                                              \
  KERNEL(selftest_##name, 32, const uint8_t* a, const uint8_t* b, uint16_t* d) {           \
    uint32_t sums[2];                                                                      \
    for (int i = 0; i < 2; i++) {                                                          \
      sums[i] = d[place_of(2 * i)] | uint32_t(d[place_of(2 * i + 1)]) << 16;               \
    }                                                                                      \
    multiply_tiles(a, b, [&](const uint32_t(&fa)[4], const uint32_t(&fb)[2]) {             \
      multiply(sums, fa, fb);                                                              \
    });                                                                                    \
    for (int i = 0; i < 4; i++) d[place_of(i)] = uint16_t(sums[i / 2] >> 16 * (i % 2));    \
  }
SELFTEST_MMA_F16_SUMS(mma_f16_f16, mma_f16_f16)
SELFTEST_MMA_F16_SUMS(mma_e4m3_f16, mma_e4m3_f16)

// 32 rows of 8 16-bit values: registers of the four variants, 12 for each lane.
KERNEL(selftest_ldmatrix, 32, const uint16_t* x, uint32_t* y) {
  SHARED(uint16_t, tile, [32][8]);
  const int lane = threadIdx.x;
  for (int i = 0; i < 8; i++) tile[lane][i] = x[lane * 8 + i];
  __syncthreads();
  uint32_t plain[4], turned[4], two[2], two_turned[2];
  ldmatrix_x4(plain, tile[lane]);
  ldmatrix_x4_trans(turned, tile[lane]);
  ldmatrix_x2(two, tile[lane % 16]);
  ldmatrix_x2_trans(two_turned, tile[lane % 16]);
  for (int i = 0; i < 4; i++) {
    y[lane * 12 + i] = plain[i];
    y[lane * 12 + 4 + i] = turned[i];
  }
  for (int i = 0; i < 2; i++) {
    y[lane * 12 + 8 + i] = two[i];
    y[lane * 12 + 10 + i] = two_turned[i];
  }
}

// Two groups in flight: y[0..4] read before the first was waited for, y[4..8] after it, y[8..12] of the second
// group at the same time, y[12..16] at the end, y[16..20] zeros in place of a copy.
KERNEL(selftest_copy, 1, const float* x, float* y) {
  SHARED(float, tile, [12]);
  cp_async16(tile, x);
  cp_async_commit();
  cp_async16(tile + 4, x + 4);
  cp_async16(tile + 8, x, false);
  cp_async_commit();
  for (int i = 0; i < 4; i++) y[i] = tile[i];
  cp_async_wait<1>();
  for (int i = 0; i < 8; i++) y[4 + i] = tile[i];
  cp_async_wait<0>();
  for (int i = 0; i < 8; i++) y[12 + i] = tile[4 + i];
}

// Sums over blocks of several warps, and the lanes that a shuffle, a vote and an atomic see.
KERNEL(selftest_collectives, 128, float* sums, unsigned* votes, int* total, int* lanes) {
  SHARED(float, partial, [WARP_SIZE]);
  const int thread = threadIdx.x, lane = thread % 32;
  sums[2 * thread] = block_sum(float(thread), partial);
  sums[2 * thread + 1] = block_max(float(thread * 7 % 31), partial);
  votes[thread] = __ballot_sync(FULL_WARP, lane % 3 == 0);
  // Half of a warp at a time.
  if (lane < 16) {
    lanes[4 * thread] = __shfl_sync(0x0000ffff, lane, 5);
  } else {
    lanes[4 * thread] = __shfl_sync(0xffff0000, lane, 20);
  }
  lanes[4 * thread + 1] = __shfl_up_sync(FULL_WARP, lane, 3, 16);
  lanes[4 * thread + 2] = __shfl_down_sync(FULL_WARP, lane, 3, 16);
  lanes[4 * thread + 3] = __shfl_xor_sync(FULL_WARP, lane, 9);
  atomicAdd(total, thread);
}

// ---- mistakes -----------------------------------------------------------------------------------------------

KERNEL(selftest_diverged_barrier, 64, float* x) {
  if (threadIdx.x < 32) {
    x[threadIdx.x] = 1.0f;
    __syncthreads();
  } else {
    __syncthreads();
  }
}
KERNEL(selftest_left_barrier, 64, float* x) {
  if (threadIdx.x == 5) return;
  __syncthreads();
  x[threadIdx.x] = 1.0f;
}
KERNEL(selftest_missing_lane, 32, float* x) {
  if (threadIdx.x != 3) x[threadIdx.x] = warp_sum(1.0f);
}
KERNEL(selftest_past_fixed, 32, float* x, int at) {
  SHARED(float, tile, [8]);
  float* p = tile;
  if (threadIdx.x == 0) p[at] = 1.0f;
  __syncthreads();
  x[threadIdx.x] = tile[0];
}
KERNEL(selftest_past_dynamic, 32, float* x, int at) {
  DYNAMIC_SHARED(tile);
  if (threadIdx.x == 0) tile[at] = 1;
  __syncthreads();
  x[threadIdx.x] = tile[0];
}
KERNEL(selftest_copy_past, 32, const float* x) {
  DYNAMIC_SHARED(tile);
  cp_async16(tile + 16 * threadIdx.x, x);
}
KERNEL(selftest_copy_unaligned, 32, const float* x) {
  DYNAMIC_SHARED(tile);
  cp_async16(tile + 8, x);
}
// Reads what the thread behind it has written, without a barrier.
KERNEL(selftest_race, 64, float* x) {
  SHARED(float, tile, [64]);
  tile[threadIdx.x] = float(threadIdx.x);
  x[blockIdx.x * 64 + threadIdx.x] = tile[(threadIdx.x + 63) % 64];
}
