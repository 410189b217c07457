// Instructions of compute capability 9.0 alone (PTX ISA, "Asynchronous Warpgroup Level Matrix Instructions" and
// "mbarrier"), one function each; with WAN_SHIM each is its emulation, as in ptx.cuh. A warpgroup is 4 warps, the first of
// which has a number divisible by 4.
#pragma once

#include "ptx.cuh"
#ifdef WAN_SHIM
#include "../shim/hopper.h"
using shim::shared_address;
#endif

// Barriers in shared memory: a phase ends when `arrivals` threads have arrived and the bytes announced have come.
__device__ __forceinline__ void barrier_init(uint64_t* barrier, int arrivals) {
#ifdef WAN_SHIM
  shim::phase_init(barrier, arrivals);
#else
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;\n" ::"r"(shared_address(barrier)), "r"(arrivals) : "memory");
#endif
}

// Makes initialised barriers known to asynchronous copies; a __syncthreads() must follow.
__device__ __forceinline__ void barrier_init_fence() {
#ifdef WAN_SHIM
  shim::fence_phases();
#else
  asm volatile("fence.mbarrier_init.release.cluster;\n" ::: "memory");
#endif
}

// Arrives, and announces bytes.
__device__ __forceinline__ void barrier_expect(uint64_t* barrier, int bytes) {
#ifdef WAN_SHIM
  shim::phase_arrive(barrier, bytes);
#else
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;\n" ::"r"(shared_address(barrier)), "r"(bytes)
               : "memory");
#endif
}

__device__ __forceinline__ void barrier_arrive(uint64_t* barrier) {
#ifdef WAN_SHIM
  shim::phase_arrive(barrier, 0);
#else
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];\n" ::"r"(shared_address(barrier)) : "memory");
#endif
}

// Waits for the end of the phase of the given parity: the first phase has 0. Parity 1 of a new barrier has ended.
__device__ __forceinline__ void barrier_wait(uint64_t* barrier, int parity) {
#ifdef WAN_SHIM
  shim::phase_wait(barrier, parity, shim::Site{__FILE__, __LINE__, "barrier_wait"});
#else
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "again:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@!done bra again;\n"
      "}\n" ::"r"(shared_address(barrier)),
      "r"(parity)
      : "memory");
#endif
}

// Makes this thread's writes to shared memory known to products, once it has told others of them.
__device__ __forceinline__ void fence_shared_writes() {
#ifdef WAN_SHIM
  shim::publish_shared();
#else
  asm volatile("fence.proxy.async.shared::cta;\n" ::: "memory");
#endif
}

// Barriers of some of a block's warps, numbered from 1: one ends when `threads` threads have come, whether or not they
// wait.
__device__ __forceinline__ void part_wait(int number, int threads) {
#ifdef WAN_SHIM
  shim::part_barrier(number, threads, true, shim::Site{__FILE__, __LINE__, "part_wait"});
#else
  asm volatile("bar.sync %0, %1;\n" ::"r"(number), "r"(threads) : "memory");
#endif
}
__device__ __forceinline__ void part_arrive(int number, int threads) {
#ifdef WAN_SHIM
  shim::part_barrier(number, threads, false, shim::Site{__FILE__, __LINE__, "part_arrive"});
#else
  asm volatile("bar.arrive %0, %1;\n" ::"r"(number), "r"(threads) : "memory");
#endif
}

// Starts copying `bytes` (a multiple of 16) to shared memory, from and to multiples of 16.
__device__ __forceinline__ void bulk_copy(void* to, const void* from, int bytes, uint64_t* barrier) {
#ifdef WAN_SHIM
  shim::phase_copy(to, from, bytes, barrier);
#else
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];\n" ::"r"(
                   shared_address(to)),
               "l"(from), "r"(bytes), "r"(shared_address(barrier))
               : "memory");
#endif
}

// Registers of each thread of this warpgroup from here on.
template <int COUNT>
__device__ __forceinline__ void take_registers() {
#ifdef WAN_SHIM
  __syncwarp();
#else
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;\n" ::"n"(COUNT));
#endif
}
template <int COUNT>
__device__ __forceinline__ void give_registers() {
#ifdef WAN_SHIM
  __syncwarp();
#else
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;\n" ::"n"(COUNT));
#endif
}

