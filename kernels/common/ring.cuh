// Tiles on their way through shared memory, from one warp or several to others (compute capability 9.0).
#pragma once

#include "hopper.cuh"

// A ring of STAGES tiles of BYTES. Tile i is in place i % STAGES, as phase i / STAGES.
template <int BYTES, int STAGES>
struct Ring {
  static constexpr int SIZE = STAGES * BYTES, BARRIERS = 2 * STAGES;

  uint8_t* tiles;
  uint64_t *full, *empty;

  // `start`: of STAGES tiles; `barriers`: BARRIERS of them.
  __device__ __forceinline__ Ring(uint8_t* start, uint64_t* barriers)
      : tiles(start), full(barriers), empty(barriers + STAGES) {}
  // `writers`: arrivals that fill a tile; `readers`: warps that read it.
  __device__ __forceinline__ void init(int writers, int readers) const {
    for (int i = 0; i < STAGES; i++) {
      barrier_init(full + i, writers);
      barrier_init(empty + i, readers);
    }
  }
  __device__ __forceinline__ uint8_t* tile(int i) const { return tiles + i % STAGES * BYTES; }

  // Writers: waits for room, tells readers. A bulk copy is both, of the only writer.
  __device__ __forceinline__ void make_room(int i) const { barrier_wait(empty + i % STAGES, i / STAGES % 2 ^ 1); }
  __device__ __forceinline__ void filled(int i) const { barrier_arrive(full + i % STAGES); }
  __device__ __forceinline__ void copy(int i, const void* from) const {
    make_room(i);
    barrier_expect(full + i % STAGES, BYTES);
    bulk_copy(tile(i), from, BYTES, full + i % STAGES);
  }

  // Readers: wait for a tile, and have read it.
  __device__ __forceinline__ void wait(int i) const { barrier_wait(full + i % STAGES, i / STAGES % 2); }
  __device__ __forceinline__ void release(int i) const {
    if (threadIdx.x % WARP_SIZE == 0) barrier_arrive(empty + i % STAGES);
  }
};
