// What the attention kernels of compute capability 9.0 share: a block computes 128 queries of one head. One warp starts
// copies, STAGES tiles of keys and of values ahead; two warpgroups have 64 queries each. While a warpgroup weighs the
// scores of a tile, its products of the tile before with the values run, and the warpgroups take turns at starting
// products, so that one's keep the tensor cores busy while the other weighs (Shah et al., FlashAttention-3, 2024).
#pragma once

#include "attention.cuh"
#include "ring.cuh"

constexpr int STAGES = 3;
constexpr int CONSUMERS = 2;  // warpgroups
constexpr int GROUP = 128;    // threads of a warpgroup
constexpr int THREADS = (1 + CONSUMERS) * GROUP;
constexpr int ROWS = 64;      // queries of a warpgroup
constexpr int TOKENS = 128;   // of a tile
constexpr int SUMS = ROWS * TOKENS / GROUP;  // of a thread
constexpr int PRODUCER_REGISTERS = 24;
constexpr int CONSUMER_REGISTERS = 240;
static_assert(CONSUMERS * ROWS == TOKENS, "a block takes a tile of q");
static_assert((PRODUCER_REGISTERS + CONSUMERS * CONSUMER_REGISTERS) * GROUP <= 65536, "registers of a multiprocessor");

// Shared memory of a block, for tiles of BYTES.
template <int BYTES>
struct Shared {
  using Tiles = Ring<BYTES, STAGES>;

  uint8_t* queries;
  Tiles keys, values;
  uint64_t* queries_full;

  __device__ __forceinline__ explicit Shared(uint8_t* start) : Shared(start, start + BYTES + 2 * Tiles::SIZE) {}
  // `writers`: threads that bring the queries.
  __device__ __forceinline__ void init(int writers) const {
    constexpr int READERS = CONSUMERS * GROUP / WARP_SIZE;
    if (threadIdx.x == 0) {
      barrier_init(queries_full, writers);
      keys.init(1, READERS);
      values.init(1, READERS);
      barrier_init_fence();
    }
    __syncthreads();
  }
  // What the copying warp does once it has given its registers: tiles lie behind each other, and become those of the
  // rings from `first` on.
  __device__ __forceinline__ void copy(const uint8_t* k, const uint8_t* v, int tiles, int first = 0) const {
    for (int tile = 0; tile < tiles; tile++) {
      keys.copy(first + tile, k + int64_t(tile) * BYTES);
      values.copy(first + tile, v + int64_t(tile) * BYTES);
    }
  }

 private:
  __device__ __forceinline__ Shared(uint8_t* start, uint8_t* behind)
      : queries(start),
        keys(start + BYTES, reinterpret_cast<uint64_t*>(behind)),
        values(keys.tiles + Tiles::SIZE, keys.full + Tiles::BARRIERS),
        queries_full(values.full + Tiles::BARRIERS) {}
};

__device__ __forceinline__ int tiles_of(int tokens) { return (tokens + TOKENS - 1) / TOKENS; }

// The warpgroup of this thread. By way of the first thread of a warp, so that the compiler knows that it is one for all:
// descriptors then need no registers of each thread.
__device__ __forceinline__ int warpgroup() { return __shfl_sync(FULL_WARP, int(threadIdx.x) / GROUP, 0); }

// Warpgroup `group`'s turns at starting the products of tiles 1 .. tiles - 1. The first is group 0's.
struct Turns {
  const int group, tiles;

  __device__ __forceinline__ void begin() const {
    if (group == 1 && tiles > 1) pass();
  }
  __device__ __forceinline__ void wait() const { part_wait(1 + group, CONSUMERS * GROUP); }
  __device__ __forceinline__ void end(int tile) const {
    if (group == 0 || tile + 1 < tiles) pass();  // nobody waits for the last
  }

 private:
  __device__ __forceinline__ void pass() const { part_arrive(1 + (1 - group), CONSUMERS * GROUP); }
};

// A warpgroup's way through `s` keys, in the rings' tiles from `first` on. `state` has the steps of one tile: start_scores
// and start_values start products; take_scores (of a tile of which `keys` or more exist) uses sums of scores while the
// products with the values of the tile before run, and leaves alone what those read and write; take_rest adds these (if
// there are VALUES) and makes the operand of the next; take_values only adds.
template <int BYTES, class State>
__device__ __forceinline__ void attend(State& state, const Shared<BYTES>& shared, int s, int first = 0) {
  const int tiles = tiles_of(s);
  const Turns turns = {warpgroup() - 1, tiles};
  turns.begin();
  barrier_wait(shared.queries_full, 0);
  shared.keys.wait(first);
  state.start_scores(first);
  wgmma_wait<0>();
  pin(state.scores);
  shared.keys.release(first);
  state.take_scores(s);
  state.template take_rest<false>(s);
  for (int tile = 1; tile < tiles; tile++) {
    const int now = first + tile;
    shared.keys.wait(now);
    shared.values.wait(now - 1);
    turns.wait();
    state.start_scores(now);
    state.start_values(now - 1);
    turns.end(tile);
    wgmma_wait<1>();
    pin(state.scores);
    shared.keys.release(now);
    const int keys = s - tile * TOKENS;
    state.take_scores(keys);
    wgmma_wait<0>();
    shared.values.release(now - 1);
    state.template take_rest<true>(keys);
  }
  const int last = first + tiles - 1;
  shared.values.wait(last);
  state.start_values(last);
  wgmma_wait<0>();
  shared.values.release(last);
  state.take_values();
}
