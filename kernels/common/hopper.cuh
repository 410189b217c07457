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

// Describes rows of 128 bytes in shared memory, 8-row groups behind each other, with the 128-byte swizzle: piece p (16
// bytes) of row r at p ^ (r % 8). `row` lies at a multiple of 1024 bytes; a step of 32 bytes along the rows adds 2.
__device__ __forceinline__ uint64_t matrix_descriptor(const void* row) {
  const uint64_t address = (shared_address(row) & 0x3ffff) >> 4;
  constexpr uint64_t LEADING = 1;         // unused with this swizzle
  constexpr uint64_t STRIDE = 1024 >> 4;  // from 8 rows to the next
  constexpr uint64_t SWIZZLE_128 = 1;
  return address | LEADING << 16 | STRIDE << 32 | SWIZZLE_128 << 62;
}
constexpr uint64_t DESCRIPTOR_STEP = 32 >> 4;

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

// Keeps the compiler from moving uses of registers across this place: products write them unseen.
template <int N>
__device__ __forceinline__ void pin(int (&d)[N]) {
#ifdef WAN_SHIM
  (void)d;
#else
#pragma unroll
  for (int i = 0; i < N; i++) asm volatile("" : "+r"(d[i])::"memory");
#endif
}
template <int N>
__device__ __forceinline__ void pin(float (&d)[N]) {
#ifdef WAN_SHIM
  (void)d;
#else
#pragma unroll
  for (int i = 0; i < N; i++) asm volatile("" : "+f"(d[i])::"memory");
#endif
}

// Sums of a warpgroup's 64 x 128 products: thread 32 w + 4 g + t holds in d[4 n + 2 h + i] row 16 w + g + 8 h,
// column 8 n + 2 t + i.

// d += a bT: 64 and 128 rows of 32 int8 in shared memory, sums int32.
__device__ __forceinline__ void wgmma_s8(int (&d)[64], uint64_t a, uint64_t b) {
#ifdef WAN_SHIM
  shim::multiply_group<shim::S8Cells>(d, nullptr, a, b, true);
#else
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n128k32.s32.s8.s8 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
      "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
      "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, %64, %65, 1;\n"
      : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3]), "+r"(d[4]), "+r"(d[5]), "+r"(d[6]), "+r"(d[7]),
        "+r"(d[8]), "+r"(d[9]), "+r"(d[10]), "+r"(d[11]), "+r"(d[12]), "+r"(d[13]), "+r"(d[14]), "+r"(d[15]),
        "+r"(d[16]), "+r"(d[17]), "+r"(d[18]), "+r"(d[19]), "+r"(d[20]), "+r"(d[21]), "+r"(d[22]), "+r"(d[23]),
        "+r"(d[24]), "+r"(d[25]), "+r"(d[26]), "+r"(d[27]), "+r"(d[28]), "+r"(d[29]), "+r"(d[30]), "+r"(d[31]),
        "+r"(d[32]), "+r"(d[33]), "+r"(d[34]), "+r"(d[35]), "+r"(d[36]), "+r"(d[37]), "+r"(d[38]), "+r"(d[39]),
        "+r"(d[40]), "+r"(d[41]), "+r"(d[42]), "+r"(d[43]), "+r"(d[44]), "+r"(d[45]), "+r"(d[46]), "+r"(d[47]),
        "+r"(d[48]), "+r"(d[49]), "+r"(d[50]), "+r"(d[51]), "+r"(d[52]), "+r"(d[53]), "+r"(d[54]), "+r"(d[55]),
        "+r"(d[56]), "+r"(d[57]), "+r"(d[58]), "+r"(d[59]), "+r"(d[60]), "+r"(d[61]), "+r"(d[62]), "+r"(d[63])
      : "l"(a), "l"(b));
#endif
}

// d = a bT, or d += a bT: 64 rows of 32 e4m3 in registers (those of a warp as in mma_e4m3), 128 in shared memory, sums
// f32 of fewer bits inside of the product.
__device__ __forceinline__ void wgmma_e4m3(float (&d)[64], const uint32_t (&a)[4], uint64_t b, bool add) {
#ifdef WAN_SHIM
  shim::multiply_group<shim::E4m3Cells>(d, a, 0, b, add);
#else
  asm volatile(
      "{\n"
      ".reg .pred add;\n"
      "setp.ne.b32 add, %69, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k32.f32.e4m3.e4m3 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
      "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
      "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, {%64, %65, %66, %67}, %68, add, 1, 1;\n"
      "}\n"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]),
        "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]),
        "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]),
        "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31]),
        "+f"(d[32]), "+f"(d[33]), "+f"(d[34]), "+f"(d[35]), "+f"(d[36]), "+f"(d[37]), "+f"(d[38]), "+f"(d[39]),
        "+f"(d[40]), "+f"(d[41]), "+f"(d[42]), "+f"(d[43]), "+f"(d[44]), "+f"(d[45]), "+f"(d[46]), "+f"(d[47]),
        "+f"(d[48]), "+f"(d[49]), "+f"(d[50]), "+f"(d[51]), "+f"(d[52]), "+f"(d[53]), "+f"(d[54]), "+f"(d[55]),
        "+f"(d[56]), "+f"(d[57]), "+f"(d[58]), "+f"(d[59]), "+f"(d[60]), "+f"(d[61]), "+f"(d[62]), "+f"(d[63])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(int(add)));
#endif
}
