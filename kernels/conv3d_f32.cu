// Causal 3-D convolution over channels-last video in f32: the exact path of small models and of comparisons.
#include "common/conv3d.cuh"

constexpr int SIDE = 64;    // voxels and outputs of a block
constexpr int DEPTH = 16;   // values of the sum at a time
constexpr int SHARE = 4;    // voxels and outputs of a thread
constexpr int THREADS = 256;
constexpr int COPIED = SIDE * DEPTH / THREADS;  // values of a slice that a thread copies

// A block computes SIDE x SIDE results, a thread SHARE x SHARE of them, SIDE / SHARE apart.
KERNEL(conv3d_f32, THREADS, CONV3D_PARAMETERS(float)) {
  const auto conv = CONV3D_ARGUMENTS(float);
  SHARED(float, a, [DEPTH][SIDE + 1]);
  SHARED(float, b, [DEPTH][SIDE + 1]);
  constexpr int STEP = SIDE / SHARE;
  const int columns = (outputs + SIDE - 1) / SIDE;
  const int64_t first_voxel = int64_t(blockIdx.x / columns) * SIDE;
  const int first_output = int(blockIdx.x % columns) * SIDE;
  const int copied_k = threadIdx.x % DEPTH, copied_row = threadIdx.x / DEPTH;
  const int row = threadIdx.x / STEP, column = threadIdx.x % STEP;

  Voxel voxel[COPIED];
  for (int i = 0; i < COPIED; i++) voxel[i] = voxel_at(conv, first_voxel + copied_row + i * (SIDE / COPIED));
  Tap tap = Tap::at(conv, copied_k);
  float sums[SHARE][SHARE] = {};
  for (int k = 0; k < depth; k += DEPTH) {
#pragma unroll
    for (int i = 0; i < COPIED; i++) {
      const int at = copied_row + i * (SIDE / COPIED), output = first_output + at;
      const float* from = value_at(conv, voxel[i], tap);
      a[copied_k][at] = from ? *from : 0.0f;
      const bool inside = output < outputs && k + copied_k < depth;
      b[copied_k][at] = inside ? weight[int64_t(output) * depth + k + copied_k] : 0.0f;
    }
    tap.advance(conv, DEPTH);
    __syncthreads();
#pragma unroll
    for (int j = 0; j < DEPTH; j++) {
      float left[SHARE], right[SHARE];
#pragma unroll
      for (int i = 0; i < SHARE; i++) {
        left[i] = a[j][row + i * STEP];
        right[i] = b[j][column + i * STEP];
      }
#pragma unroll
      for (int m = 0; m < SHARE; m++) {
#pragma unroll
        for (int n = 0; n < SHARE; n++) sums[m][n] += left[m] * right[n];
      }
    }
    __syncthreads();
  }

#pragma unroll
  for (int m = 0; m < SHARE; m++) {
    const int64_t at = first_voxel + row + m * STEP;
    if (at >= conv.voxels()) continue;
#pragma unroll
    for (int n = 0; n < SHARE; n++) {
      const int output = first_output + column + n * STEP;
      if (output >= outputs) continue;
      const float sum = sums[m][n] + bias[output];
      y[at * outputs + output] = residual ? sum + residual[at * outputs + output] : sum;
    }
  }
}
