// As selftest.cu, for what is in common/hopper.cuh: products held against their definition, and mistakes.
#include "../common/hopper.cuh"

constexpr int A_BYTES = 64 * 128, B_BYTES = 128 * 128;

// A warpgroup's matrices in dynamic shared memory, copied as they are: 64 and 128 swizzled rows of 128 bytes. Then a barrier.
struct Tiles {
  uint8_t *a, *b;
  uint64_t* barrier;

  __device__ __forceinline__ explicit Tiles(uint8_t* start)
      : a(start), b(start + A_BYTES), barrier(reinterpret_cast<uint64_t*>(b + B_BYTES)) {}
  __device__ __forceinline__ void init() const {
    if (threadIdx.x == 0) {
      barrier_init(barrier, 1);
      barrier_init_fence();
    }
    __syncthreads();
  }
  __device__ __forceinline__ void copy(const uint8_t* from_a, const uint8_t* from_b) const {
    if (threadIdx.x != 0) return;
    barrier_expect(barrier, A_BYTES + B_BYTES);
    bulk_copy(a, from_a, A_BYTES, barrier);
    bulk_copy(b, from_b, B_BYTES, barrier);
  }
  // All of the above, and waits for it.
  __device__ __forceinline__ void fill(const uint8_t* from_a, const uint8_t* from_b) const {
    init();
    copy(from_a, from_b);
    barrier_wait(barrier, 0);
  }
};

// y[64][2 SUMS] from a thread's sums.
template <class Sum, int SUMS>
__device__ __forceinline__ void store(Sum* y, const Sum (&d)[SUMS]) {
  const int row = int(threadIdx.x) / 32 * 16 + int(threadIdx.x) % 32 / 4;
  for (int i = 0; i < SUMS; i++) {
    y[(row + 8 * (i / 2 % 2)) * 2 * SUMS + i / 4 * 8 + int(threadIdx.x) % 4 * 2 + i % 2] = d[i];
  }
}

// The same, once the products that were begun are in them.
template <class Sum, int SUMS>
__device__ __forceinline__ void store_products(Sum* y, const Sum (&d)[SUMS]) {
  wgmma_commit();
  wgmma_wait<0>();
  store(y, d);
}

// A thread's registers of 32 bytes from byte `first` on of each of 64 plain rows of `row_bytes`.
__device__ __forceinline__ void load_fragment(uint32_t (&fragment)[4], const uint8_t* a, int row_bytes, int first) {
  const int lane = threadIdx.x % 32, row = int(threadIdx.x) / 32 * 16 + lane / 4;
  for (int i = 0; i < 4; i++) {
    memcpy(&fragment[i], a + (row + i % 2 * 8) * row_bytes + first + i / 2 * 16 + lane % 4 * 4, 4);
  }
}

KERNEL(selftest_wgmma_s8, 128, const uint8_t* a, const uint8_t* b, int* y) {
  DYNAMIC_SHARED(start);
  const Tiles tiles(start);
  tiles.fill(a, b);
  int d[64];
  for (int i = 0; i < 64; i++) d[i] = 1000;
  wgmma_fence();
  for (int step = 0; step < 4; step++) {
    wgmma_s8(d, matrix_descriptor(tiles.a) + step * DESCRIPTOR_STEP,
             matrix_descriptor(tiles.b) + step * DESCRIPTOR_STEP, true);
  }
  store_products(y, d);
}

// `a` has plain rows of 32 bytes.
KERNEL(selftest_wgmma_e4m3, 128, const uint8_t* a, const uint8_t* b, float* y, int add) {
  DYNAMIC_SHARED(start);
  const Tiles tiles(start);
  tiles.fill(a, b);
  uint32_t fragment[4];
  load_fragment(fragment, a, 32, 0);
  float d[64];
  for (int i = 0; i < 64; i++) d[i] = 0.5f;
  wgmma_fence();
  wgmma_e4m3(d, fragment, matrix_descriptor(tiles.b), add != 0);
  store_products(y, d);
}

// d = a bT over 64 values of bf16, both in shared memory.
KERNEL(selftest_wgmma_scores, 128, const uint8_t* a, const uint8_t* b, float* y) {
  DYNAMIC_SHARED(start);
  const Tiles tiles(start);
  tiles.fill(a, b);
  float d[64];
  wgmma_fence();
  for (int step = 0; step < 4; step++) {
    wgmma_scores(bf16(), d, matrix_descriptor(tiles.a) + step * DESCRIPTOR_STEP,
                 matrix_descriptor(tiles.b) + step * DESCRIPTOR_STEP, step > 0);
  }
  store_products(y, d);
}

// d = 0.5 + a b over 64 rows of b, which has 128 columns in two halves. `a` has plain rows of 64 values.
KERNEL(selftest_wgmma_values, 128, const uint8_t* a, const uint8_t* b, float* y) {
  DYNAMIC_SHARED(start);
  const Tiles tiles(start);
  tiles.fill(a, b);
  uint32_t fragment[4][4];
  for (int step = 0; step < 4; step++) load_fragment(fragment[step], a, 128, step * 32);
  float d[64];
  for (int i = 0; i < 64; i++) d[i] = 0.5f;
  wgmma_fence();
  for (int step = 0; step < 4; step++) {
    wgmma_values(bf16(), d, fragment[step], transposed_descriptor(tiles.b, B_BYTES / 2) + step * TRANSPOSED_STEP);
  }
  store_products(y, d);
}

