// 8-bit attention for compute capability 9.0: as attention_sage.cu, with products of warpgroups (wgmma) and tiles copied
// by the bulk engine. Layouts and the arithmetic of the scores are in common/sage.cuh.
//
// A block computes 128 queries of one head. One warp starts copies, STAGES tiles of keys and of values ahead; two
// warpgroups have 64 queries each. While a warpgroup weighs the scores of a tile, its products of the tile before with
// the values run; a tile's products have sums of their own, added as f32, for the reason given there (Shah et al.,
// FlashAttention-3, 2024, for the order of the steps).
#include "common/hopper.cuh"
#include "common/sage.cuh"

constexpr int STAGES = 3;
constexpr int CONSUMERS = 2;  // warpgroups
constexpr int GROUP = 128;    // threads of a warpgroup
constexpr int THREADS = (1 + CONSUMERS) * GROUP;
constexpr int ROWS = 64;  // queries of a warpgroup
constexpr int STEPS = SAGE_DIM / 32;
constexpr int SUMS = ROWS * SAGE_TOKENS / GROUP;
constexpr int PRODUCER_REGISTERS = 24;
constexpr int CONSUMER_REGISTERS = 240;
static_assert(CONSUMERS * ROWS == SAGE_TOKENS, "a block takes a tile of q");
static_assert((PRODUCER_REGISTERS + CONSUMERS * CONSUMER_REGISTERS) * GROUP <= 65536, "registers of a multiprocessor");

// A ring of tiles in shared memory. Tile i is in place i % STAGES, as phase i / STAGES.
struct Ring {
  uint8_t* tiles;
  uint64_t *full, *empty;

  __device__ __forceinline__ void init() const {
    for (int i = 0; i < STAGES; i++) {
      barrier_init(full + i, 1);
      barrier_init(empty + i, CONSUMERS * GROUP / WARP_SIZE);  // a lane of each warp
    }
  }
  __device__ __forceinline__ uint8_t* tile(int i) const { return tiles + i % STAGES * SAGE_TILE; }
  __device__ __forceinline__ void copy(int i, const uint8_t* from) const {
    barrier_wait(empty + i % STAGES, i / STAGES % 2 ^ 1);
    barrier_expect(full + i % STAGES, SAGE_TILE);
    bulk_copy(tile(i), from + int64_t(i) * SAGE_TILE, SAGE_TILE, full + i % STAGES);
  }
  __device__ __forceinline__ void wait(int i) const { barrier_wait(full + i % STAGES, i / STAGES % 2); }
  __device__ __forceinline__ void release(int i) const {
    if (threadIdx.x % WARP_SIZE == 0) barrier_arrive(empty + i % STAGES);
  }
};

struct Shared {
  uint8_t* queries;
  uint64_t* queries_full;
  Ring keys, values;

  __device__ __forceinline__ explicit Shared(uint8_t* start) {
    queries = start;
    keys.tiles = queries + SAGE_TILE;
    values.tiles = keys.tiles + STAGES * SAGE_TILE;
    queries_full = reinterpret_cast<uint64_t*>(values.tiles + STAGES * SAGE_TILE);
    keys.full = queries_full + 1;
    keys.empty = keys.full + STAGES;
    values.full = keys.empty + STAGES;
    values.empty = values.full + STAGES;
  }
};

__device__ __forceinline__ void produce(const Shared& shared, const uint8_t* q8, const uint8_t* k8, const uint8_t* v8,
                                        int tiles) {
  give_registers<PRODUCER_REGISTERS>();
  if (threadIdx.x != 0) return;
  barrier_expect(shared.queries_full, SAGE_TILE);
  bulk_copy(shared.queries, q8, SAGE_TILE, shared.queries_full);
  for (int tile = 0; tile < tiles; tile++) {
    shared.keys.copy(tile, k8);
    shared.values.copy(tile, v8);
  }
}

// A warpgroup's 64 queries and their results so far; `scores` and `sums` are those of a tile.
struct Consumer {
  const Shared& shared;
  const uint64_t queries;  // descriptor
  int scores[SUMS];
  float sums[SUMS];
  float y[SUMS] = {};
  uint32_t weights[STEPS][4];
  float shrink[2];
  SageRow rows[2];

  __device__ __forceinline__ Consumer(const Shared& shared, int first)
      : shared(shared), queries(matrix_descriptor(shared.queries + first * SAGE_DIM)) {}

  // Starts scores = q kT.
  __device__ __forceinline__ void start_scores(int tile) {
#pragma unroll
    for (int i = 0; i < SUMS; i++) scores[i] = SCORE_ZERO;
    shared.keys.wait(tile);
    const uint64_t keys = matrix_descriptor(shared.keys.tile(tile));
    pin(scores);
    wgmma_fence();
#pragma unroll
    for (int step = 0; step < STEPS; step++) {
      wgmma_s8(scores, queries + step * DESCRIPTOR_STEP, keys + step * DESCRIPTOR_STEP);
    }
    wgmma_commit();
  }

  // Starts sums = weights v.
  __device__ __forceinline__ void start_values(int tile) {
    shared.values.wait(tile);
    const uint64_t values = matrix_descriptor(shared.values.tile(tile));
    pin(sums);
    wgmma_fence();
#pragma unroll
    for (int step = 0; step < STEPS; step++) {
      wgmma_e4m3(sums, weights[step], values + step * DESCRIPTOR_STEP, step > 0);
    }
    wgmma_commit();
  }

