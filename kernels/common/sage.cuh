// 8-bit attention (Zhang et al., SageAttention2, arXiv 2411.10958): how q, k and v lie in memory, and the arithmetic of
// its scores. head_dim 128.
//
// q and k: int8, 128 tokens of a head to a tile; v: e4m3, a tile is 128 channels of 128 tokens. Such a tile is 128 rows of
// 128 bytes, which are 8 pieces of 16; piece p of row r lies at p ^ (r % 8). That is the 128-byte swizzle of Hopper's
// matrix descriptors, so that a tile is copied to shared memory as it is, and ldmatrix finds no bank twice. Tokens past
// the end are zero.
//
// The tokens of a row of v are permuted in groups of 16, so that the sums of scores, once rounded to e4m3, are already
// the operand that multiplies v: a lane's sums of 16 keys are keys 2t, 2t+1, 2t+8, 2t+9, and its bytes of the operand
// are columns 4t .. 4t+3.
//
// Or v is f16, 128 tokens of 128 channels to a tile: rows of 16 pieces, piece p of row r at p ^ (r % 8).
//
// A query has one scale (that of the softmax and log2 e included). The keys of a tile have four, one for those that a
// lane meets: key % 8 / 2 is the lane's t. Then the scores of a lane and a row differ by integers times one factor.
#pragma once

#include "attention.cuh"

constexpr int SAGE_DIM = 128;
constexpr int SAGE_TOKENS = 128;
constexpr int SAGE_TILE = SAGE_TOKENS * SAGE_DIM;
constexpr int SAGE_F16_TILE = SAGE_TOKENS * SAGE_DIM * 2;
constexpr int SAGE_KEY_SCALES = 4;

// Byte of a tile at which piece `piece` of row `row` lies.
__device__ __forceinline__ int sage_piece(int row, int piece) { return row * SAGE_DIM + (piece ^ (row % 8)) * 16; }

// The same of v in f16.
__device__ __forceinline__ int sage_f16_piece(int row, int piece) {
  return row * SAGE_DIM * 2 + (piece ^ (row % 8)) * 16;
}

// Column of token `token` of 0 .. 127 in the rows of v.
__device__ __forceinline__ int sage_column(int token) {
  return token / 16 * 16 + token % 8 / 2 * 4 + token % 16 / 8 * 2 + token % 2;
}

// 1.5 * 2^23 as a float, and its bits: an integer below 2^22 that is added to the bits is added to the float, so that no
// conversion is needed.
constexpr int SCORE_ZERO = 0x4b400000;
constexpr float SCORE_ZERO_FLOAT = 12582912.0f;
// A sum that no score can be, below all, for keys past the end.
constexpr int SCORE_NONE = -(1 << 22);
static_assert(SAGE_DIM * 127 * 127 < -SCORE_NONE, "a product of int8");

// The largest weight, to base 2, where weights are rounded to e4m3: all of the format is used.
constexpr float LOG2_E4M3_MAX = 8.807354922f;

// The largest weight in f16, also to base 2, and the largest values beside either kind of weight where 64 products are
// summed in f16. Values beside e4m3 weights that are summed in f32 use all of e4m3.
constexpr float SAGE_F16_WEIGHT = 32.0f, SAGE_F16_TOP = 5.0f;
constexpr float SAGE_F16_VALUE = 31.5f;
constexpr float SAGE_E4M3_F16_VALUE = 2.25f;

// One row of a lane's scores.
struct SageRow {
  float most = -INFINITY;  // score
  float total = 0.0f;      // of this lane's weights
  float shrink;            // what is summed before a tile counts that much beside it

  // First takes a tile's largest sum, then turns its sums into weights 2^(score - most + top) (as the bits of floats).
  // `factor`: from sums to scores; `sum(i)` is the i-th of COUNT places.
  template <int COUNT, bool MASKED, class Sum>
  __device__ __forceinline__ void rise(const Sum& sum, float factor, float top);
  template <int COUNT, bool MASKED, class Sum>
  __device__ __forceinline__ void weigh(const Sum& sum);

 private:
  float factor, base;  // a weight's exponent is factor (SCORE_ZERO_FLOAT + sum) - base
};

template <int COUNT, bool MASKED, class Sum>
__device__ __forceinline__ void SageRow::rise(const Sum& sum, float factor, float top) {
  int largest = sum(0);
#pragma unroll
  for (int i = 1; i < COUNT; i++) largest = max(largest, int(sum(i)));
  float rise = (__int_as_float(largest + SCORE_ZERO) - SCORE_ZERO_FLOAT) * factor;
  if (MASKED && largest == SCORE_NONE) rise = -INFINITY;
  rise = fmaxf(rise, __shfl_xor_sync(FULL_WARP, rise, 1));
  rise = fmaxf(rise, __shfl_xor_sync(FULL_WARP, rise, 2));
  rise = fmaxf(rise, most);
  this->factor = factor;
  // Rounding moves this by at most three quarters of a step of the sums.
  base = SCORE_ZERO_FLOAT * factor + (rise - top);
  shrink = exp2_approx(most - rise);
  most = rise;
}

template <int COUNT, bool MASKED, class Sum>
__device__ __forceinline__ void SageRow::weigh(const Sum& sum) {
  float weights = 0.0f;
#pragma unroll
  for (int i = 0; i < COUNT; i++) {
    float weight = exp2_approx(__int_as_float(sum(i) + SCORE_ZERO) * factor - base);
    if (MASKED && sum(i) == SCORE_NONE) weight = 0.0f;
    weights += weight;
    sum(i) = __float_as_int(weight);
  }
  total = total * shrink + weights;
}
