// Attention for any head_dim up to D_MAX and any float format, all arithmetic f32: y = softmax(scale q kT + bias) v
// for each head, with a running maximum and sum for each query (Dao et al., FlashAttention, 2022).
//
// A block computes WARPS * ROWS queries of one head, a warp ROWS of them. For the scores a lane is a key, for the result
// it is every 32nd channel. Keys and then values of KEYS tokens pass through the same shared memory.
#include "common/attention.cuh"

constexpr int KEYS = WARP_SIZE;
constexpr int WARPS = 8;

template <class T, int D_MAX>
struct General {
  static constexpr int ROWS = D_MAX > 128 ? 3 : 4;  // what fits into 99 KiB of shared memory
  static constexpr int QUERIES = WARPS * ROWS;
  static constexpr int COLUMNS = D_MAX / WARP_SIZE;

  const int d, padded, ld;  // channels; those rounded up to whole float4; between rows of `tile`
  float* const queries;     // [QUERIES, padded]
  float* const tile;        // [KEYS, ld]
  float* const weights;     // [ROWS, KEYS], of this warp
  const int warp, lane;
  float y[ROWS][COLUMNS] = {};
  float most[ROWS], total[ROWS];

  __device__ __forceinline__ General(float* shared, float* weights, int d)
      : d(d),
        padded((d + 3) / 4 * 4),
        ld((padded / 4 | 1) * 4),  // an odd number of float4: eight rows lie in different banks
        queries(shared),
        tile(shared + QUERIES * padded),
        weights(weights),
        warp(threadIdx.x / WARP_SIZE),
        lane(threadIdx.x % WARP_SIZE) {
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
      most[r] = -INFINITY;
      total[r] = 0.0f;
    }
  }

  // Rows `first` to `first + rows` of [count, ...] as f32 times `factor`; rows and channels past the end are 0.
  __device__ __forceinline__ void load(float* to, int ld_to, const T* from, int64_t ld_from, int first, int rows,
                                       int count, float factor) const {
    for (int row = warp; row < rows; row += WARPS) {
      const bool inside = first + row < count;
      const T* values = from + int64_t(inside ? first + row : 0) * ld_from;
      for (int c = lane; c < padded; c += WARP_SIZE) {
        to[row * ld_to + c] = inside && c < d ? to_float(values[c]) * factor : 0.0f;
      }
    }
  }

  // Scores of this lane's key, to base 2.
  __device__ __forceinline__ void score(float (&s)[ROWS]) const {
#pragma unroll
    for (int r = 0; r < ROWS; r++) s[r] = 0.0f;
    for (int c = 0; c < padded; c += 4) {
      const Pack<float> k = load_pack(tile + lane * ld + c);
#pragma unroll
      for (int r = 0; r < ROWS; r++) {
        const Pack<float> q = load_pack(queries + (warp * ROWS + r) * padded + c);
#pragma unroll
        for (int i = 0; i < 4; i++) s[r] += q.values[i] * k.values[i];
      }
    }
  }

  // Scores to weights; what was summed so far shrinks where the maximum rises.
  __device__ __forceinline__ void softmax(const float (&s)[ROWS]) {
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
      const float rise = fmaxf(most[r], warp_max(s[r]));
      // Keys masked with -infinity only: weights are 0 until another key comes.
      const float base = rise == -INFINITY ? 0.0f : rise;
      const float shrink = exp2f(most[r] - base);
      const float weight = exp2f(s[r] - base);
      total[r] = total[r] * shrink + weight;  // of this lane's keys
      most[r] = rise;
      weights[r * KEYS + lane] = weight;
#pragma unroll
      for (int c = 0; c < COLUMNS; c++) y[r][c] *= shrink;
    }
    __syncwarp();
  }

  __device__ __forceinline__ void add_values() {
    for (int key = 0; key < KEYS; key += 4) {
      Pack<float> w[ROWS];
#pragma unroll
      for (int r = 0; r < ROWS; r++) w[r] = load_pack(weights + r * KEYS + key);
#pragma unroll
      for (int c = 0; c < COLUMNS; c++) {
        const int column = c * WARP_SIZE + lane;
        if (column >= d) continue;
#pragma unroll
        for (int i = 0; i < 4; i++) {
          const float v = tile[(key + i) * ld + column];
#pragma unroll
          for (int r = 0; r < ROWS; r++) y[r][c] += w[r].values[i] * v;
        }
      }
    }
  }
};

template <class T, int D_MAX>
__device__ __forceinline__ void attention(const AttentionInputs<T>& in, const float* __restrict__ bias, T* y, int d) {
  DYNAMIC_SHARED(shared);
  using Block = General<T, D_MAX>;
  constexpr int ROWS = Block::ROWS, QUERIES = Block::QUERIES;
  SHARED(float, weights, [QUERIES * KEYS]);
  const int head = blockIdx.y, heads = gridDim.y, first = blockIdx.x * QUERIES;
  Block block(reinterpret_cast<float*>(shared), weights + threadIdx.x / WARP_SIZE * ROWS * KEYS, d);
  const int64_t channel = int64_t(head) * d;
  const int row = first + block.warp * ROWS;  // this warp's first query

  block.load(block.queries, block.padded, in.q + channel, in.ldq, first, QUERIES, in.l, in.scale * LOG2_E);
  for (int key = 0; key < in.s; key += KEYS) {
    block.load(block.tile, block.ld, in.k + channel, in.ldk, key, KEYS, in.s, 1.0f);
    __syncthreads();
    float s[ROWS];
    block.score(s);
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
      const int mine = key + block.lane;
      if (mine >= in.s) {
        s[r] = -INFINITY;
      } else if (bias && row + r < in.l) {
        s[r] += bias[(int64_t(head) * in.l + row + r) * in.s + mine] * LOG2_E;
      }
    }
    block.softmax(s);
    __syncthreads();
    block.load(block.tile, block.ld, in.v + channel, in.ldv, key, KEYS, in.s, 1.0f);
    __syncthreads();
    block.add_values();
    __syncthreads();
  }

#pragma unroll
  for (int r = 0; r < ROWS; r++) {
    const float total = warp_sum(block.total[r]);
    if (row + r >= in.l) continue;
    T* to = y + (int64_t(row + r) * heads + head) * d;
#pragma unroll
    for (int c = 0; c < D_MAX / WARP_SIZE; c++) {
      const int column = c * WARP_SIZE + block.lane;
      if (column >= d) continue;
      const float before = in.add ? to_float(to[column]) : 0.0f;
      to[column] = from_float<T>(before + block.y[r][c] / total);
    }
  }
}

#define ATTENTION(T, D_MAX)                                                                                \
  KERNEL(attention_##D_MAX##_##T, WARPS * 32, const T* q, const T* k, const T* v, const float* bias, T* y, \
         int64_t ldq, int64_t ldk, int64_t ldv, int l, int s, int d, float scale, int add) {               \
    attention<T, D_MAX>({q, k, v, ldq, ldk, ldv, l, s, scale, add != 0}, bias, y, d);                      \
  }
ATTENTION(f32, 64)
ATTENTION(bf16, 64)
ATTENTION(f16, 64)
ATTENTION(f32, 128)
ATTENTION(bf16, 128)
ATTENTION(f16, 128)
ATTENTION(f32, 384)
ATTENTION(bf16, 384)
ATTENTION(f16, 384)
