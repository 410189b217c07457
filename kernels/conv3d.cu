// Causal 3-D convolution over channels-last video on the tensor cores (mma.sync), bf16 or f16 with f32 sums.
//
// A block computes VOXELS x OUTPUTS results; its warps share them as a grid of WARPS_M x WARPS_N. The sum runs over
// slices of DEPTH values, of which STAGES - 1 are on their way to shared memory while one is multiplied. Neighbouring
// columns of the kernel read almost the same voxels, so these copies go through the L1 cache.
//
// A slice of a row is 4 pieces of 16 bytes; piece p of row r lies at p ^ (r / 2 % 4), so that the eight rows that
// ldmatrix reads at once lie in different banks.
#include "common/conv3d.cuh"
#include "common/ptx.cuh"

constexpr int DEPTH = 32;
constexpr int STAGES = 3;
constexpr int PIECE = 8;  // values of 16 bytes
constexpr int PIECES = DEPTH / PIECE;
constexpr int THREADS = 128;

__device__ __forceinline__ void mma(bf16, float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  mma_bf16(d, a, b);
}
__device__ __forceinline__ void mma(f16, float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  mma_f16(d, a, b);
}

// Where piece `piece` of row `row` of a slice lies, in values.
__device__ __forceinline__ int swizzled(int row, int piece) {
  return row * DEPTH + (piece ^ (row / 2 % PIECES)) * PIECE;
}

// WARPS_M x WARPS_N warps, each with MT x NT fragments of 16 x 8 results. ALIGNED: the input channels are whole
// pieces; otherwise values are copied one by one.
template <class T, int WARPS_M, int WARPS_N, int MT, int NT, bool ALIGNED>
struct Tile {
  static constexpr int VOXELS = WARPS_M * MT * 16;
  static constexpr int OUTPUTS = WARPS_N * NT * 8;
  static constexpr int ROWS_A_STEP = THREADS / PIECES;  // rows that the block copies at once
  static constexpr int A_ROWS = VOXELS / ROWS_A_STEP;   // rows of a that a thread copies
  static constexpr int B_ROWS = (OUTPUTS + ROWS_A_STEP - 1) / ROWS_A_STEP;
  static constexpr int STAGE = (VOXELS + OUTPUTS) * DEPTH;
  static_assert(WARPS_M * WARPS_N * 32 == THREADS && NT % 2 == 0, "");

  const Conv3d<T>& conv;
  T* shared;
  int64_t first_voxel;
  int first_output;
  int copied_row, copied_piece;  // this thread's part of the copies
  Voxel voxel[A_ROWS];
  Tap tap;                // of the next slice to copy
  int k;                  // its first value
  const T* from[A_ROWS];  // ALIGNED: where its piece of each row lies, unless that is
  unsigned zeros;         // zeros: bit i for row i
  float sums[MT][NT][4];

  __device__ __forceinline__ Tile(const Conv3d<T>& conv, T* shared) : conv(conv), shared(shared) {
    const int columns = (conv.outputs + OUTPUTS - 1) / OUTPUTS;
    first_voxel = int64_t(blockIdx.x / columns) * VOXELS;
    first_output = int(blockIdx.x % columns) * OUTPUTS;
    copied_row = threadIdx.x / PIECES;
    copied_piece = threadIdx.x % PIECES;
#pragma unroll
    for (int i = 0; i < A_ROWS; i++) voxel[i] = voxel_at(conv, first_voxel + copied_row + i * ROWS_A_STEP);
    k = copied_piece * PIECE;
    tap = Tap::at(conv, k);
    locate();
#pragma unroll
    for (int m = 0; m < MT; m++) {
#pragma unroll
      for (int n = 0; n < NT; n++) {
#pragma unroll
        for (int i = 0; i < 4; i++) sums[m][n][i] = 0.0f;
      }
    }
  }

