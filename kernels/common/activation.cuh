// Elementwise functions, by the numbers that wan-cuda's `Function` gives them. Each maps 0 to 0.
#pragma once

#include "kernel.cuh"
#include "ptx.cuh"

enum Activation : int { IDENTITY = 0, GELU_TANH = 1, GELU_ERF = 2, SILU = 3 };

constexpr float LOG2_E = 1.44269504f;

template <int ACTIVATION>
__device__ __forceinline__ float activate(float x) {
  if constexpr (ACTIVATION == GELU_TANH) {
    // 0.5 (1 + tanh(u)) = 1 / (1 + exp(-2 u)) with u = sqrt(2 / pi) (x + 0.044715 x^3)
    constexpr float FACTOR = -2.0f * LOG2_E * 0.7978845608f;
    return x * rcp_approx(1.0f + exp2_approx(x * (FACTOR + FACTOR * 0.044715f * (x * x))));
  } else if constexpr (ACTIVATION == GELU_ERF) {
    return 0.5f * x * (1.0f + erff(0.7071067812f * x));
  } else {
    static_assert(ACTIVATION == SILU, "an activation");
    return x * rcp_approx(1.0f + exp2_approx(-LOG2_E * x));
  }
}

// Calls `use` with the function of that number, chosen once for all the values that `use` applies it to.
template <class Use>
__device__ __forceinline__ void with_activation(int activation, const Use& use) {
  switch (activation) {
    case GELU_TANH:
      return use([](float x) { return activate<GELU_TANH>(x); });
    case GELU_ERF:
      return use([](float x) { return activate<GELU_ERF>(x); });
    case SILU:
      return use([](float x) { return activate<SILU>(x); });
    default:
      return use([](float x) { return x; });
  }
}
