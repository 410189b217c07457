// Instructions that CUDA C++ has no name for, one function each. All inline PTX of the kernels is in this file;
// with WAN_SHIM each function is its emulation.
//
// Fragments of a warp's matrix instructions (PTX ISA, "Matrix Fragments for mma.m16n8k16/k32"); lane = 4 g + t:
//   16-bit, a[4]: row g (a0, a2) or g + 8 (a1, a3), columns 2t, 2t+1 (a0, a1) or 2t+8, 2t+9 (a2, a3)
//           b[2]: column g, rows 2t, 2t+1 (b0) or 2t+8, 2t+9 (b1)
//    8-bit, a[4]: row g (a0, a2) or g + 8 (a1, a3), columns 4t .. 4t+3 (a0, a1) or 16+4t .. 16+4t+3 (a2, a3)
//           b[2]: column g, rows 4t .. 4t+3 (b0) or 16+4t .. 16+4t+3 (b1)
//   32-bit, d[4]: row g (d0, d1) or g + 8 (d2, d3), columns 2t (d0, d2) and 2t+1 (d1, d3)
#pragma once

#include "kernel.cuh"
#ifdef WAN_SHIM
#include "../shim/matrix.h"
#endif

#ifndef WAN_SHIM
// The 32-bit address of a place in shared memory.
__device__ __forceinline__ uint32_t shared_address(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}
#endif

// Starts copying 16 bytes from global to shared memory, past the L1 cache; with `valid` false writes zeros and
// reads nothing (`from` must still be an address that could be read).
__device__ __forceinline__ void cp_async16(void* to, const void* from, bool valid = true) {
#ifdef WAN_SHIM
  shim::copy_async(to, from, valid ? 16 : 0, valid ? 0 : 16);
#else
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(shared_address(to)), "l"(from),
               "r"(valid ? 16 : 0)
               : "memory");
#endif
}

// As cp_async16, through the L1 cache: for data that the same multiprocessor soon reads again.
__device__ __forceinline__ void cp_async16_cached(void* to, const void* from, bool valid = true) {
#ifdef WAN_SHIM
  shim::copy_async(to, from, valid ? 16 : 0, valid ? 0 : 16);
#else
  asm volatile("cp.async.ca.shared.global [%0], [%1], 16, %2;\n" ::"r"(shared_address(to)), "l"(from),
               "r"(valid ? 16 : 0)
               : "memory");
#endif
}

// Closes the group of the copies started since the last one.
__device__ __forceinline__ void cp_async_commit() {
#ifdef WAN_SHIM
  shim::copy_commit();
#else
  asm volatile("cp.async.commit_group;\n" ::: "memory");
#endif
}

// Waits until at most GROUPS of this thread's groups are under way; other threads see the data after a barrier.
template <int GROUPS>
__device__ __forceinline__ void cp_async_wait() {
#ifdef WAN_SHIM
  shim::copy_wait(GROUPS);
#else
  asm volatile("cp.async.wait_group %0;\n" ::"n"(GROUPS) : "memory");
#endif
}

// Four 8x8 matrices of 16-bit values from shared memory. Lanes 8i .. 8i+7 give the rows of matrix i (16 bytes each,
// aligned to 16); r[i] is then row lane / 4, columns 2 (lane % 4) and the next of matrix i.
__device__ __forceinline__ void ldmatrix_x4(uint32_t (&r)[4], const void* row) {
#ifdef WAN_SHIM
  shim::load_matrix<4, false>(r, row);
#else
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
#endif
}

// As ldmatrix_x4, each matrix transposed: r[i] is rows 2 (lane % 4) and the next, column lane / 4.
__device__ __forceinline__ void ldmatrix_x4_trans(uint32_t (&r)[4], const void* row) {
#ifdef WAN_SHIM
  shim::load_matrix<4, true>(r, row);
#else
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
#endif
}

// Two 8x8 matrices, their rows from lanes 0 .. 15.
__device__ __forceinline__ void ldmatrix_x2(uint32_t (&r)[2], const void* row) {
#ifdef WAN_SHIM
  shim::load_matrix<2, false>(r, row);
#else
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];\n"
               : "=r"(r[0]), "=r"(r[1])
               : "r"(shared_address(row))
               : "memory");
#endif
}

// As ldmatrix_x2, each matrix transposed.
__device__ __forceinline__ void ldmatrix_x2_trans(uint32_t (&r)[2], const void* row) {
#ifdef WAN_SHIM
  shim::load_matrix<2, true>(r, row);
#else
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];\n"
               : "=r"(r[0]), "=r"(r[1])
               : "r"(shared_address(row))
               : "memory");
#endif
}

// d += a b: 16x16 and 16x8 bf16, sums f32.
__device__ __forceinline__ void mma_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
#ifdef WAN_SHIM
  shim::multiply<shim::Bf16Cells>(d, a, b);
#else
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};\n"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

// d += a b: 16x16 and 16x8 f16, sums f32.
__device__ __forceinline__ void mma_f16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
#ifdef WAN_SHIM
  shim::multiply<shim::F16Cells>(d, a, b);
#else
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};\n"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

// d += a b: 16x16 and 16x8 f16, sums f16; d[0] holds row g, d[1] row g + 8, columns 2t and 2t+1.
__device__ __forceinline__ void mma_f16_f16(uint32_t (&d)[2], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
#ifdef WAN_SHIM
  shim::multiply_f16<shim::F16Cells>(d, a, b);
#else
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f16.f16.f16.f16 {%0, %1}, {%2, %3, %4, %5}, {%6, %7}, {%0, %1};\n"
      : "+r"(d[0]), "+r"(d[1])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

// d += a b: 16x32 and 32x8 int8, sums int32.
__device__ __forceinline__ void mma_s8(int (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
#ifdef WAN_SHIM
  shim::multiply<shim::S8Cells>(d, a, b);
#else
  asm volatile(
      "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};\n"
      : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

// d += a b: 16x32 and 32x8 e4m3, sums f16, laid out as in mma_f16_f16. Traps below 8.9, which has none.
__device__ __forceinline__ void mma_e4m3_f16(uint32_t (&d)[2], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
#ifdef WAN_SHIM
  shim::multiply_f16<shim::E4m3Cells>(d, a, b);
#elif __CUDA_ARCH__ >= 890
  asm volatile(
      "mma.sync.aligned.m16n8k32.row.col.f16.e4m3.e4m3.f16 {%0, %1}, {%2, %3, %4, %5}, {%6, %7}, {%0, %1};\n"
      : "+r"(d[0]), "+r"(d[1])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  (void)d, (void)a, (void)b;
  __trap();
#endif
}

// 2^x to about 2 units in the last place; subnormal results are 0.
__device__ __forceinline__ float exp2_approx(float x) {
#ifdef WAN_SHIM
  return exp2f(x);
#else
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;\n" : "=f"(y) : "f"(x));
  return y;
#endif
}

// 1 / x to about 1 unit in the last place.
__device__ __forceinline__ float rcp_approx(float x) {
#ifdef WAN_SHIM
  return 1.0f / x;
#else
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;\n" : "=f"(y) : "f"(x));
  return y;
#endif
}
