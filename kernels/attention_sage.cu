// 8-bit attention on the tensor cores (mma.sync), head_dim 128: scores from int8 q and k, results from weights and v in
// e4m3, or in f16 where mma.sync has no e4m3 of its own (all but compute capability 8.9 and 12). Layouts and the
// arithmetic of the scores are in common/sage.cuh, quantising in sage_quantise.cu.
//
// A block computes 128 queries of one head, a warp 16 of them, which it keeps as fragments in registers. Tiles of 128
// keys are in shared memory while the next ones are copied; they are taken in halves.
//
// The sums of half a tile are of their own, in f16, and added to the result as f32 (Zhang et al., SageAttention2++, arXiv
// 2505.21136): GeForce cards make products with f16 sums at twice the rate of f32 ones. The largest weight and the largest
// value are such that HALF of their products stay below f16's limit.
#include "common/ptx.cuh"
#include "common/sage.cuh"

constexpr int WARPS = 8;
constexpr int THREADS = WARPS * WARP_SIZE;
constexpr int QUERIES = WARPS * 16;
constexpr int HALF = SAGE_TOKENS / 2;
constexpr int STAGES = 2;
static_assert(QUERIES == SAGE_TOKENS, "a block takes a tile of q");

// v in e4m3.
struct Fp8Values {
  static constexpr float TOP = LOG2_E4M3_MAX;
  static constexpr int TILE = SAGE_TILE;  // bytes
  static constexpr int STEPS = HALF / 32;
  static_assert(HALF * E4M3_MAX * SAGE_E4M3_F16_VALUE <= F16_MAX, "sums are f16");

  // Weights of 32 keys as an operand; `weights` are the bits of floats.
  static __device__ __forceinline__ void pack(uint32_t (&a)[4], const int (&weights)[HALF / 8][4], int step) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const int(&low)[4] = weights[4 * step + i / 2 * 2], (&high)[4] = weights[4 * step + i / 2 * 2 + 1];
      const int h = i % 2 * 2;
      a[i] = pack_e4m3(__int_as_float(low[h]), __int_as_float(low[h + 1]), __int_as_float(high[h]),
                       __int_as_float(high[h + 1]));
    }
  }
  // Channels 8n .. 8n + 15 of the keys of a step.
  static __device__ __forceinline__ void load(uint32_t (&r)[4], const uint8_t* values, int half, int step, int n) {
    const int lane = threadIdx.x % WARP_SIZE;
    ldmatrix_x4(r, values + sage_piece(n * 8 + lane % 8 + lane / 16 * 8, (half * STEPS + step) * 2 + lane / 8 % 2));
  }
  static __device__ __forceinline__ void mma(uint32_t (&d)[2], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    mma_e4m3_f16(d, a, b);
  }
};

// v in f16.
struct F16Values {
  static constexpr float TOP = SAGE_F16_TOP;
  static constexpr int TILE = SAGE_F16_TILE;
  static constexpr int STEPS = HALF / 16;
  static_assert(HALF * SAGE_F16_WEIGHT * SAGE_F16_VALUE <= F16_MAX, "sums are f16");

  static __device__ __forceinline__ void pack(uint32_t (&a)[4], const int (&weights)[HALF / 8][4], int step) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const int(&w)[4] = weights[2 * step + i / 2];
      a[i] = pack_f16(__int_as_float(w[i % 2 * 2]), __int_as_float(w[i % 2 * 2 + 1]));
    }
  }
  static __device__ __forceinline__ void load(uint32_t (&r)[4], const uint8_t* values, int half, int step, int n) {
    const int lane = threadIdx.x % WARP_SIZE;
    ldmatrix_x4_trans(r, values + sage_f16_piece(half * HALF + step * 16 + lane % 16, n + lane / 16));
  }
  static __device__ __forceinline__ void mma(uint32_t (&d)[2], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    mma_f16_f16(d, a, b);
  }
};

// Starts copying a tile of BYTES as it is.
template <int BYTES>
__device__ __forceinline__ void copy_bytes(uint8_t* to, const uint8_t* from) {
#pragma unroll
  for (int i = 0; i < BYTES / 16 / THREADS; i++) {
    const int at = (threadIdx.x + i * THREADS) * 16;
    cp_async16(to + at, from + at);
  }
}

