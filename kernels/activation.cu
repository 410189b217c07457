// act(scale x + bias) over rows: an activation alone, or what follows a matrix product.
#include "common/activation.cuh"
#include "common/row.cuh"

// `row_scale` (one factor a row; null: 1), `bias` (one summand a column; null: 0). One group a thread; a row's
// groups fill whole blocks, so that a block has one row.
template <class T>
__device__ __forceinline__ void activate_rows(const T* x, const float* __restrict__ row_scale,
                                              const float* __restrict__ bias, T* y, int64_t dim,
                                              int blocks_per_row, int activation) {
  const int64_t row = blockIdx.x / blocks_per_row;
  const int64_t at = (int64_t(blockIdx.x % blocks_per_row) * blockDim.x + threadIdx.x) * GROUP;
  if (at >= dim) return;
  const bool packed = groups_fit(x, dim) && groups_fit(y, dim);
  float v[GROUP];
  load_group(v, x + row * dim, at, dim, packed);
  scale_group(v, scale_of(row_scale, row), bias, at, dim);
  with_activation(activation, [&v](const auto& function) {
#pragma unroll
    for (int i = 0; i < GROUP; i++) v[i] = function(v[i]);
  });
  store_group(y + row * dim, at, dim, packed, v);
}

#define ACTIVATE(T)                                                                                     \
  KERNEL(activate_##T, 256, const T* x, const float* row_scale, const float* bias, T* y, int64_t dim,   \
         int blocks_per_row, int activation) {                                                          \
    activate_rows<T>(x, row_scale, bias, y, dim, blocks_per_row, activation);                           \
  }
ACTIVATE(f32)
ACTIVATE(bf16)
ACTIVATE(f16)

// The same with the result in e4m3 and one scale a row; one row a block. With no scale, no bias and IDENTITY it
// quantises rows.
template <class T>
__device__ __forceinline__ void activate_quantise(const T* __restrict__ x, const float* __restrict__ row_scale,
                                                  const float* __restrict__ bias, e4m3* __restrict__ codes,
                                                  float* __restrict__ scale, int dim, int activation) {
  SHARED(float, partial, [WARP_SIZE]);
  const int64_t first = int64_t(blockIdx.x) * dim;
  RawRow<T> raw;
  raw.load(x + first, dim);
  Row row;
  row.take(raw);
  row.scale(scale_of(row_scale, blockIdx.x), bias, dim);
  with_activation(activation, [&row](const auto& function) { row.map(function); });
  row.store_quantised(codes + first, scale + blockIdx.x, dim, partial);
}

// Two blocks of the longest rows on a multiprocessor, where it has the threads: one computes while the other waits.
#define ACTIVATE_QUANTISE(T)                                                                         \
  KERNEL_OCCUPANCY(activate_quantise_##T, ROW_THREADS, ROW_BLOCKS, const T* x,                       \
                   const float* row_scale, const float* bias, e4m3* codes, float* scale, int dim,    \
                   int activation) {                                                                 \
    activate_quantise<T>(x, row_scale, bias, codes, scale, dim, activation);                         \
  }
ACTIVATE_QUANTISE(f32)
ACTIVATE_QUANTISE(bf16)
ACTIVATE_QUANTISE(f16)
