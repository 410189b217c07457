// Attention for compute capability 9.0, bf16 or f16, head_dim 128: as attention_mma.cu, with products of warpgroups
// (wgmma) and tiles copied by the bulk engine, in the order of common/attention_sm90.cuh.
//
// The bulk engine copies memory as it is, and a head's keys and values lie apart, so a kernel first brings them together
// in tiles that wgmma can read: two copies of k and v in memory for as many as there are tiles of queries.
//
// The sum of two attentions of one query, each with a softmax of its own (a DiT's text and image), takes one launch.
#include "common/attention_sm90.cuh"

constexpr int DIM = 128;
constexpr int PIECES = DIM / 8;          // of 16 bytes, of a token
constexpr int HALF = TOKENS * DIM;       // bytes: 64 channels of a tile's tokens
constexpr int TILE = 2 * HALF;
constexpr int STEPS = DIM / 16;          // of a product of scores, and of one of values
constexpr int PACK_THREADS = 256;

// Byte of a tile at which piece `piece` of token `row` lies: halves of 64 channels, in rows as the descriptors have them.
__device__ __forceinline__ int place(int row, int piece) {
  return piece / 8 * HALF + row * 128 + (piece % 8 ^ row % 8) * 16;
}

// 8 channels of a token; of tokens past the end zeros.
template <class T>
__device__ __forceinline__ Pack<T, 8> load(const T* from, int64_t ld, int token, int count, int piece) {
  Pack<T, 8> values = {};
  if (token < count) values = load_pack<T, 8>(from + token * ld + piece * 8);
  return values;
}

// Tiles of k (z = 0) and v (z = 1), [heads, tiles] of each.
template <class T>
__device__ __forceinline__ void pack_tiles(const T* k, int64_t ldk, const T* v, int64_t ldv, int s, uint8_t* k_tiles,
                                           uint8_t* v_tiles) {
  const int tile = blockIdx.x, head = blockIdx.y;
  const T* from = (blockIdx.z ? v : k) + int64_t(head) * DIM;
  const int64_t ld = blockIdx.z ? ldv : ldk;
  uint8_t* to = (blockIdx.z ? v_tiles : k_tiles) + (int64_t(head) * gridDim.x + tile) * TILE;
#pragma unroll
  for (int i = 0; i < TOKENS * PIECES / PACK_THREADS; i++) {
    const int index = threadIdx.x + i * PACK_THREADS, row = index / PIECES, piece = index % PIECES;
    store_pack(reinterpret_cast<T*>(to + place(row, piece)), load(from, ld, tile * TOKENS + row, s, piece));
  }
}

// A warpgroup's 64 queries and their results so far; `scores` are those of a tile, and its weights once taken.
template <class T>
struct Consumer {
  const Shared<TILE>& shared;
  const float factor;  // from scores to exponents
  const uint64_t queries;  // descriptor
  float scores[SUMS];
  float y[SUMS] = {};
  uint32_t weights[STEPS][4];
  float shrink[2];
  SoftmaxRow rows[2];

  __device__ __forceinline__ Consumer(const Shared<TILE>& shared, int first, float factor)
      : shared(shared), factor(factor), queries(matrix_descriptor(shared.queries + first * 128)) {}

  // Copies this warpgroup's queries, `first` and following of the block's.
  __device__ __forceinline__ void load_queries(const T* q, int64_t ld, int first, int l) const {
    const int token = int(blockIdx.x) * TOKENS;
#pragma unroll
    for (int i = 0; i < ROWS * PIECES / GROUP; i++) {
      const int index = threadIdx.x % GROUP + i * GROUP, row = first + index / PIECES, piece = index % PIECES;
      store_pack(reinterpret_cast<T*>(shared.queries + place(row, piece)), load(q, ld, token + row, l, piece));
    }
    fence_shared_writes();
    barrier_arrive(shared.queries_full);
  }

  __device__ __forceinline__ void start_scores(int tile) {
    const uint64_t keys = matrix_descriptor(shared.keys.tile(tile));
    pin(scores);
    wgmma_fence();
#pragma unroll
    for (int step = 0; step < STEPS; step++) {
      const uint64_t at = step / 4 * (HALF >> 4) + step % 4 * DESCRIPTOR_STEP;
      wgmma_scores(T(), scores, queries + at, keys + at, step > 0);
    }
    wgmma_commit();
  }

  __device__ __forceinline__ void start_values(int tile) {
    const uint64_t values = transposed_descriptor(shared.values.tile(tile), HALF);
    pin(y);
    wgmma_fence();
#pragma unroll
    for (int step = 0; step < STEPS; step++) {
      wgmma_values(T(), y, weights[step], values + step * TRANSPOSED_STEP);
    }
    wgmma_commit();
  }