// What a warp keeps: 16 queries, their results so far, and the state of the rows g and g + 8 of each lane.
template <class Values>
struct Warp {
  static constexpr int KSTEPS = SAGE_DIM / 32;
  uint32_t q[KSTEPS][4];
  float q_scale[2];
  float y[SAGE_DIM / 8][4] = {};
  SageRow rows[2];
  const int lane = threadIdx.x % WARP_SIZE;

  // `first`: this warp's first row of the tile.
  __device__ __forceinline__ void load_queries(const uint8_t* tile, const float* scales, int first) {
#pragma unroll
    for (int k = 0; k < KSTEPS; k++) {
#pragma unroll
      for (int i = 0; i < 4; i++) {
        const int row = first + lane / 4 + i % 2 * 8;
        const uint8_t* from = tile + sage_piece(row, 2 * k + i / 2) + lane % 4 * 4;
        q[k][i] = *reinterpret_cast<const uint32_t*>(from);
      }
    }
    q_scale[0] = scales[first + lane / 4];
    q_scale[1] = scales[first + lane / 4 + 8];
  }

  // Sums of q kT over half a tile; keys from `keys` on are none.
  __device__ __forceinline__ void score(int (&s)[HALF / 8][4], const uint8_t* tile, int half, int keys) const {
#pragma unroll
    for (int n = 0; n < HALF / 8; n++) s[n][0] = s[n][1] = s[n][2] = s[n][3] = 0;
#pragma unroll
    for (int k = 0; k < KSTEPS; k++) {
#pragma unroll
      for (int n = 0; n < HALF / 8; n += 2) {
        uint32_t r[4];
        ldmatrix_x4(r, tile + sage_piece(half * HALF + n * 8 + lane % 8 + lane / 16 * 8, 2 * k + lane / 8 % 2));
        mma_s8(s[n], q[k], {r[0], r[1]});
        mma_s8(s[n + 1], q[k], {r[2], r[3]});
      }
    }
    if (keys >= HALF) return;
#pragma unroll
    for (int n = 0; n < HALF / 8; n++) {
#pragma unroll
      for (int i = 0; i < 4; i++) {
        if (n * 8 + lane % 4 * 2 + i % 2 >= keys) s[n][i] = SCORE_NONE;
      }
    }
  }

  template <bool MASKED>
  __device__ __forceinline__ void weigh(int (&s)[HALF / 8][4], float k_scale) {
#pragma unroll
    for (int h = 0; h < 2; h++) {
      const auto sum = [&](int i) -> int& { return s[i / 2][2 * h + i % 2]; };
      rows[h].template rise<HALF / 4, MASKED>(sum, q_scale[h] * k_scale, Values::TOP);
      rows[h].template weigh<HALF / 4, MASKED>(sum);
    }
  }

  // Half a tile with `keys` keys or more than it holds.
  __device__ __forceinline__ void attend(const uint8_t* tile, float k_scale, int half, int keys,
                                         uint32_t (&a)[Values::STEPS][4]) {
    int s[HALF / 8][4];
    score(s, tile, half, keys);
    if (keys < HALF) {
      weigh<true>(s, k_scale);
    } else {
      weigh<false>(s, k_scale);
    }
#pragma unroll
    for (int step = 0; step < Values::STEPS; step++) Values::pack(a[step], s, step);
  }

  // y = shrink y + weights v.
  __device__ __forceinline__ void add_values(const uint8_t* values, int half, const uint32_t (&a)[Values::STEPS][4]) {
#pragma unroll
    for (int n = 0; n < SAGE_DIM / 8; n += 2) {
      uint32_t sums[2][2] = {};  // of the channels of n and of n + 1: those of row g, and of row g + 8
#pragma unroll
      for (int step = 0; step < Values::STEPS; step++) {
        uint32_t r[4];
        Values::load(r, values, half, step, n);
        Values::mma(sums[0], a[step], {r[0], r[1]});
        Values::mma(sums[1], a[step], {r[2], r[3]});
      }
#pragma unroll
      for (int i = 0; i < 8; i++) {
        float& to = y[n + i / 4][i % 4];
        to = to * rows[i % 4 / 2].shrink + unpack_f16(sums[i / 4][i % 4 / 2], i % 2);
      }
    }
  }