  // Starts to copy the next slice to `stage` and goes on to the one after it.
  __device__ __forceinline__ void copy(int stage) {
    T* a = shared + stage * STAGE;
    T* b = a + VOXELS * DEPTH;
    if constexpr (ALIGNED) {
#pragma unroll
      for (int i = 0; i < A_ROWS; i++) {
        T* to = a + swizzled(copied_row + i * ROWS_A_STEP, copied_piece);
        cp_async16_cached(to, from[i], !(zeros >> i & 1));
      }
    } else {
#pragma unroll
      for (int i = 0; i < A_ROWS; i++) gather(a + swizzled(copied_row + i * ROWS_A_STEP, copied_piece), voxel[i]);
    }
#pragma unroll
    for (int i = 0; i < B_ROWS; i++) {
      const int row = copied_row + i * ROWS_A_STEP, output = first_output + row;
      if (OUTPUTS % ROWS_A_STEP != 0 && row >= OUTPUTS) break;
      const bool inside = output < conv.outputs && k < conv.depth;
      const T* from = conv.weight + (inside ? int64_t(output) * conv.depth + k : 0);
      cp_async16(b + swizzled(row, copied_piece), from, inside);
    }
    k += DEPTH;
    if (ALIGNED && tap.channel + DEPTH < conv.inputs) {
      tap.channel += DEPTH;
#pragma unroll
      for (int i = 0; i < A_ROWS; i++) from[i] += DEPTH;
    } else {
      tap.advance(conv, DEPTH);
      locate();
    }
  }

  // Finds the pieces of a new tap.
  __device__ __forceinline__ void locate() {
    if constexpr (ALIGNED) {
      zeros = 0;
#pragma unroll
      for (int i = 0; i < A_ROWS; i++) {
        const T* at = value_at(conv, voxel[i], tap);
        if (!at) zeros |= 1u << i;
        from[i] = at ? at : conv.x;  // an address that could be read
      }
    }
  }

  // One piece whose values belong to several taps.
  __device__ __forceinline__ void gather(T* to, const Voxel& voxel) const {
    Tap at = tap;
#pragma unroll 1
    for (int i = 0; i < PIECE; i++) {
      const T* from = value_at(conv, voxel, at);
      to[i] = from ? *from : from_float<T>(0.0f);
      at.advance(conv, 1);
    }
  }

  __device__ __forceinline__ void multiply(int stage) {
    const T* a = shared + stage * STAGE;
    const T* b = a + VOXELS * DEPTH;
    const int lane = threadIdx.x % WARP_SIZE, warp = threadIdx.x / WARP_SIZE;
    const int row_a = warp / WARPS_N * MT * 16 + lane % 16;
    const int row_b = warp % WARPS_N * NT * 8 + lane / 16 * 8 + lane % 8;
#pragma unroll
    for (int step = 0; step < DEPTH / 16; step++) {
      uint32_t left[MT][4], right[NT][2];
#pragma unroll
      for (int m = 0; m < MT; m++) ldmatrix_x4(left[m], a + swizzled(row_a + m * 16, 2 * step + lane / 16));
#pragma unroll
      for (int n = 0; n < NT; n += 2) {
        uint32_t pair[4];
        ldmatrix_x4(pair, b + swizzled(row_b + n * 8, 2 * step + lane / 8 % 2));
        right[n][0] = pair[0];
        right[n][1] = pair[1];
        right[n + 1][0] = pair[2];
        right[n + 1][1] = pair[3];
      }
#pragma unroll
      for (int m = 0; m < MT; m++) {
#pragma unroll
        for (int n = 0; n < NT; n++) mma(T{}, sums[m][n], left[m], right[n]);
      }
    }
  }

