// ldmatrix and mma.sync of a warp, from the fragment layouts stated in ../common/ptx.cuh.
#pragma once

#include <stdint.h>

#include "formats.h"
#include "runtime.h"

namespace shim {

// How a format's values lie in a fragment register.
struct Bf16Cells {
  static constexpr int PER_WORD = 2;
  using Value = float;
  static float read(uint32_t word, int i) { return bf16_to_float(uint16_t(word >> 16 * i)); }
};
struct F16Cells {
  static constexpr int PER_WORD = 2;
  using Value = float;
  static float read(uint32_t word, int i) { return f16_to_float(uint16_t(word >> 16 * i)); }
};
struct S8Cells {
  static constexpr int PER_WORD = 4;
  using Value = int;
  static int read(uint32_t word, int i) { return int8_t(word >> 8 * i); }
};
struct E4m3Cells {
  static constexpr int PER_WORD = 4;
  using Value = float;
  static float read(uint32_t word, int i) { return e4m3_to_float(uint8_t(word >> 8 * i)); }
};

// What a lane brings to a matrix product.
template <class Sum>
struct Operands {
  Sum* d;
  const uint32_t *a, *b;
};

// The product of the fragments in `slots`: row-major 16x8.
template <class Cells, class Sum>
inline void product(void* const* slots, typename Cells::Value (&sums)[16][8]) {
  constexpr int PER = Cells::PER_WORD, DEPTH = 8 * PER;
  typename Cells::Value a[16][DEPTH], b[DEPTH][8];
  for (int lane = 0; lane < 32; lane++) {
    if (!slots[lane]) fail("mma: lane %d takes no part", lane);
    const auto* operands = static_cast<const Operands<Sum>*>(slots[lane]);
    const int g = lane / 4, t = lane % 4;
    for (int word = 0; word < 4; word++) {
      const int row = g + 8 * (word % 2), column = 4 * PER * (word / 2) + PER * t;
      for (int i = 0; i < PER; i++) a[row][column + i] = Cells::read(operands->a[word], i);
    }
    for (int word = 0; word < 2; word++) {
      for (int i = 0; i < PER; i++) b[4 * PER * word + PER * t + i][g] = Cells::read(operands->b[word], i);
    }
  }
  for (int row = 0; row < 16; row++) {
    for (int column = 0; column < 8; column++) sums[row][column] = 0;
    for (int k = 0; k < DEPTH; k++) {
      for (int column = 0; column < 8; column++) sums[row][column] += a[row][k] * b[k][column];
    }
  }
}

// d += a b with 32-bit sums.
template <class Cells, class Sum>
inline void multiply(Sum (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                     Site site = {__builtin_FILE(), __builtin_LINE(), "mma"}) {
  Operands<Sum> operands = {d, a, b};
  collective(0xffffffffu, site, &operands, [](void* const* slots) {
    typename Cells::Value sums[16][8];
    product<Cells, Sum>(slots, sums);
    for (int lane = 0; lane < 32; lane++) {
      Sum* d = static_cast<Operands<Sum>*>(slots[lane])->d;
      for (int i = 0; i < 4; i++) d[i] += sums[lane / 4 + 8 * (i / 2)][2 * (lane % 4) + i % 2];
    }
  });
}

// d += a b with f16 sums, two to a register.
template <class Cells>
inline void multiply_f16(uint32_t (&d)[2], const uint32_t (&a)[4], const uint32_t (&b)[2],
                         Site site = {__builtin_FILE(), __builtin_LINE(), "mma"}) {
  Operands<uint32_t> operands = {d, a, b};
  collective(0xffffffffu, site, &operands, [](void* const* slots) {
    float sums[16][8];
    product<Cells, uint32_t>(slots, sums);
    for (int lane = 0; lane < 32; lane++) {
      uint32_t* d = static_cast<Operands<uint32_t>*>(slots[lane])->d;
      for (int i = 0; i < 2; i++) {
        const float* row = &sums[lane / 4 + 8 * i][2 * (lane % 4)];
        const uint32_t low = float_to_f16(f16_to_float(uint16_t(d[i])) + row[0]);
        const uint32_t high = float_to_f16(f16_to_float(uint16_t(d[i] >> 16)) + row[1]);
        d[i] = low | high << 16;
      }
    }
  });
}

// COUNT 8x8 matrices of 16-bit values.
template <int COUNT, bool TRANSPOSED>
inline void load_matrix(uint32_t (&r)[COUNT], const void* row,
                        Site site = {__builtin_FILE(), __builtin_LINE(), "ldmatrix"}) {
  struct Slot {
    uint32_t* r;
    const uint16_t* row;
  } slot = {r, static_cast<const uint16_t*>(row)};
  if (current->linear % 32 < 8 * COUNT) {
    check_aligned(row, 16, "ldmatrix");
    check_shared(row, 16, "ldmatrix");
  }
  collective(0xffffffffu, site, &slot, [](void* const* slots) {
    for (int lane = 0; lane < 32; lane++) {
      for (int i = 0; i < COUNT; i++) {
        const auto at = [&](int row, int column) -> uint32_t {
          return static_cast<const Slot*>(slots[8 * i + row])->row[column];
        };
        const int g = lane / 4, t = lane % 4;
        const uint32_t low = TRANSPOSED ? at(2 * t, g) : at(g, 2 * t);
        const uint32_t high = TRANSPOSED ? at(2 * t + 1, g) : at(g, 2 * t + 1);
        static_cast<Slot*>(slots[lane])->r[i] = low | high << 16;
      }
    }
  });
}

}  // namespace shim
