// Elementwise functions, by the numbers that wan-cuda's `Function` gives them.
#pragma once

#include "kernel.cuh"

enum Activation : int { IDENTITY = 0, GELU_TANH = 1, GELU_ERF = 2, SILU = 3 };

__device__ __forceinline__ float activate(float x, int activation) {
  switch (activation) {
    case GELU_TANH: {
      // 0.5 (1 + tanh(u)) = 1 / (1 + exp(-2 u))
      const float u = 0.7978845608f * (x + 0.044715f * x * x * x);
      return x / (1.0f + expf(-2.0f * u));
    }
    case GELU_ERF:
      return 0.5f * x * (1.0f + erff(0.7071067812f * x));
    case SILU:
      return x / (1.0f + expf(-x));
    default:
      return x;
  }
}