  // Scores to weights, which stay in `scores` as the bits of floats; `keys`: those from the tile's first on.
  __device__ __forceinline__ void weigh(const float (&q_scale)[2], float k_scale, int keys, float (&by)[2]) {
    const bool masked = keys < SAGE_TOKENS;
    if (masked) {
#pragma unroll
      for (int i = 0; i < SUMS; i++) {
        if (i / 4 * 8 + int(threadIdx.x) % 4 * 2 + i % 2 >= keys) scores[i] = SCORE_NONE;
      }
    }
#pragma unroll
    for (int h = 0; h < 2; h++) {
      const auto sum = [&](int i) -> int& { return scores[i / 2 * 4 + 2 * h + i % 2]; };
      const float factor = q_scale[h] * k_scale;
      by[h] = masked ? rows[h].weigh<SUMS / 2, true>(sum, factor, LOG2_E4M3_MAX)
                     : rows[h].weigh<SUMS / 2, false>(sum, factor, LOG2_E4M3_MAX);
    }
  }

  __device__ __forceinline__ void pack_weights() {
#pragma unroll
    for (int step = 0; step < STEPS; step++) {
#pragma unroll
      for (int i = 0; i < 4; i++) {
        const int* low = scores + (4 * step + i / 2 * 2) * 4 + i % 2 * 2;
        weights[step][i] = pack_e4m3(__int_as_float(low[0]), __int_as_float(low[1]), __int_as_float(low[4]),
                                     __int_as_float(low[5]));
      }
    }
  }

  __device__ __forceinline__ void add_sums() {
#pragma unroll
    for (int i = 0; i < SUMS; i++) y[i] = y[i] * shrink[i % 4 / 2] + sums[i];
  }
};

template <class T>
__device__ __forceinline__ void consume(const Shared& shared, const float* q_scales, const float* k_scales,
                                        const float* v_scales, T* y, int64_t ld, int l, int s) {
  take_registers<CONSUMER_REGISTERS>();
  const int group = threadIdx.x / GROUP - 1, lane = threadIdx.x % WARP_SIZE;
  const int row = group * ROWS + threadIdx.x % GROUP / WARP_SIZE * 16 + lane / 4;  // of the tile, and row + 8
  const int tiles = (s + SAGE_TOKENS - 1) / SAGE_TOKENS;
  const float q_scale[2] = {q_scales[row], q_scales[row + 8]};
  k_scales += lane % 4;

  Consumer state(shared, group * ROWS);
  barrier_wait(shared.queries_full, 0);
  float k_scale = k_scales[0];
  state.start_scores(0);
  wgmma_wait<0>();
  pin(state.scores);
  shared.keys.release(0);
  state.weigh(q_scale, k_scale, s, state.shrink);
  state.pack_weights();
  for (int tile = 1; tile < tiles; tile++) {
    k_scale = k_scales[tile * SAGE_KEY_SCALES];
    state.start_scores(tile);
    state.start_values(tile - 1);
    wgmma_wait<1>();
    pin(state.scores);
    shared.keys.release(tile);
    float by[2];
    state.weigh(q_scale, k_scale, s - tile * SAGE_TOKENS, by);
    wgmma_wait<0>();
    pin(state.sums);
    shared.values.release(tile - 1);
    state.add_sums();
    state.shrink[0] = by[0];
    state.shrink[1] = by[1];
    state.pack_weights();
  }
  state.start_values(tiles - 1);
  wgmma_wait<0>();
  pin(state.sums);
  state.add_sums();

#pragma unroll
  for (int h = 0; h < 2; h++) {
    const int mine = int(blockIdx.x) * SAGE_TOKENS + row + 8 * h;
    sage_store_row(y + mine * ld, state.rows[h].total, mine < l, [&](int n, int i) { return state.y[4 * n + 2 * h + i]; },
                   [&](int channel) { return v_scales[channel]; });
  }
}

template <class T>
__device__ __forceinline__ void attention(const uint8_t* q8, const float* q_scale, const uint8_t* k8,
                                          const float* k_scale, const uint8_t* v8, const float* v_scale, T* y, int l,
                                          int s) {
  DYNAMIC_SHARED(start);
  const Shared shared(start);
  const int head = blockIdx.y, tiles = (s + SAGE_TOKENS - 1) / SAGE_TOKENS;
  const int64_t q_tile = int64_t(head) * gridDim.x + blockIdx.x, k_tile = int64_t(head) * tiles;
  if (threadIdx.x == 0) {
    barrier_init(shared.queries_full, 1);
    shared.keys.init();
    shared.values.init();
    barrier_init_fence();
  }
  __syncthreads();
  if (threadIdx.x < GROUP) {
    produce(shared, q8 + q_tile * SAGE_TILE, k8 + k_tile * SAGE_TILE, v8 + k_tile * SAGE_TILE, tiles);
  } else {
    consume(shared, q_scale + q_tile * SAGE_TOKENS, k_scale + k_tile * SAGE_KEY_SCALES, v_scale + head * SAGE_DIM,
            y + int64_t(head) * SAGE_DIM, int64_t(gridDim.y) * SAGE_DIM, l, s);
  }
}

#define ATTENTION_SAGE_SM90(T)                                                                             \
  KERNEL(attention_sage_sm90_##T, THREADS, const uint8_t* q8, const float* q_scale, const uint8_t* k8,     \
         const float* k_scale, const uint8_t* v8, const float* v_scale, T* y, int l, int s) {              \
    attention<T>(q8, q_scale, k8, k_scale, v8, v_scale, y, l, s);                                          \
  }
ATTENTION_SAGE_SM90(bf16)
ATTENTION_SAGE_SM90(f16)
