// Stored weights to a compute type: y = code * scale, rows of `dim` values.
#include "common/row.cuh"

// `scale`: null, or factors `scale_stride` apart for each row: 0 for one factor of all, 1 for one a row. One group a
// thread; a row's groups fill whole blocks, so that a block has one row.
template <class From, class To>
__device__ __forceinline__ void dequantise(const From* __restrict__ codes, const float* __restrict__ scale,
                                           To* __restrict__ y, int64_t dim, int blocks_per_row, int scale_stride) {
  const int64_t row = blockIdx.x / blocks_per_row;
  const int64_t at = (int64_t(blockIdx.x % blocks_per_row) * blockDim.x + threadIdx.x) * GROUP;
  if (at >= dim) return;
  const bool packed = groups_fit(codes, dim) && groups_fit(y, dim);
  float v[GROUP];
  load_group(v, codes + row * dim, at, dim, packed);
  if (scale) {
    const float factor = scale[row * scale_stride];
#pragma unroll
    for (int i = 0; i < GROUP; i++) v[i] *= factor;
  }
  store_group(y + row * dim, at, dim, packed, v);
}

#define DEQUANTISE(From, To)                                                                        \
  KERNEL(dequantise_##From##_##To, 256, const From* codes, const float* scale, To* y, int64_t dim,  \
         int blocks_per_row, int scale_stride) {                                                    \
    dequantise<From, To>(codes, scale, y, dim, blocks_per_row, scale_stride);                       \
  }
DEQUANTISE(e4m3, bf16)
DEQUANTISE(e4m3, f16)
DEQUANTISE(e4m3, f32)
DEQUANTISE(f16, bf16)
DEQUANTISE(f16, f32)
DEQUANTISE(bf16, f16)
DEQUANTISE(bf16, f32)
DEQUANTISE(f32, bf16)
DEQUANTISE(f32, f16)