// Descriptors of a matrix in shared memory, of rows of 128 or 64 bytes in a swizzle of as many: 8-row groups lie behind each
// other, piece p (16 bytes) of row r at p ^ (r % 8), or p ^ (r / 2 % 4). `row` lies at a multiple of 1024 bytes, or 512.
template <int ROW_BYTES>
__device__ __forceinline__ uint64_t swizzled_descriptor(const void* row, int leading) {
  static_assert(ROW_BYTES == 128 || ROW_BYTES == 64, "");
  const uint64_t address = (shared_address(row) & 0x3ffff) >> 4;
  constexpr uint64_t STRIDE = 8 * ROW_BYTES >> 4;  // from 8 rows to the next
  constexpr uint64_t SWIZZLE = ROW_BYTES == 128 ? 1 : 2;
  return address | uint64_t(leading >> 4) << 16 | STRIDE << 32 | SWIZZLE << 62;
}

// Rows along which is summed; a step of 32 bytes along them adds DESCRIPTOR_STEP.
template <int ROW_BYTES = 128>
__device__ __forceinline__ uint64_t matrix_descriptor(const void* row) {
  constexpr int UNUSED = 16;  // with these swizzles
  return swizzled_descriptor<ROW_BYTES>(row, UNUSED);
}
constexpr uint64_t DESCRIPTOR_STEP = 32 >> 4;

// Rows over which is summed, of 64 columns in 16 bits each; the next 64 columns lie `leading` bytes further on. A step of
// 16 rows adds TRANSPOSED_STEP.
__device__ __forceinline__ uint64_t transposed_descriptor(const void* row, int leading) {
  return swizzled_descriptor<128>(row, leading);
}
constexpr uint64_t TRANSPOSED_STEP = 16 * 128 >> 4;

// Orders register accesses before the warpgroup's next product.
__device__ __forceinline__ void wgmma_fence() {
#ifdef WAN_SHIM
  shim::fence_products();
#else
  asm volatile("wgmma.fence.sync.aligned;\n" ::: "memory");
#endif
}

// Closes the group of the products started since the last one.
__device__ __forceinline__ void wgmma_commit() {
#ifdef WAN_SHIM
  shim::commit_products();
#else
  asm volatile("wgmma.commit_group.sync.aligned;\n" ::: "memory");
#endif
}

// Waits until at most GROUPS groups are under way.
template <int GROUPS>
__device__ __forceinline__ void wgmma_wait() {
#ifdef WAN_SHIM
  shim::wait_products(GROUPS, shim::Site{__FILE__, __LINE__, "wgmma_wait"});
#else
  asm volatile("wgmma.wait_group.sync.aligned %0;\n" ::"n"(GROUPS) : "memory");
#endif
}

// Keeps the compiler from moving uses of registers across this place: products write them unseen. Places with numbers of
// their own stay apart where two branches both end with one.
template <int PLACE = 0, class Bits, int N>
__device__ __forceinline__ void pin(Bits (&d)[N]) {
#ifdef WAN_SHIM
  (void)d;
#else
#pragma unroll
  for (int i = 0; i < N; i++) asm volatile("// %1" : "+r"(d[i]) : "n"(PLACE) : "memory");
#endif
}
template <int PLACE = 0, int N>
__device__ __forceinline__ void pin(float (&d)[N]) {
#ifdef WAN_SHIM
  (void)d;
#else
#pragma unroll
  for (int i = 0; i < N; i++) asm volatile("// %1" : "+f"(d[i]) : "n"(PLACE) : "memory");
#endif
}

// Sums of a warpgroup's 64 x 128 (or 96) products: thread 32 w + 4 g + t holds in d[4 n + 2 h + i] row 16 w + g + 8 h,
// column 8 n + 2 t + i. Operands 0 .. 63 (or 47) of each product.
#define SUMS_0_TO_47                                                                                   \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "                             \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "                   \
  "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47"
#define SUMS_TEXT_96 "{" SUMS_0_TO_47 "}"
#define SUMS_TEXT                                                                                      \
  "{" SUMS_0_TO_47 ", %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}"
#define EIGHT_SUMS(kind, d, i)                                                                         \
  kind(d[i]), kind(d[i + 1]), kind(d[i + 2]), kind(d[i + 3]), kind(d[i + 4]), kind(d[i + 5]), kind(d[i + 6]), \
      kind(d[i + 7])
#define SUMS_OPERANDS_96(kind, d)                                                                               \
  EIGHT_SUMS(kind, d, 0), EIGHT_SUMS(kind, d, 8), EIGHT_SUMS(kind, d, 16), EIGHT_SUMS(kind, d, 24),    \
      EIGHT_SUMS(kind, d, 32), EIGHT_SUMS(kind, d, 40)
#define SUMS_OPERANDS(kind, d) SUMS_OPERANDS_96(kind, d), EIGHT_SUMS(kind, d, 48), EIGHT_SUMS(kind, d, 56)

