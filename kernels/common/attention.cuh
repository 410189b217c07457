// What the attention kernels share.
#pragma once

#include "kernel.cuh"
#include "ptx.cuh"

// Exponentials are taken to base 2: this goes into the scale.
constexpr float LOG2_E = 1.4426950408889634f;

// q: l tokens, k and v: s tokens; a token's heads lie behind each other, tokens at distances ld* (in values).
template <class T>
struct AttentionInputs {
  const T *q, *k, *v;
  int64_t ldq, ldk, ldv;
  int l, s;
  float scale;
  bool add;  // to what the output holds
};

__device__ __forceinline__ uint32_t pack(bf16, float low, float high) { return pack_bf16(low, high); }
__device__ __forceinline__ uint32_t pack(f16, float low, float high) { return pack_f16(low, high); }

// One row of a lane's fragments of scores. Four lanes share a row.
struct SoftmaxRow {
  float most = -INFINITY;  // score, before scaling
  float total = 0.0f;      // of this lane's weights

  // Turns scores into weights 2^((score - most) factor); returns what shrinks the weights and values summed before.
  // `score(i)` is the i-th of COUNT places.
  template <int COUNT, class Score>
  __device__ __forceinline__ float weigh(Score score, float factor) {
    float rise = most;
#pragma unroll
    for (int i = 0; i < COUNT; i++) rise = fmaxf(rise, score(i));
    rise = fmaxf(rise, __shfl_xor_sync(FULL_WARP, rise, 1));
    rise = fmaxf(rise, __shfl_xor_sync(FULL_WARP, rise, 2));
    // Rounded products, or the compiler takes the difference of one that is and one that is not: then a largest score
    // that stays would still shrink what was summed before, a little at every tile.
    const float base = __fmul_rn(rise, factor);
    const float shrink = exp2_approx(__fmul_rn(most, factor) - base);
    most = rise;
    float weights = 0.0f;
#pragma unroll
    for (int i = 0; i < COUNT; i++) {
      score(i) = exp2_approx(score(i) * factor - base);
      weights += score(i);
    }
    total = total * shrink + weights;
    return shrink;
  }
};

// Writes a lane's part of a row of results, or adds it: channels 8n + 2t and the next of D, the sums of row h (0: g, 1:
// g + 8) of a product of fragments, divided by the sum of weights and multiplied by `scale(channel)`. `total` is this
// lane's part of that sum; every lane calls this, and rows that do not exist have `inside` false.
template <int D, class T, class Sum, class Scale>
__device__ __forceinline__ void store_row(T* to, float total, bool inside, bool add, const Sum& sum,
                                          const Scale& scale) {
  total += __shfl_xor_sync(FULL_WARP, total, 1);
  total += __shfl_xor_sync(FULL_WARP, total, 2);
  if (!inside) return;
  const float inverse = 1.0f / total;
#pragma unroll
  for (int n = 0; n < D / 8; n++) {
    const int channel = n * 8 + threadIdx.x % 4 * 2;
    Pack<T, 2> pair = {};
    if (add) pair = load_pack<T, 2>(to + channel);
#pragma unroll
    for (int i = 0; i < 2; i++) {
      const float before = add ? to_float(pair.values[i]) : 0.0f;
      pair.values[i] = from_float<T>(before + sum(n, i) * inverse * scale(channel + i));
    }
    store_pack(to + channel, pair);
  }
}
template <int D, class T, class Sum>
__device__ __forceinline__ void store_row(T* to, float total, bool inside, bool add, const Sum& sum) {
  store_row<D>(to, total, inside, add, sum, [](int) { return 1.0f; });
}
