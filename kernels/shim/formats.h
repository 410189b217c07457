// bf16, f16 and e4m3 on the host, bit for bit as the GPU converts them: to nearest, ties to even.
#pragma once

#include <math.h>
#include <stdint.h>
#include <string.h>

namespace shim {

struct bf16 {
  uint16_t bits;
};
struct f16 {
  uint16_t bits;
};

template <class To, class From>
inline To bits_as(From x) {
  static_assert(sizeof(To) == sizeof(From), "");
  To to;
  memcpy(&to, &x, sizeof(to));
  return to;
}

inline float bf16_to_float(uint16_t code) { return bits_as<float>(uint32_t(code) << 16); }

inline uint16_t float_to_bf16(float x) {
  const uint32_t bits = bits_as<uint32_t>(x);
  if (isnan(x)) return 0x7fff;
  return uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

// A float of `EXPONENT` and `MANTISSA` bits whose magnitude is below its overflow: normal numbers are cut by the
// bits, subnormal ones by adding a number whose last place is theirs.
template <int EXPONENT, int MANTISSA>
inline uint32_t narrow_magnitude(uint32_t magnitude) {
  constexpr int BIAS = (1 << (EXPONENT - 1)) - 1;
  constexpr int DROPPED = 23 - MANTISSA;
  if (magnitude < uint32_t(127 - BIAS + 1) << 23) {
    const float magic = bits_as<float>(uint32_t(127 - BIAS + 1 + DROPPED) << 23);
    return bits_as<uint32_t>(bits_as<float>(magnitude) + magic) - bits_as<uint32_t>(magic);
  }
  const uint32_t odd = magnitude >> DROPPED & 1;
  return (magnitude - (uint32_t(127 - BIAS) << 23) + ((1u << (DROPPED - 1)) - 1) + odd) >> DROPPED;
}

inline uint16_t float_to_f16(float x) {
  const uint32_t bits = bits_as<uint32_t>(x), magnitude = bits & 0x7fffffff;
  const uint32_t sign = bits >> 16 & 0x8000;
  if (magnitude > 0x7f800000) return 0x7fff;
  if (magnitude >= 0x477ff000) return uint16_t(sign | 0x7c00);  // 65520 and above
  return uint16_t(sign | narrow_magnitude<5, 10>(magnitude));
}

inline float f16_to_float(uint16_t code) {
  const uint32_t sign = uint32_t(code & 0x8000) << 16, magnitude = code & 0x7fff;
  uint32_t bits;
  if (magnitude >= 0x7c00) {
    bits = magnitude << 13 | 0x7f800000;
  } else if (magnitude >= 0x0400) {
    bits = (magnitude << 13) + ((127u - 15) << 23);
  } else {
    bits = bits_as<uint32_t>(float(magnitude) * 0x1p-24f);
  }
  return bits_as<float>(bits | sign);
}

// Saturating, as cvt.rn.satfinite.e4m3x2.f32: infinity becomes the largest value, NaN stays NaN.
inline uint8_t float_to_e4m3(float x) {
  const uint32_t bits = bits_as<uint32_t>(x), magnitude = bits & 0x7fffffff;
  const uint32_t sign = bits >> 24 & 0x80;
  if (magnitude > 0x7f800000) return 0x7f;
  const uint32_t code = magnitude >= 0x43e00000 ? 0x7e : narrow_magnitude<4, 3>(magnitude);  // 448
  return uint8_t(sign | code);
}

inline float e4m3_to_float(uint8_t code) {
  const uint32_t sign = uint32_t(code & 0x80) << 24, magnitude = code & 0x7f;
  uint32_t bits;
  if (magnitude == 0x7f) {
    bits = 0x7fc00000;
  } else if (magnitude >= 0x08) {
    bits = (magnitude << 20) + ((127u - 7) << 23);
  } else {
    bits = bits_as<uint32_t>(float(magnitude) * 0x1p-9f);
  }
  return bits_as<float>(bits | sign);
}

}  // namespace shim
