// 8-bit attention on the tensor cores (mma.sync), head_dim 128: scores from int8 q and k, results from weights and v in
// e4m3, or in the format of v where there is no e4m3 (compute capability 8.0 and 8.6). Layouts and the arithmetic of the
// scores are in common/sage.cuh, quantising in sage_quantise.cu.
//
// A block computes 128 queries of one head, a warp 16 of them, which it keeps as fragments in registers. Tiles of 128
// keys are in shared memory while the next ones are copied; they are taken in halves. The sums of half a tile are of
// their own and added to the result as f32: tensor cores sum e4m3 with fewer bits than that.
#include "common/ptx.cuh"
#include "common/sage.cuh"

constexpr int WARPS = 8;
constexpr int THREADS = WARPS * WARP_SIZE;
constexpr int QUERIES = WARPS * 16;
constexpr int HALF = SAGE_TOKENS / 2;
constexpr int STAGES = 2;
static_assert(QUERIES == SAGE_TOKENS, "a block takes a tile of q");

// v in e4m3.
template <class T>
struct Fp8Values {
  static constexpr float TOP = LOG2_E4M3_MAX;
  static constexpr int TILE = SAGE_TILE;  // bytes
  static constexpr int STEPS = HALF / 32;

  const uint8_t* tiles;  // of this head
  const float* scales;   // of its channels

  __device__ __forceinline__ void copy(uint8_t* to, int tile, int) const {
    for (int i = threadIdx.x; i < TILE / 16; i += THREADS) cp_async16(to + i * 16, tiles + int64_t(tile) * TILE + i * 16);
  }
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
  static __device__ __forceinline__ void mma(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    mma_e4m3(d, a, b);
  }
  __device__ __forceinline__ float scale(int channel) const { return scales[channel]; }
};

// v as it is, bf16 or f16: rows of 16 pieces, piece p of row r at p ^ (r % 8).
template <class T>
struct HalfValues {
  static constexpr float TOP = 0.0f;
  static constexpr int TILE = SAGE_TOKENS * SAGE_DIM * int(sizeof(T));
  static constexpr int STEPS = HALF / 16;

  const T* rows;  // of this head
  int64_t ld;

  static __device__ __forceinline__ int piece(int row, int piece) { return row * SAGE_DIM * 2 + (piece ^ (row % 8)) * 16; }
  __device__ __forceinline__ void copy(uint8_t* to, int tile, int s) const {
    for (int i = threadIdx.x; i < TILE / 16; i += THREADS) {
      const int row = i / 16, token = tile * SAGE_TOKENS + row;
      cp_async16(to + piece(row, i % 16), rows + (token < s ? token : 0) * ld + i % 16 * 8, token < s);
    }
  }
  static __device__ __forceinline__ uint32_t two(bf16, float low, float high) { return pack_bf16(low, high); }
  static __device__ __forceinline__ uint32_t two(f16, float low, float high) { return pack_f16(low, high); }
  static __device__ __forceinline__ void pack(uint32_t (&a)[4], const int (&weights)[HALF / 8][4], int step) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const int(&w)[4] = weights[2 * step + i / 2];
      a[i] = two(T(), __int_as_float(w[i % 2 * 2]), __int_as_float(w[i % 2 * 2 + 1]));
    }
  }
  static __device__ __forceinline__ void load(uint32_t (&r)[4], const uint8_t* values, int half, int step, int n) {
    const int lane = threadIdx.x % WARP_SIZE;
    ldmatrix_x4_trans(r, values + piece(half * HALF + step * 16 + lane % 16, n + lane / 16));
  }
  static __device__ __forceinline__ void multiply(bf16, float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    mma_bf16(d, a, b);
  }
  static __device__ __forceinline__ void multiply(f16, float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    mma_f16(d, a, b);
  }
  static __device__ __forceinline__ void mma(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    multiply(T(), d, a, b);
  }
  __device__ __forceinline__ float scale(int) const { return 1.0f; }
};

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
    for (int n = 0; n < HALF / 8; n++) s[n][0] = s[n][1] = s[n][2] = s[n][3] = SCORE_ZERO;
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

  // Half a tile with `keys` keys or more than it holds.
  __device__ __forceinline__ void attend(const uint8_t* tile, float k_scale, int half, int keys,
                                         uint32_t (&a)[Values::STEPS][4], float (&shrink)[2]) {
    int s[HALF / 8][4];
    score(s, tile, half, keys);
#pragma unroll
    for (int h = 0; h < 2; h++) {
      const auto sum = [&](int i) -> int& { return s[i / 2][2 * h + i % 2]; };
      const float factor = q_scale[h] * k_scale;
      shrink[h] = keys < HALF ? rows[h].weigh<HALF / 4, true>(sum, factor, Values::TOP)
                              : rows[h].weigh<HALF / 4, false>(sum, factor, Values::TOP);
    }
#pragma unroll
    for (int step = 0; step < Values::STEPS; step++) Values::pack(a[step], s, step);
  }

  // y = shrink y + weights v.
  __device__ __forceinline__ void add_values(const uint8_t* values, int half, const uint32_t (&a)[Values::STEPS][4],
                                             const float (&shrink)[2]) {
#pragma unroll
    for (int n = 0; n < SAGE_DIM / 8; n += 2) {
      float sums[2][4] = {};
#pragma unroll
      for (int step = 0; step < Values::STEPS; step++) {
        uint32_t r[4];
        Values::load(r, values, half, step, n);
        Values::mma(sums[0], a[step], {r[0], r[1]});
        Values::mma(sums[1], a[step], {r[2], r[3]});
      }
#pragma unroll
      for (int i = 0; i < 8; i++) y[n + i / 4][i % 4] = y[n + i / 4][i % 4] * shrink[i % 4 / 2] + sums[i / 4][i % 4];
    }
  }

  // Writes rows `row` + 0 .. 15 of [l, heads, 128] at one head.
  template <class T>
  __device__ __forceinline__ void store(T* to, const Values& values, int64_t ld, int row, int l) const {
#pragma unroll
    for (int h = 0; h < 2; h++) {
      const int mine = row + lane / 4 + 8 * h;
      store_row<SAGE_DIM>(to + mine * ld, rows[h].total, mine < l, false, [&](int n, int i) { return y[n][2 * h + i]; },
                          [&](int channel) { return values.scale(channel); });
    }
  }
};

