// Attention on the tensor cores (mma.sync): bf16 or f16, head_dim 64, 128 or 384, sums and softmax f32 (Dao,
// FlashAttention-2, 2023).
//
// A block computes some queries of one head, a warp 16 of them, which it keeps as fragments in registers. Keys and values of
// KEYS tokens are in shared memory while the next ones are copied. A fragment of weights is the fragment of scores it came
// from: 2 x 4 sums of 16 keys are the 4 registers of a 16x16 operand.
//
// Results of 384 channels do not fit into registers beside the queries: a block has PART of them, and computes the scores
// for that part alone.
//
// A row is D (or PART) / 8 pieces of 16 bytes; piece p of row r lies at p ^ (r % 8), so that the eight rows that ldmatrix reads
// at once lie in different banks.
#include "common/attention.cuh"

constexpr int STAGES = 2;
constexpr int PIECE = 8;  // values of 16 bytes

__device__ __forceinline__ void mma(bf16, float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  mma_bf16(d, a, b);
}
__device__ __forceinline__ void mma(f16, float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  mma_f16(d, a, b);
}

// Where piece 8 `high` + `low` of row `row` lies, `low` below 8: what is known when compiling should be in `high`.
template <int D>
__device__ __forceinline__ int swizzled(int row, int low, int high) {
  return row * D + (low ^ (row % 8)) * PIECE + high * 8 * PIECE;
}

// Starts copying rows `first` to `first + ROWS` of [count, D] at distance `ld`; rows past the end are 0.
template <int THREADS, int ROWS, int D, class T>
__device__ __forceinline__ void copy_rows(T* to, const T* from, int64_t ld, int first, int count) {
  constexpr int PIECES = D / PIECE, LANES = PIECES < 16 ? PIECES : 16;  // threads of a row
  constexpr int AT_ONCE = THREADS / LANES;
  static_assert(PIECES % LANES == 0 && LANES % 8 == 0 && ROWS % AT_ONCE == 0, "");
  const int piece = threadIdx.x % LANES;
#pragma unroll
  for (int i = 0; i < ROWS / AT_ONCE; i++) {
    const int row = threadIdx.x / LANES + i * AT_ONCE;
    const bool inside = first + row < count;
    const T* values = from + (inside ? first + row : 0) * ld + piece * PIECE;
#pragma unroll
    for (int more = 0; more < PIECES; more += LANES) {
      cp_async16(to + swizzled<D>(row, piece % 8, piece / 8) + more * PIECE, values + more * PIECE, inside);
    }
  }
}

// What a warp keeps: 16 queries, and their results so far, for each lane those of the rows g and g + 8.
template <class T, int D, int PART, int KEYS>
struct Warp {
  uint32_t q[D / 16][4];
  float y[PART / 8][4] = {};
  SoftmaxRow rows[2];
  const int lane = threadIdx.x % WARP_SIZE;

  // Rows `first` to `first + 16` of [count, D] at distance `ld`, once and straight from memory; rows past the end are 0.
  __device__ __forceinline__ void load_queries(const T* from, int64_t ld, int first, int count) {
#pragma unroll
    for (int h = 0; h < 2; h++) {
      const int row = first + lane / 4 + 8 * h;
      const T* values = from + (row < count ? row : 0) * ld + lane % 4 * 2;
#pragma unroll
      for (int k = 0; k < D / 8; k++) {
        const Pack<T, 2> pair = load_pack<T, 2>(values + k * 8);
        memcpy(&q[k / 2][k % 2 * 2 + h], &pair, sizeof(pair));
        if (row >= count) q[k / 2][k % 2 * 2 + h] = 0;
      }
    }
  }

  // s = q kT.
  __device__ __forceinline__ void score(float (&s)[KEYS / 8][4], const T* keys) const {
#pragma unroll
    for (int n = 0; n < KEYS / 8; n++) s[n][0] = s[n][1] = s[n][2] = s[n][3] = 0.0f;
#pragma unroll
    for (int k = 0; k < D / 16; k++) {
#pragma unroll
      for (int n = 0; n < KEYS / 8; n += 2) {
        uint32_t r[4];
        ldmatrix_x4(r, keys + swizzled<D>(n * 8 + lane % 8 + lane / 16 * 8, k % 4 * 2 + lane / 8 % 2, k / 4));
        mma(T(), s[n], q[k], {r[0], r[1]});
        mma(T(), s[n + 1], q[k], {r[2], r[3]});
      }
    }
  }

  // Scores to weights, given the factor to base 2. `keys`: how many of the tile there are.
  __device__ __forceinline__ void softmax(float (&s)[KEYS / 8][4], float factor, int keys) {
    if (keys < KEYS) {
#pragma unroll
      for (int n = 0; n < KEYS / 8; n++) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
          if (n * 8 + lane % 4 * 2 + i % 2 >= keys) s[n][i] = -INFINITY;
        }
      }
    }
    float shrink[2];
