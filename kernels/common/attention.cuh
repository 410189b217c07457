// What the attention kernels share.
#pragma once

#include "kernel.cuh"

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