template <class T, class Values>
__device__ __forceinline__ void attention(const uint8_t* q8, const float* q_scale, const uint8_t* k8,
                                          const float* k_scale, const Values& v, T* y, int l, int s) {
  DYNAMIC_SHARED(shared);
  uint8_t* keys = shared;
  uint8_t* values = shared + STAGES * SAGE_TILE;
  const int head = blockIdx.y, warp = threadIdx.x / WARP_SIZE;
  const int tiles = (s + SAGE_TOKENS - 1) / SAGE_TOKENS;
  const int64_t q_tile = int64_t(head) * gridDim.x + blockIdx.x, k_tile = int64_t(head) * tiles;
  const auto copy_keys = [&](int tile) {
    uint8_t* to = keys + tile % STAGES * SAGE_TILE;
    const uint8_t* from = k8 + (k_tile + tile) * SAGE_TILE;
    for (int i = threadIdx.x; i < SAGE_TILE / 16; i += THREADS) cp_async16(to + i * 16, from + i * 16);
  };

  copy_keys(0);
  cp_async_commit();
  v.copy(values, 0, s);
  cp_async_commit();
  Warp<Values> state;
  state.load_queries(q8 + q_tile * SAGE_TILE, q_scale + q_tile * SAGE_TOKENS, warp * 16);
  for (int tile = 0; tile < tiles; tile++) {
    const float scale = k_scale[(k_tile + tile) * SAGE_KEY_SCALES + state.lane % 4];
    cp_async_wait<1>();  // these keys
    __syncthreads();     // and nobody reads the last tile any more
    if (tile + 1 < tiles) copy_keys(tile + 1);
    cp_async_commit();
    if (tile + 1 < tiles) v.copy(values + (tile + 1) % STAGES * Values::TILE, tile + 1, s);
    cp_async_commit();
    const int left = s - tile * SAGE_TOKENS;
#pragma unroll
    for (int half = 0; half < 2; half++) {
      if (half * HALF >= left) break;
      uint32_t a[Values::STEPS][4];
      float shrink[2];
      state.attend(keys + tile % STAGES * SAGE_TILE, scale, half, left - half * HALF, a, shrink);
      if (half == 0) {
        cp_async_wait<2>();  // these values
        __syncthreads();
      }
      state.add_values(values + tile % STAGES * Values::TILE, half, a, shrink);
    }
  }
  const int64_t ld = int64_t(gridDim.y) * SAGE_DIM;
  state.store(y + int64_t(head) * SAGE_DIM, v, ld, int(blockIdx.x) * QUERIES + warp * 16, l);
}

#define ATTENTION_SAGE_FP8(T)                                                                                    \
  KERNEL(attention_sage_fp8_##T, THREADS, const uint8_t* q8, const float* q_scale, const uint8_t* k8,            \
         const float* k_scale, const uint8_t* v8, const float* v_scale, T* y, int l, int s) {                    \
    const int tiles = (s + SAGE_TOKENS - 1) / SAGE_TOKENS;                                                       \
    const Fp8Values<T> v = {v8 + int64_t(blockIdx.y) * tiles * SAGE_TILE, v_scale + blockIdx.y * SAGE_DIM};      \
    attention<T>(q8, q_scale, k8, k_scale, v, y, l, s);                                                          \
  }
#define ATTENTION_SAGE_HALF(T)                                                                                   \
  KERNEL(attention_sage_half_##T, THREADS, const uint8_t* q8, const float* q_scale, const uint8_t* k8,           \
         const float* k_scale, const T* v, int64_t ldv, T* y, int l, int s) {                                    \
    const HalfValues<T> values = {v + int64_t(blockIdx.y) * SAGE_DIM, ldv};                                      \
    attention<T>(q8, q_scale, k8, k_scale, values, y, l, s);                                                     \
  }
// Hopper has a kernel of its own, and would emulate e4m3 products here.
#if defined(WAN_SHIM) || (__CUDA_ARCH__ >= 890 && __CUDA_ARCH__ != 900)
ATTENTION_SAGE_FP8(bf16)
ATTENTION_SAGE_FP8(f16)
#endif
ATTENTION_SAGE_HALF(bf16)
ATTENTION_SAGE_HALF(f16)