#pragma unroll
    for (int h = 0; h < 2; h++) {
      const auto score = [&](int i) -> float& { return s[i / 2][2 * h + i % 2]; };
      shrink[h] = rows[h].template weigh<KEYS / 4>(score, factor);
    }
    if (__any_sync(FULL_WARP, shrink[0] != 1.0f || shrink[1] != 1.0f)) {
#pragma unroll
      for (int n = 0; n < PART / 8; n++) {
#pragma unroll
        for (int i = 0; i < 4; i++) y[n][i] *= shrink[i / 2];
      }
    }
  }

  // y += weights v.
  __device__ __forceinline__ void add_values(const float (&w)[KEYS / 8][4], const T* values) {
#pragma unroll
    for (int k = 0; k < KEYS / 16; k++) {
      const float(&low)[4] = w[2 * k], (&high)[4] = w[2 * k + 1];
      const uint32_t a[4] = {pack(T(), low[0], low[1]), pack(T(), low[2], low[3]), pack(T(), high[0], high[1]),
                             pack(T(), high[2], high[3])};
#pragma unroll
      for (int n = 0; n < PART / 8; n += 2) {
        uint32_t r[4];
        ldmatrix_x4_trans(r, values + swizzled<PART>(k * 16 + lane % 16, n % 8 + lane / 16, n / 8));
        mma(T(), y[n], a, {r[0], r[1]});
        mma(T(), y[n + 1], a, {r[2], r[3]});
      }
    }
  }

  // Writes rows `row` + 0 .. 15 of [l, heads, D] at one head and part; `ld`: heads * D.
  __device__ __forceinline__ void store(T* to, int64_t ld, int row, int l, bool add) const {
#pragma unroll
    for (int h = 0; h < 2; h++) {
      const int mine = row + lane / 4 + 8 * h;
      store_row<PART>(to + mine * ld, rows[h].total, mine < l, add, [&](int n, int i) { return y[n][2 * h + i]; });
    }
  }
};

template <class T, int D, int PART, int KEYS, int WARPS>
__device__ __forceinline__ void attention(const AttentionInputs<T>& in, T* y) {
  DYNAMIC_SHARED(shared);
  constexpr int THREADS = WARPS * WARP_SIZE, KEY_TILE = KEYS * D, VALUE_TILE = KEYS * PART;
  T* keys = reinterpret_cast<T*>(shared);
  T* values = keys + STAGES * KEY_TILE;
  const int first = (int(blockIdx.x) * WARPS + threadIdx.x / WARP_SIZE) * 16;  // this warp's queries
  const int64_t head = int64_t(blockIdx.y) * D, part = head + blockIdx.z * PART;
  const int tiles = (in.s + KEYS - 1) / KEYS;
  const auto copy = [&](int tile) {
    const int stage = tile % STAGES;
    copy_rows<THREADS, KEYS, D>(keys + stage * KEY_TILE, in.k + head, in.ldk, tile * KEYS, in.s);
    copy_rows<THREADS, KEYS, PART>(values + stage * VALUE_TILE, in.v + part, in.ldv, tile * KEYS, in.s);
    cp_async_commit();
  };

  copy(0);
  Warp<T, D, PART, KEYS> state;
  state.load_queries(in.q + head, in.ldq, first, in.l);
  for (int tile = 0; tile < tiles; tile++) {
    const int stage = tile % STAGES;
    cp_async_wait<0>();  // this tile, which was a whole one on its way
    __syncthreads();     // and nobody reads the last one any more
    if (tile + 1 < tiles) copy(tile + 1);
    float s[KEYS / 8][4];
    state.score(s, keys + stage * KEY_TILE);
    state.softmax(s, in.scale * LOG2_E, in.s - tile * KEYS);
    state.add_values(s, values + stage * VALUE_TILE);
  }
  state.store(y + part, int64_t(gridDim.y) * D, first, in.l, in.add);
}

#define ATTENTION_MMA(T, D, PART, KEYS, WARPS)                                                                    \
  KERNEL(attention_mma_##D##_##T, WARPS * 32, const T* q, const T* k, const T* v, T* y, int64_t ldq, int64_t ldk, \
         int64_t ldv, int l, int s, float scale, int add) {                                                       \
    attention<T, D, PART, KEYS, WARPS>({q, k, v, ldq, ldk, ldv, l, s, scale, add != 0}, y);                       \
  }
ATTENTION_MMA(bf16, 64, 64, 64, 8)
ATTENTION_MMA(f16, 64, 64, 64, 8)
ATTENTION_MMA(bf16, 128, 128, 64, 8)
ATTENTION_MMA(f16, 128, 128, 64, 8)
ATTENTION_MMA(bf16, 384, 128, 32, 4)
ATTENTION_MMA(f16, 384, 128, 32, 4)
