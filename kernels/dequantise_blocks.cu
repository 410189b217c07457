// GGUF's quantised blocks to a compute type. Layouts: ggml's ggml-common.h.
//
// Blocks lie without gaps and have an even number of bytes each, so that everything in them is 2-byte aligned. Each thread
// opens GROUP values, which share their factors in every format. Products of a factor and a code are exact in f32, so that
// each value is rounded once whether or not the compiler fuses the operations.
#include "common/row.cuh"

__device__ __forceinline__ float factor(const uint8_t* p) { return to_float(*reinterpret_cast<const f16*>(p)); }

// GROUP bytes.
struct Codes {
  uint16_t pairs[GROUP / 2];

  __device__ __forceinline__ explicit Codes(const uint8_t* p) {
#pragma unroll
    for (int i = 0; i < GROUP / 2; i++) pairs[i] = reinterpret_cast<const uint16_t*>(p)[i];
  }
  __device__ __forceinline__ int operator[](int i) const { return (pairs[i / 2] >> (i % 2 * 8)) & 0xff; }
};

// Formats of 32 values with codes of 4 bits: code i in the low half of byte i, code i + 16 in its high half. A fifth
// bit of all 32 is in a word of their own.
template <int HEADER, bool HAS_FIFTH, bool HAS_OFFSET>
struct Nibbles {
  static constexpr int VALUES = 32, BYTES = HEADER + 16;

  __device__ static __forceinline__ void open(const uint8_t* block, int at, float (&v)[GROUP]) {
    const float scale = factor(block);
    const Codes codes(block + HEADER + at % 16);
    const int shift = at / 16 * 4;
    const int fifth = HAS_FIFTH ? block[HEADER - 4 + at / 8] : 0;
#pragma unroll
    for (int i = 0; i < GROUP; i++) {
      const int code = ((codes[i] >> shift) & 15) | ((fifth >> i) & 1) << 4;
      v[i] = HAS_OFFSET ? scale * float(code) + factor(block + 2) : scale * float(code - (HAS_FIFTH ? 16 : 8));
    }
  }
};

using q4_0 = Nibbles<2, false, false>;
using q4_1 = Nibbles<4, false, true>;
using q5_0 = Nibbles<6, true, false>;
using q5_1 = Nibbles<8, true, true>;

struct q8_0 {
  static constexpr int VALUES = 32, BYTES = 34;

  __device__ static __forceinline__ void open(const uint8_t* block, int at, float (&v)[GROUP]) {
    const float scale = factor(block);
    const Codes codes(block + 2 + at);
#pragma unroll
    for (int i = 0; i < GROUP; i++) v[i] = scale * float(int8_t(codes[i]));
  }
};

// The formats of 256 values. Those of 2 bits (and the upper 2 bits of 6) have four quarters of 32 values in each 32
// bytes, one above the other.
__device__ __forceinline__ int quarter(int at) { return at % 128 / 32; }

struct q2_k {
  static constexpr int VALUES = 256, BYTES = 84;

  __device__ static __forceinline__ void open(const uint8_t* block, int at, float (&v)[GROUP]) {
    const uint8_t both = block[at / 16];
    const float scale = factor(block + 80) * float(both & 15), offset = factor(block + 82) * float(both >> 4);
    const Codes codes(block + 16 + at / 128 * 32 + at % 32);
    const int shift = 2 * quarter(at);
#pragma unroll
    for (int i = 0; i < GROUP; i++) v[i] = scale * float((codes[i] >> shift) & 3) - offset;
  }
};

struct q3_k {
  static constexpr int VALUES = 256, BYTES = 110;

  __device__ static __forceinline__ void open(const uint8_t* block, int at, float (&v)[GROUP]) {
    const int part = at / 16;
    const uint8_t* scales = block + 96;
    const int low = part < 8 ? scales[part] & 15 : scales[part - 8] >> 4;
    const int high = (scales[8 + part % 4] >> (part / 4 * 2)) & 3;
    const float scale = factor(block + 108) * float((low | high << 4) - 32);
    const Codes third(block + at % 32), codes(block + 32 + at / 128 * 32 + at % 32);
    const int shift = 2 * quarter(at), bit = at / 32;
#pragma unroll
    for (int i = 0; i < GROUP; i++) {
      // A third bit that is not set takes 4 off.
      v[i] = scale * float(((codes[i] >> shift) & 3) + ((third[i] >> bit) & 1) * 4 - 4);
    }
  }
};