  // Writes rows `row` + 0 .. 15 of [l, heads, 128] at one head; `scales` are those of v.
  template <class T>
  __device__ __forceinline__ void store(T* to, const float* scales, int64_t ld, int row, int l) const {
#pragma unroll
    for (int h = 0; h < 2; h++) {
      const int mine = row + lane / 4 + 8 * h;
      store_row<SAGE_DIM>(to + mine * ld, rows[h].total, mine < l, false, [&](int n, int i) { return y[n][2 * h + i]; },
                          [&](int channel) { return scales[channel]; });
    }
  }
};

template <class Values, class T>
__device__ __forceinline__ void attention(const uint8_t* q8, const float* q_scale, const uint8_t* k8,
                                          const float* k_scale, const uint8_t* v8, const float* v_scale, T* y, int l,
                                          int s) {
  DYNAMIC_SHARED(shared);
  uint8_t* keys = shared;
  uint8_t* values = shared + STAGES * SAGE_TILE;
  const int head = blockIdx.y, warp = threadIdx.x / WARP_SIZE;
  const int tiles = (s + SAGE_TOKENS - 1) / SAGE_TOKENS;
  const int64_t q_tile = int64_t(head) * gridDim.x + blockIdx.x, k_tile = int64_t(head) * tiles;
  const auto copy = [&](int tile) {
    copy_bytes<SAGE_TILE>(keys + tile % STAGES * SAGE_TILE, k8 + (k_tile + tile) * SAGE_TILE);
    copy_bytes<Values::TILE>(values + tile % STAGES * Values::TILE, v8 + (k_tile + tile) * Values::TILE);
    cp_async_commit();
  };

  copy(0);
  Warp<Values> state;
  state.load_queries(q8 + q_tile * SAGE_TILE, q_scale + q_tile * SAGE_TOKENS, warp * 16);
  for (int tile = 0; tile < tiles; tile++) {
    const float scale = k_scale[(k_tile + tile) * SAGE_KEY_SCALES + state.lane % 4];
    cp_async_wait<0>();  // this tile, which was a whole one on its way
    __syncthreads();     // and nobody reads the last one any more
    if (tile + 1 < tiles) copy(tile + 1);
    const int left = s - tile * SAGE_TOKENS;
#pragma unroll
    for (int half = 0; half < 2; half++) {
      if (half * HALF >= left) break;
      uint32_t a[Values::STEPS][4];
      state.attend(keys + tile % STAGES * SAGE_TILE, scale, half, left - half * HALF, a);
      state.add_values(values + tile % STAGES * Values::TILE, half, a);
    }
  }
  const int64_t ld = int64_t(gridDim.y) * SAGE_DIM;
  state.store(y + int64_t(head) * SAGE_DIM, v_scale + head * SAGE_DIM, ld, int(blockIdx.x) * QUERIES + warp * 16, l);
}

#define ATTENTION_SAGE(NAME, VALUES, T)                                                                              \
  KERNEL(attention_sage_##NAME##_##T, THREADS, const uint8_t* q8, const float* q_scale, const uint8_t* k8,           \
         const float* k_scale, const uint8_t* v8, const float* v_scale, T* y, int l, int s) {                        \
    attention<VALUES>(q8, q_scale, k8, k_scale, v8, v_scale, y, l, s);                                               \
  }
// 9.0 and 10.0 would emulate e4m3 products by f16 ones.
#if defined(WAN_SHIM) || __CUDA_ARCH__ == 890 || __CUDA_ARCH__ >= 1200
ATTENTION_SAGE(fp8, Fp8Values, bf16)
ATTENTION_SAGE(fp8, Fp8Values, f16)
#endif
ATTENTION_SAGE(half, F16Values, bf16)
ATTENTION_SAGE(half, F16Values, f16)
