// Number formats: bf16, f16 and e4m3, their conversions (round to nearest even), and 16-byte packs.
#pragma once

#ifdef WAN_SHIM
using bf16 = shim::bf16;
using f16 = shim::f16;
#else
using bf16 = __nv_bfloat16;
using f16 = __half;
#endif

using f32 = float;

// FP8 with 4 exponent and 3 mantissa bits, no infinity, largest value 448 (OCP OFP8's E4M3, torch's float8_e4m3fn).
struct e4m3 {
  uint8_t bits;
};

constexpr float E4M3_MAX = 448.0f;
constexpr float F16_MAX = 65504.0f;

__device__ __forceinline__ float to_float(float x) { return x; }

#ifdef WAN_SHIM
__device__ __forceinline__ float to_float(bf16 x) { return shim::bf16_to_float(x.bits); }
__device__ __forceinline__ float to_float(f16 x) { return shim::f16_to_float(x.bits); }
__device__ __forceinline__ float to_float(e4m3 x) { return shim::e4m3_to_float(x.bits); }
#else
__device__ __forceinline__ float to_float(bf16 x) { return __bfloat162float(x); }
__device__ __forceinline__ float to_float(f16 x) { return __half2float(x); }
__device__ __forceinline__ float to_float(e4m3 x) {
  return __half2float(__half(__nv_cvt_fp8_to_halfraw(x.bits, __NV_E4M3)));
}
#endif

// Narrows to T; values beyond e4m3's range become its largest.
template <class T>
__device__ __forceinline__ T from_float(float x);
template <>
__device__ __forceinline__ float from_float<float>(float x) {
  return x;
}

#ifdef WAN_SHIM
template <>
__device__ __forceinline__ bf16 from_float<bf16>(float x) {
  return bf16{shim::float_to_bf16(x)};
}
template <>
__device__ __forceinline__ f16 from_float<f16>(float x) {
  return f16{shim::float_to_f16(x)};
}
template <>
__device__ __forceinline__ e4m3 from_float<e4m3>(float x) {
  return e4m3{shim::float_to_e4m3(x)};
}
#else
template <>
__device__ __forceinline__ bf16 from_float<bf16>(float x) {
  return __float2bfloat16_rn(x);
}
template <>
__device__ __forceinline__ f16 from_float<f16>(float x) {
  return __float2half_rn(x);
}
template <>
__device__ __forceinline__ e4m3 from_float<e4m3>(float x) {
  return e4m3{__nv_cvt_float_to_fp8(x, __NV_SATFINITE, __NV_E4M3)};
}
#endif

// N values that are read or written at once; N * sizeof(T) is 4, 8 or 16 bytes.
template <class T, int N = 16 / sizeof(T)>
struct alignas(N * sizeof(T)) Pack {
  static constexpr int COUNT = N;
  T values[N];
};

namespace pack_detail {
template <int BYTES>
struct Word;
template <>
struct Word<4> {
  using type = uint32_t;
};
template <>
struct Word<8> {
  using type = uint2;
};
template <>
struct Word<16> {
  using type = uint4;
};
}  // namespace pack_detail

// One load of N values; `from` must be aligned to the pack's size.
template <class T, int N = 16 / sizeof(T)>
__device__ __forceinline__ Pack<T, N> load_pack(const T* from) {
  using Word = typename pack_detail::Word<N * sizeof(T)>::type;
#ifdef WAN_SHIM
  shim::check_aligned(from, sizeof(Word), "load_pack");
#endif
  union {
    Word word;
    uint8_t bytes[sizeof(Word)];
  } raw;
  raw.word = *reinterpret_cast<const Word*>(from);
  Pack<T, N> pack;
  memcpy(&pack, raw.bytes, sizeof(Word));
  return pack;
}

// One store of N values; `to` must be aligned to the pack's size.
template <class T, int N>
__device__ __forceinline__ void store_pack(T* to, const Pack<T, N>& pack) {
  using Word = typename pack_detail::Word<N * sizeof(T)>::type;
#ifdef WAN_SHIM
  shim::check_aligned(to, sizeof(Word), "store_pack");
#endif
  Word word;
  memcpy(&word, &pack, sizeof(Word));
  *reinterpret_cast<Word*>(to) = word;
}

// Whether packs of N values may be read from `p` on, rows of `stride` values apart.
template <class T, int N = 16 / sizeof(T)>
__device__ __forceinline__ bool packs_fit(const T* p, int64_t stride) {
  return reinterpret_cast<uintptr_t>(p) % (N * sizeof(T)) == 0 && stride % N == 0;
}

// Two values in one register, `low` in the lower half: what tensor-core fragments hold.
__device__ __forceinline__ uint32_t pack_bf16(float low, float high) {
#ifdef WAN_SHIM
  return uint32_t(shim::float_to_bf16(low)) | uint32_t(shim::float_to_bf16(high)) << 16;
#else
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  uint32_t word;
  memcpy(&word, &pair, 4);
  return word;
#endif
}

__device__ __forceinline__ uint32_t pack_f16(float low, float high) {
#ifdef WAN_SHIM
  return uint32_t(shim::float_to_f16(low)) | uint32_t(shim::float_to_f16(high)) << 16;
#else
  const __half2 pair = __floats2half2_rn(low, high);
  uint32_t word;
  memcpy(&word, &pair, 4);
  return word;
#endif
}

// The low (0) or the high (1) one of two.
__device__ __forceinline__ float unpack_f16(uint32_t pair, int i) {
#ifdef WAN_SHIM
  return shim::f16_to_float(uint16_t(pair >> 16 * i));
#else
  __half2 both;
  memcpy(&both, &pair, 4);
  return i == 0 ? __low2float(both) : __high2float(both);
#endif
}

// Four e4m3 values in one register, the first in the lowest byte; saturating.
__device__ __forceinline__ uint32_t pack_e4m3(float a, float b, float c, float d) {
#ifdef WAN_SHIM
  return uint32_t(shim::float_to_e4m3(a)) | uint32_t(shim::float_to_e4m3(b)) << 8 |
         uint32_t(shim::float_to_e4m3(c)) << 16 | uint32_t(shim::float_to_e4m3(d)) << 24;
#elif __CUDA_ARCH__ >= 890
  uint32_t word;
  asm("{\n"
      ".reg .b16 low, high;\n"
      "cvt.rn.satfinite.e4m3x2.f32 low, %2, %1;\n"
      "cvt.rn.satfinite.e4m3x2.f32 high, %4, %3;\n"
      "mov.b32 %0, {low, high};\n"
      "}\n"
      : "=r"(word)
      : "f"(a), "f"(b), "f"(c), "f"(d));
  return word;
#else
  const uint32_t low = __nv_cvt_float2_to_fp8x2(make_float2(a, b), __NV_SATFINITE, __NV_E4M3);
  const uint32_t high = __nv_cvt_float2_to_fp8x2(make_float2(c, d), __NV_SATFINITE, __NV_E4M3);
  return low | high << 16;
#endif
}
