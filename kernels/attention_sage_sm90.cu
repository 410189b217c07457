// 8-bit attention for compute capability 9.0: as attention_sage.cu, with products of warpgroups (wgmma) and tiles copied
// by the bulk engine, in the order of common/attention_sm90.cuh. Layouts and the arithmetic of the scores are in
// common/sage.cuh. A tile's products with the values have sums of their own, added as f32, for the reason given there.
#include "common/attention_sm90.cuh"
#include "common/sage.cuh"

static_assert(TOKENS == SAGE_TOKENS, "a tile");
constexpr int STEPS = SAGE_DIM / 32;

// A warpgroup's 64 queries and their results so far; `scores` and `sums` are those of a tile.
struct Consumer {
  const Shared<SAGE_TILE>& shared;
  const uint64_t queries;  // descriptor
  const float q_scale[2];
  const float* k_scales;  // of a lane, SAGE_KEY_SCALES from tile to tile
  float k_scale;
  int scores[SUMS];
  float sums[SUMS];
  float y[SUMS] = {};
  uint32_t weights[STEPS][4];
  float shrink[2];  // beside `sums`; what `rows` have is of the tile after
  SageRow rows[2];

  // `row`: this thread's first of the block's queries.
  __device__ __forceinline__ Consumer(const Shared<SAGE_TILE>& shared, int first, const float* q_scales,
                                      const float* k_scales, int row)
      : shared(shared),
        queries(matrix_descriptor(shared.queries + first * SAGE_DIM)),
        q_scale{q_scales[row], q_scales[row + 8]},
        k_scales(k_scales + threadIdx.x % 4) {}

  // scores = q kT.
  __device__ __forceinline__ void start_scores(int tile) {
    k_scale = k_scales[tile * SAGE_KEY_SCALES];
    const uint64_t keys = matrix_descriptor(shared.keys.tile(tile));
    pin(scores);
    wgmma_fence();
#pragma unroll
    for (int step = 0; step < STEPS; step++) {
      wgmma_s8(scores, queries + step * DESCRIPTOR_STEP, keys + step * DESCRIPTOR_STEP, step > 0);
    }
    wgmma_commit();
  }

  // sums = weights v.
  __device__ __forceinline__ void start_values(int tile) {
    const uint64_t values = matrix_descriptor(shared.values.tile(tile));
    pin(sums);
    wgmma_fence();
#pragma unroll
    for (int step = 0; step < STEPS; step++) {
      wgmma_e4m3(sums, weights[step], values + step * DESCRIPTOR_STEP, step > 0);
    }
    wgmma_commit();
  }

  // Row 0's scores become weights, which stay in `scores` as the bits of floats, while the products with the values of the
  // tile before run; row 1's in take_rest, among other work: exponentials have a unit of their own.
  __device__ __forceinline__ void take_scores(int keys) {
    if (keys < SAGE_TOKENS) {
#pragma unroll
      for (int i = 0; i < SUMS; i++) {
        if (i / 4 * 8 + int(threadIdx.x) % 4 * 2 + i % 2 >= keys) scores[i] = SCORE_NONE;
      }
      begin_weights<true>();
    } else {
      begin_weights<false>();
    }
  }

  template <bool VALUES>
  __device__ __forceinline__ void take_rest(int keys) {
    if (VALUES) pin(sums);
    if (keys < SAGE_TOKENS) {
      end_weights<true, VALUES>();
      pin<1>(y);
    } else {
      end_weights<false, VALUES>();
      // Not the same as above: what both branches end with would be moved behind them, away from the exponentials.
      pin<2>(y);
    }
  }

  __device__ __forceinline__ void take_values() {
    pin(sums);
    add_values();
  }

 private:
  // Of row h.
  __device__ __forceinline__ auto row_scores(int h) {
    return [this, h](int i) -> int& { return scores[i / 2 * 4 + 2 * h + i % 2]; };
  }

  template <bool MASKED>
  __device__ __forceinline__ void begin_weights() {
#pragma unroll
    for (int h = 0; h < 2; h++) {
      rows[h].template rise<SUMS / 2, MASKED>(row_scores(h), q_scale[h] * k_scale, LOG2_E4M3_MAX);
    }
    rows[0].template weigh<SUMS / 2, MASKED>(row_scores(0));
  }

  template <bool MASKED, bool VALUES>
  __device__ __forceinline__ void end_weights() {
    rows[1].template weigh<SUMS / 2, MASKED>(row_scores(1));
    if (VALUES) add_values();
    shrink[0] = rows[0].shrink;
    shrink[1] = rows[1].shrink;
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

  __device__ __forceinline__ void add_values() {
#pragma unroll
    for (int i = 0; i < SUMS; i++) y[i] = y[i] * shrink[i % 4 / 2] + sums[i];
  }
};

template <class T>
__device__ __forceinline__ void consume(const Shared<SAGE_TILE>& shared, const float* q_scales, const float* k_scales,
                                        const float* v_scales, T* y, int64_t ld, int l, int s) {
  take_registers<CONSUMER_REGISTERS>();
  const int first = (warpgroup() - 1) * ROWS;
  const int row = first + threadIdx.x % GROUP / WARP_SIZE * 16 + threadIdx.x % WARP_SIZE / 4;  // of the tile, and row + 8
  Consumer state(shared, first, q_scales, k_scales, row);
  attend(state, shared, s);
#pragma unroll
  for (int h = 0; h < 2; h++) {
    const int mine = int(blockIdx.x) * SAGE_TOKENS + row + 8 * h;
    store_row<SAGE_DIM>(y + mine * ld, state.rows[h].total, mine < l, false,
                        [&](int n, int i) { return state.y[4 * n + 2 * h + i]; },
                        [&](int channel) { return v_scales[channel]; });
  }
}

template <class T>
__device__ __forceinline__ void attention(const uint8_t* q8, const float* q_scale, const uint8_t* k8,
                                          const float* k_scale, const uint8_t* v8, const float* v_scale, T* y, int l,
                                          int s) {
  DYNAMIC_SHARED(start);
  const Shared<SAGE_TILE> shared(start);
  const int head = blockIdx.y, tiles = tiles_of(s);
  const int64_t q_tile = int64_t(head) * gridDim.x + blockIdx.x, k_tile = int64_t(head) * tiles;
  shared.init(1);
  if (threadIdx.x < GROUP) {
    give_registers<PRODUCER_REGISTERS>();
    if (threadIdx.x != 0) return;
    barrier_expect(shared.queries_full, SAGE_TILE);
    bulk_copy(shared.queries, q8 + q_tile * SAGE_TILE, SAGE_TILE, shared.queries_full);
    shared.copy(k8 + k_tile * SAGE_TILE, v8 + k_tile * SAGE_TILE, tiles);
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