  // Adds bias and residual and writes what lies inside of the result.
  __device__ __forceinline__ void finish() {
    const int lane = threadIdx.x % WARP_SIZE, warp = threadIdx.x / WARP_SIZE;
    const int64_t voxels = conv.voxels();
    const bool pairs = packs_fit<T, 2>(conv.y, conv.outputs) && packs_fit<T, 2>(conv.residual, conv.outputs);
#pragma unroll
    for (int n = 0; n < NT; n++) {
      const int output = first_output + (warp % WARPS_N * NT + n) * 8 + lane % 4 * 2;
      if (output >= conv.outputs) continue;
      const bool both = output + 1 < conv.outputs;
      const float bias[2] = {conv.bias[output], both ? conv.bias[output + 1] : 0.0f};
#pragma unroll
      for (int m = 0; m < MT; m++) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
          const int64_t row = first_voxel + (warp / WARPS_N * MT + m) * 16 + half * 8 + lane / 4;
          if (row >= voxels) continue;
          const int64_t at = row * conv.outputs + output;
          float low = sums[m][n][2 * half] + bias[0], high = sums[m][n][2 * half + 1] + bias[1];
          if (pairs) {
            if (conv.residual) {
              const Pack<T, 2> added = load_pack<T, 2>(conv.residual + at);
              low += to_float(added.values[0]);
              high += to_float(added.values[1]);
            }
            Pack<T, 2> pack;
            pack.values[0] = from_float<T>(low);
            pack.values[1] = from_float<T>(high);
            store_pack(conv.y + at, pack);
          } else {
            conv.y[at] = from_float<T>(conv.residual ? low + to_float(conv.residual[at]) : low);
            if (both) conv.y[at + 1] = from_float<T>(conv.residual ? high + to_float(conv.residual[at + 1]) : high);
          }
        }
      }
    }
  }

  __device__ __forceinline__ void run() {
    const int slices = (conv.depth + DEPTH - 1) / DEPTH;
#pragma unroll
    for (int stage = 0; stage < STAGES - 1; stage++) {
      if (stage < slices) copy(stage);
      cp_async_commit();
    }
    for (int slice = 0; slice < slices; slice++) {
      cp_async_wait<STAGES - 2>();
      __syncthreads();  // the slice is here, and all are done with the stage that is filled next
      if (slice + STAGES - 1 < slices) copy((slice + STAGES - 1) % STAGES);
      cp_async_commit();
      multiply(slice % STAGES);
    }
    cp_async_wait<0>();
    finish();
  }
};

template <class T, int WARPS_M, int WARPS_N, int MT, int NT, bool ALIGNED>
__device__ __forceinline__ void conv3d(const Conv3d<T>& conv) {
  using Block = Tile<T, WARPS_M, WARPS_N, MT, NT, ALIGNED>;
  SHARED(T, shared, [STAGES * Block::STAGE]);
  Block(conv, shared).run();
}

// `wide`: 128 voxels x 96 outputs a block; `narrow`: 128 x 16. `ragged`: any number of input channels; otherwise
// whole pieces of 8, and x, history and weight aligned to 16 bytes.
#define CONV3D(T)                                                                     \
  KERNEL_OCCUPANCY(conv3d_wide_##T, THREADS, 3, CONV3D_PARAMETERS(T)) {               \
    conv3d<T, 2, 2, 4, 6, true>(CONV3D_ARGUMENTS(T));                                 \
  }                                                                                   \
  KERNEL_OCCUPANCY(conv3d_wide_ragged_##T, THREADS, 2, CONV3D_PARAMETERS(T)) {        \
    conv3d<T, 2, 2, 4, 6, false>(CONV3D_ARGUMENTS(T));                                \
  }                                                                                   \
  KERNEL_OCCUPANCY(conv3d_narrow_##T, THREADS, 4, CONV3D_PARAMETERS(T)) {             \
    conv3d<T, 4, 1, 2, 2, true>(CONV3D_ARGUMENTS(T));                                 \
  }                                                                                   \
  KERNEL_OCCUPANCY(conv3d_narrow_ragged_##T, THREADS, 2, CONV3D_PARAMETERS(T)) {      \
    conv3d<T, 4, 1, 2, 2, false>(CONV3D_ARGUMENTS(T));                                \
  }
CONV3D(bf16)
CONV3D(f16)