// d = a bT, or d += a bT: 64 and 128 rows of 32 int8 in shared memory, sums int32.
__device__ __forceinline__ void wgmma_s8(int (&d)[64], uint64_t a, uint64_t b, bool add) {
#ifdef WAN_SHIM
  shim::multiply_group<shim::S8Cells>(d, nullptr, a, b, {add, false});
#else
  asm volatile(
      "{\n"
      ".reg .pred add;\n"
      "setp.ne.b32 add, %66, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k32.s32.s8.s8 " SUMS_TEXT ", %64, %65, add;\n"
      "}\n"
      : SUMS_OPERANDS("+r", d)
      : "l"(a), "l"(b), "r"(int(add)));
#endif
}

// d = a bT, or d += a bT: 64 rows of 32 e4m3 in registers (those of a warp as in mma_e4m3_f16), 128 in shared memory, sums
// f32 of fewer bits inside of the product.
__device__ __forceinline__ void wgmma_e4m3(float (&d)[64], const uint32_t (&a)[4], uint64_t b, bool add) {
#ifdef WAN_SHIM
  shim::multiply_group<shim::E4m3Cells>(d, a, 0, b, {add, false});
#else
  asm volatile(
      "{\n"
      ".reg .pred add;\n"
      "setp.ne.b32 add, %69, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k32.f32.e4m3.e4m3 " SUMS_TEXT ", {%64, %65, %66, %67}, %68, add, 1, 1;\n"
      "}\n"
      : SUMS_OPERANDS("+f", d)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(int(add)));
#endif
}

// For T bf16 and f16, sums f32:
// wgmma_scores: d = a bT, or d += a bT: 64 and 128 rows of 16 values in shared memory.
// wgmma_values: d += a b: 64 rows of 16 values in registers (those of a warp as in mma_bf16), 16 rows of 128 in shared
// memory (transposed_descriptor).
// wgmma_outputs: d += a bT: 64 rows of 16 values in registers, 96 in shared memory.
#ifdef WAN_SHIM
#define WGMMA_HALF(T, CELLS, NAME)                                                                               \
  __device__ __forceinline__ void wgmma_scores(T, float (&d)[64], uint64_t a, uint64_t b, bool add) {            \
    shim::multiply_group<shim::CELLS>(d, nullptr, a, b, {add, false});                                           \
  }                                                                                                              \
  __device__ __forceinline__ void wgmma_values(T, float (&d)[64], const uint32_t (&a)[4], uint64_t b) {          \
    shim::multiply_group<shim::CELLS>(d, a, 0, b, {true, true});                                                 \
  }                                                                                                              \
  __device__ __forceinline__ void wgmma_outputs(T, float (&d)[48], const uint32_t (&a)[4], uint64_t b) {         \
    shim::multiply_group<shim::CELLS>(d, a, 0, b, {true, false});                                                \
  }
#else
#define WGMMA_HALF(T, CELLS, NAME)                                                                               \
  __device__ __forceinline__ void wgmma_scores(T, float (&d)[64], uint64_t a, uint64_t b, bool add) {            \
    asm volatile(                                                                                                \
        "{\n"                                                                                                    \
        ".reg .pred add;\n"                                                                                      \
        "setp.ne.b32 add, %66, 0;\n"                                                                             \
        "wgmma.mma_async.sync.aligned.m64n128k16.f32." NAME "." NAME " " SUMS_TEXT ", %64, %65, add, 1, 1, 0, 0;\n" \
        "}\n"                                                                                                    \
        : SUMS_OPERANDS("+f", d)                                                                                          \
        : "l"(a), "l"(b), "r"(int(add)));                                                                        \
  }                                                                                                              \
  __device__ __forceinline__ void wgmma_values(T, float (&d)[64], const uint32_t (&a)[4], uint64_t b) {          \
    asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32." NAME "." NAME " " SUMS_TEXT                      \
                 ", {%64, %65, %66, %67}, %68, 1, 1, 1, 1;\n"                                                    \
                 : SUMS_OPERANDS("+f", d)                                                                                 \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));                                          \
  }                                                                                                              \
  __device__ __forceinline__ void wgmma_outputs(T, float (&d)[48], const uint32_t (&a)[4], uint64_t b) {         \
    asm volatile("wgmma.mma_async.sync.aligned.m64n96k16.f32." NAME "." NAME " " SUMS_TEXT_96                    \
                 ", {%48, %49, %50, %51}, %52, 1, 1, 1, 0;\n"                                                    \
                 : SUMS_OPERANDS_96("+f", d)                                                                              \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));                                          \
  }
#endif
WGMMA_HALF(bf16, Bf16Cells, "bf16")
WGMMA_HALF(f16, F16Cells, "f16")
