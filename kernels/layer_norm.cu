// Layer normalisation, one row a block: y = (x - mean) rsqrt(var + eps), then times (factor + factor_offset) plus
// summand where they are given. Statistics are f32 and of two passes (mean, then squared distances from it), the
// second one over the row's copy in shared memory.
#include "common/kernel.cuh"

template <class T>
__device__ __forceinline__ void layer_norm(const T* x, T* y,
                                           const float* __restrict__ factor, const float* __restrict__ summand,
                                           float factor_offset, int dim, float eps) {
  DYNAMIC_SHARED(shared);
  SHARED(float, partial, [WARP_SIZE]);
  float* row = reinterpret_cast<float*>(shared);
  constexpr int PER = Pack<T>::COUNT;
  x += int64_t(blockIdx.x) * dim;
  y += int64_t(blockIdx.x) * dim;
  const bool packed = packs_fit(x, dim) && packs_fit(y, dim);

  float sum = 0.0f;
  if (packed) {
    for (int i = threadIdx.x * PER; i < dim; i += blockDim.x * PER) {
      const Pack<T> pack = load_pack(x + i);
#pragma unroll
      for (int j = 0; j < PER; j++) {
        const float v = to_float(pack.values[j]);
        row[i + j] = v;
        sum += v;
      }
    }
  } else {
    for (int i = threadIdx.x; i < dim; i += blockDim.x) {
      const float v = to_float(x[i]);
      row[i] = v;
      sum += v;
    }
  }
  const float mean = block_sum(sum, partial) / dim;
  float squares = 0.0f;
  for (int i = threadIdx.x; i < dim; i += blockDim.x) {
    const float distance = row[i] - mean;
    squares += distance * distance;
  }
  const float inverse = rsqrtf(block_sum(squares, partial) / dim + eps);

  const auto normed = [&](int i) {
    const float n = (row[i] - mean) * inverse;
    return factor ? n * (factor[i] + factor_offset) + summand[i] : n;
  };
  if (packed) {
    for (int i = threadIdx.x * PER; i < dim; i += blockDim.x * PER) {
      Pack<T> pack;
#pragma unroll
      for (int j = 0; j < PER; j++) pack.values[j] = from_float<T>(normed(i + j));
      store_pack(y + i, pack);
    }
  } else {
    for (int i = threadIdx.x; i < dim; i += blockDim.x) y[i] = from_float<T>(normed(i));
  }
}

#define LAYER_NORM(T)                                                                                  \
  KERNEL(layer_norm_##T, 256, const T* x, T* y, const float* factor, const float* summand,             \
         float factor_offset, int dim, float eps) {                                                    \
    layer_norm<T>(x, y, factor, summand, factor_offset, dim, eps);                                     \
  }
LAYER_NORM(f32)
LAYER_NORM(bf16)
LAYER_NORM(f16)