// Scales and minima of 32 values each, 6 bits a number: those of the first four parts in the low bits of bytes 0 to 7, those
// of the others in bytes 8 to 11 and the upper bits of the first eight.
__device__ __forceinline__ void six_bits(const uint8_t* packed, int part, float& scale, float& offset) {
  int s, m;
  if (part < 4) {
    s = packed[part] & 63;
    m = packed[part + 4] & 63;
  } else {
    s = (packed[part + 4] & 15) | (packed[part - 4] >> 6) << 4;
    m = (packed[part + 4] >> 4) | (packed[part] >> 6) << 4;
  }
  scale *= float(s);
  offset *= float(m);
}

// 4 bits a code, and a fifth in 32 bytes of their own.
template <bool HAS_FIFTH>
struct LongNibbles {
  static constexpr int VALUES = 256, BYTES = HAS_FIFTH ? 176 : 144;

  __device__ static __forceinline__ void open(const uint8_t* block, int at, float (&v)[GROUP]) {
    const int part = at / 32;
    float scale = factor(block), offset = factor(block + 2);
    six_bits(block + 4, part, scale, offset);
    const Codes codes(block + (HAS_FIFTH ? 48 : 16) + at / 64 * 32 + at % 32);
    const Codes fifth(block + 16 + at % 32);
    const int shift = part % 2 * 4;
#pragma unroll
    for (int i = 0; i < GROUP; i++) {
      int code = (codes[i] >> shift) & 15;
      if (HAS_FIFTH) code |= ((fifth[i] >> part) & 1) << 4;
      v[i] = scale * float(code) - offset;
    }
  }
};

using q4_k = LongNibbles<false>;
using q5_k = LongNibbles<true>;

struct q6_k {
  static constexpr int VALUES = 256, BYTES = 210;

  __device__ static __forceinline__ void open(const uint8_t* block, int at, float (&v)[GROUP]) {
    const float scale = factor(block + 208) * float(int8_t(block[192 + at / 16]));
    const int half = at / 128, fourth = quarter(at);
    const Codes low(block + 64 * half + fourth % 2 * 32 + at % 32), high(block + 128 + 32 * half + at % 32);
    const int low_shift = fourth / 2 * 4, high_shift = 2 * fourth;
#pragma unroll
    for (int i = 0; i < GROUP; i++) {
      v[i] = scale * float((((low[i] >> low_shift) & 15) | ((high[i] >> high_shift) & 3) << 4) - 32);
    }
  }
};

// `count` values, whole blocks of them.
template <class Format, class To>
__device__ __forceinline__ void dequantise_blocks(const uint8_t* __restrict__ blocks, To* __restrict__ y, int64_t count) {
  const int64_t at = (int64_t(blockIdx.x) * blockDim.x + threadIdx.x) * GROUP;
  if (at >= count) return;
  float v[GROUP];
  Format::open(blocks + at / Format::VALUES * Format::BYTES, int(at % Format::VALUES), v);
  store_group(y, at, count, groups_fit(y, GROUP), v);
}

#define DEQUANTISE(Format, To)                                                                \
  KERNEL(dequantise_##Format##_##To, 256, const uint8_t* blocks, To* y, int64_t count) {      \
    dequantise_blocks<Format, To>(blocks, y, count);                                          \
  }
#define DEQUANTISE_TO_ALL(Format) DEQUANTISE(Format, bf16) DEQUANTISE(Format, f16) DEQUANTISE(Format, f32)
DEQUANTISE_TO_ALL(q4_0)
DEQUANTISE_TO_ALL(q4_1)
DEQUANTISE_TO_ALL(q5_0)
DEQUANTISE_TO_ALL(q5_1)
DEQUANTISE_TO_ALL(q8_0)
DEQUANTISE_TO_ALL(q2_k)
DEQUANTISE_TO_ALL(q3_k)
DEQUANTISE_TO_ALL(q4_k)
DEQUANTISE_TO_ALL(q5_k)
DEQUANTISE_TO_ALL(q6_k)