// y[64][96] = 0.5 + a bT over 32 values of bf16: `a` has plain rows of 64 bytes, b is 96 rows in the swizzle of as many.
KERNEL(selftest_wgmma_outputs, 128, const uint8_t* a, const uint8_t* b, float* y) {
  DYNAMIC_SHARED(start);
  const Tiles tiles(start);
  tiles.fill(a, b);
  uint32_t fragment[2][4];
  for (int step = 0; step < 2; step++) load_fragment(fragment[step], a, 64, step * 32);
  float d[48];
  for (int i = 0; i < 48; i++) d[i] = 0.5f;
  wgmma_fence();
  for (int step = 0; step < 2; step++) {
    wgmma_outputs(bf16(), d, fragment[step], matrix_descriptor<64>(tiles.b) + step * DESCRIPTOR_STEP);
  }
  store_products(y, d);
}

// Two warps in turns, as y says: warp 1 reads what warp 0 wrote before it came, and warp 0 what warp 1 did.
KERNEL(selftest_parts, 96, int* y) {
  SHARED(int, x, [1]);
  const int warp = threadIdx.x / 32;
  if (warp == 2) return;
  for (int turn = 0; turn < 3; turn++) {
    if (warp == 1 || turn > 0) part_wait(1 + warp, 64);
    if (threadIdx.x % 32 == 0) {
      x[0] = turn == 0 && warp == 0 ? 1 : 2 * x[0] + 1;
      y[2 * turn + warp] = x[0];
    }
    if (warp == 0 || turn < 2) part_arrive(1 + (1 - warp), 64);
  }
}

// Two copies in a row to the same place, the second as the next phase: y[0..4] is the start of `x` as it is read before
// the first has come, y[4..8] after it, y[8..12] once the second is under way, y[12..16] after that.
KERNEL(selftest_phases, 32, const float* x, float* y) {
  DYNAMIC_SHARED(start);
  const Tiles tiles(start);
  const float* tile = reinterpret_cast<const float*>(tiles.a);
  tiles.init();
  const auto look = [&](int at) {
    if (threadIdx.x < 4) y[at + int(threadIdx.x)] = tile[threadIdx.x];
    __syncthreads();
  };
  for (int phase = 0; phase < 2; phase++) {
    if (threadIdx.x == 0) {
      barrier_expect(tiles.barrier, 16);
      bulk_copy(tiles.a, x + 4 * phase, 16, tiles.barrier);
    }
    __syncthreads();
    look(8 * phase);
    barrier_wait(tiles.barrier, phase);
    look(8 * phase + 4);
  }
}

// ---- mistakes -----------------------------------------------------------------------------------------------

enum Mistake { NONE, OVERWRITTEN, TOUCHED, NO_FENCE, NOT_WAITED, ONE_WARP, NOT_ARRIVED };

KERNEL(selftest_product_mistake, 128, const uint8_t* x, int* y, int mistake) {
  DYNAMIC_SHARED(start);
  const Tiles tiles(start);
  tiles.init();
  tiles.copy(x, x);
  if (mistake == NOT_ARRIVED) __syncthreads();
  if (mistake != NOT_ARRIVED) barrier_wait(tiles.barrier, 0);
  if (mistake == ONE_WARP && threadIdx.x >= 32) return;
  int d[64] = {};
  if (mistake != NO_FENCE) wgmma_fence();
  wgmma_s8(d, matrix_descriptor(tiles.a), matrix_descriptor(tiles.b), true);
  wgmma_commit();
  if (mistake == OVERWRITTEN) tiles.copy(x, x);
  if (mistake == TOUCHED) d[17] = 3;
  if (mistake != NOT_WAITED) wgmma_wait<0>();
  store(y, d);
}

// y = x xT of the first 64 rows, which threads write to shared memory.
KERNEL(selftest_written_tile, 128, const uint8_t* x, int* y, int fenced) {
  DYNAMIC_SHARED(start);
  const Tiles tiles(start);
  for (int i = threadIdx.x; i < B_BYTES; i += 128) tiles.b[i] = x[i];
  if (fenced) fence_shared_writes();
  __syncthreads();
  int d[64] = {};
  wgmma_fence();
  wgmma_s8(d, matrix_descriptor(tiles.b), matrix_descriptor(tiles.b), true);
  store_products(y, d);
}

enum BarrierMistake { NEVER, NOT_INITIALISED, NO_INIT_FENCE, TOO_MANY, LEFT };

KERNEL(selftest_barrier_mistake, 32, const uint8_t* x, int mistake) {
  DYNAMIC_SHARED(start);
  const Tiles tiles(start);
  if (threadIdx.x == 0 && mistake != NOT_INITIALISED) {
    barrier_init(tiles.barrier, 1);
    if (mistake != NO_INIT_FENCE) barrier_init_fence();
  }
  __syncthreads();
  if (threadIdx.x == 0 && mistake != NEVER) {
    barrier_expect(tiles.barrier, 16);
    bulk_copy(tiles.a, x, 16, tiles.barrier);
    if (mistake == TOO_MANY) barrier_arrive(tiles.barrier);
  }
  if (mistake != LEFT) barrier_wait(tiles.barrier, 0);
}

enum PartMistake { IN_TURN, NOT_PASSED, NOT_TAKEN, OTHER_COUNT, NUMBER_0 };

KERNEL(selftest_part_mistake, 64, int mistake) {
  const int warp = threadIdx.x / 32;
  const bool passes = warp == 0 && mistake != NOT_PASSED, takes = warp == 1 && mistake != NOT_TAKEN;
  if (passes) part_arrive(mistake == NUMBER_0 ? 0 : 1, mistake == OTHER_COUNT ? 32 * 3 : 64);
  if (takes) part_wait(1, 64);
}