  // The exponentials are in both branches: with them behind a branch alone ptxas waits for the products before it takes
  // them, which are to run meanwhile.
  __device__ __forceinline__ void take_scores(int keys) {
    if (keys < TOKENS) {
#pragma unroll
      for (int i = 0; i < SUMS; i++) {
        if (i / 4 * 8 + int(threadIdx.x) % 4 * 2 + i % 2 >= keys) scores[i] = -INFINITY;
      }
      weigh();
    } else {
      weigh();
    }
  }

  template <bool VALUES>
  __device__ __forceinline__ void take_rest(int) {
    if (VALUES) take_values();
    next_weights();
  }

  __device__ __forceinline__ void take_values() { pin(y); }

  // Writes the result of the block's queries from `first` on, or adds it, and begins anew.
  __device__ __forceinline__ void store(T* to, int64_t ld, int first, int l, bool add) {
    const int lane = threadIdx.x % WARP_SIZE, warp = threadIdx.x % GROUP / WARP_SIZE;
#pragma unroll
    for (int h = 0; h < 2; h++) {
      const int mine = int(blockIdx.x) * TOKENS + first + warp * 16 + lane / 4 + 8 * h;
      store_row<DIM>(to + mine * ld, rows[h].total, mine < l, add,
                     [&](int n, int i) { return y[4 * n + 2 * h + i]; });
      rows[h] = {};
    }
#pragma unroll
    for (int i = 0; i < SUMS; i++) y[i] = 0.0f;
  }

 private:
  __device__ __forceinline__ void weigh() {
#pragma unroll
    for (int h = 0; h < 2; h++) {
      const auto score = [&](int i) -> float& { return scores[i / 2 * 4 + 2 * h + i % 2]; };
      shrink[h] = rows[h].weigh<SUMS / 2>(score, factor);
    }
  }

  __device__ __forceinline__ void next_weights() {
    if (__any_sync(FULL_WARP, shrink[0] != 1.0f || shrink[1] != 1.0f)) {
#pragma unroll
      for (int i = 0; i < SUMS; i++) y[i] *= shrink[i % 4 / 2];
    }
#pragma unroll
    for (int step = 0; step < STEPS; step++) {
#pragma unroll
      for (int i = 0; i < 4; i++) {
        const float* pair = scores + (2 * step + i / 2) * 4 + i % 2 * 2;
        weights[step][i] = pack(T(), pair[0], pair[1]);
      }
    }
  }
};

// Keys and values of `s` tokens in tiles; none if `s` is 0.
struct Source {
  const uint8_t *k, *v;
  int s;
};

template <class T>
__device__ __forceinline__ void consume(const Shared<TILE>& shared, const T* q, int64_t ldq, int s, int s2, T* y, int l,
                                        float factor, bool add) {
  take_registers<CONSUMER_REGISTERS>();
  const int first = (warpgroup() - 1) * ROWS;
  const int64_t ld = int64_t(gridDim.y) * DIM;
  Consumer<T> state(shared, first, factor);
  state.load_queries(q, ldq, first, l);
  attend(state, shared, s);
  state.store(y, ld, first, l, add);
  if (s2 == 0) return;
  attend(state, shared, s2, tiles_of(s));
  state.store(y, ld, first, l, true);
}

template <class T>
__device__ __forceinline__ void attention(const T* q, int64_t ldq, const Source& one, const Source& two, T* y, int l,
                                          float scale, bool add) {
  DYNAMIC_SHARED(start);
  const Shared<TILE> shared(start);
  const int64_t head = blockIdx.y;
  shared.init(CONSUMERS * GROUP);
  if (threadIdx.x < GROUP) {
    give_registers<PRODUCER_REGISTERS>();
    if (threadIdx.x != 0) return;
    const int tiles = tiles_of(one.s), more = tiles_of(two.s);
    shared.copy(one.k + head * tiles * TILE, one.v + head * tiles * TILE, tiles);
    shared.copy(two.k + head * more * TILE, two.v + head * more * TILE, more, tiles);
  } else {
    consume(shared, q + head * DIM, ldq, one.s, two.s, y + head * DIM, l, scale * LOG2_E, add);
  }
}

#define ATTENTION_SM90(T)                                                                                        \
  KERNEL(attention_sm90_pack_##T, PACK_THREADS, const T* k, int64_t ldk, const T* v, int64_t ldv, int s,         \
         uint8_t* k_tiles, uint8_t* v_tiles) {                                                                   \
    pack_tiles(k, ldk, v, ldv, s, k_tiles, v_tiles);                                                             \
  }                                                                                                              \
  KERNEL(attention_sm90_##T, THREADS, const T* q, int64_t ldq, const uint8_t* k_tiles, const uint8_t* v_tiles,   \
         const uint8_t* k2_tiles, const uint8_t* v2_tiles, T* y, int l, int s, int s2, float scale, int add) {   \
    attention(q, ldq, {k_tiles, v_tiles, s}, {k2_tiles, v2_tiles, s2}, y, l, scale, add != 0);                   \
  }
ATTENTION_SM90(bf16)
ATTENTION_SM90(f16)
