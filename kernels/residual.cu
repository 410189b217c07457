// The residual stream: x' = x + gate (row_scale y + bias), alone or with the layer norm of x' in the same pass.
#include "common/row.cuh"

// One row a block. `y` null: x' = x; `gate`, `row_scale` null: 1; `bias` null: 0; `sum` null: x' is not written;
// `factor` null: no affine part, else normed * (factor + factor_offset) + summand. `scale` is used only where the normed
// row is e4m3: one factor for each row. What is normalised is x' in f32, before it is rounded to x's type.
template <class X, class Y, class N>
__device__ __forceinline__ void residual_layer_norm(const X* x, const Y* __restrict__ y,
                                                    const float* __restrict__ row_scale,
                                                    const float* __restrict__ bias,
                                                    const float* __restrict__ gate, X* sum,
                                                    N* __restrict__ normed, float* __restrict__ scale,
                                                    const float* __restrict__ factor,
                                                    const float* __restrict__ summand, float factor_offset,
                                                    int dim, float eps) {
  SHARED(float, partial, [WARP_SIZE]);
  const int64_t first = int64_t(blockIdx.x) * dim;
  RawRow<X> raw;
  RawRow<Y> raw_added;
  raw.load(x + first, dim);
  raw_added.load(y ? y + first : nullptr, dim);
  Row row;
  row.take(raw);
  if (y) {
    const float factor = scale_of(row_scale, blockIdx.x);
#pragma unroll
    for (int c = 0; c < CHUNKS; c++) {
      float added[GROUP], gates[GROUP];
#pragma unroll
      for (int i = 0; i < GROUP; i++) added[i] = raw_added.value(c, i);
      scale_group(added, factor, bias, chunk_start(c), dim);
      if (gate) load_group(gates, gate, chunk_start(c), dim, groups_fit(gate, dim));
#pragma unroll
      for (int i = 0; i < GROUP; i++) row.v[c][i] += gate ? gates[i] * added[i] : added[i];
    }
  }
  if (sum) row.store(sum + first, dim);

  // Mean first, then squared distances from it: no cancellation.
  const float mean = row.sum(partial, [](float v) { return v; }) / dim;
  row.shift(-mean, dim);
  const float variance = row.sum(partial, [](float v) { return v * v; }) / dim;
  const float inverse = rsqrtf(variance + eps);
#pragma unroll
  for (int c = 0; c < CHUNKS; c++) {
#pragma unroll
    for (int i = 0; i < GROUP; i++) row.v[c][i] *= inverse;
    if (factor) {
      float factors[GROUP], summands[GROUP];
      load_group(factors, factor, chunk_start(c), dim, groups_fit(factor, dim));
      load_group(summands, summand, chunk_start(c), dim, groups_fit(summand, dim));
#pragma unroll
      for (int i = 0; i < GROUP; i++) {
        row.v[c][i] = row.v[c][i] * (factors[i] + factor_offset) + summands[i];
      }
    }
  }
  if constexpr (sizeof(N) == 1) {
    row.store_quantised(normed + first, scale + blockIdx.x, dim, partial);
  } else {
    row.store(normed + first, dim);
  }
}

#define RESIDUAL_LAYER_NORM(X, Y, N)                                                                        \
  KERNEL(residual_layer_norm_##X##_##Y##_##N, ROW_THREADS, const X* x, const Y* y, const float* row_scale,         \
         const float* bias, const float* gate, X* sum,                                                      \
         N* normed, float* scale, const float* factor, const float* summand, float factor_offset, int dim,  \
         float eps) {                                                                                       \
    residual_layer_norm<X, Y, N>(x, y, row_scale, bias, gate, sum, normed, scale, factor, summand, factor_offset, dim, eps); \
  }
RESIDUAL_LAYER_NORM(f32, f32, f32)
RESIDUAL_LAYER_NORM(f32, f32, bf16)
RESIDUAL_LAYER_NORM(f32, f32, f16)
RESIDUAL_LAYER_NORM(f32, f32, e4m3)
RESIDUAL_LAYER_NORM(f32, bf16, f32)
RESIDUAL_LAYER_NORM(f32, bf16, bf16)
RESIDUAL_LAYER_NORM(f32, bf16, e4m3)
RESIDUAL_LAYER_NORM(f32, f16, f32)
RESIDUAL_LAYER_NORM(f32, f16, f16)
RESIDUAL_LAYER_NORM(f32, f16, e4m3)
RESIDUAL_LAYER_NORM(bf16, bf16, bf16)
RESIDUAL_LAYER_NORM(bf16, bf16, e4m3)
RESIDUAL_LAYER_NORM(f16, f16, f16)

// x + gate (row_scale y + bias) for rows of `dim`; null: 1, 1, 0. One group a thread.
template <class X, class Y>
__device__ __forceinline__ void gated_residual(const X* x, const Y* __restrict__ y,
                                               const float* __restrict__ row_scale, const float* __restrict__ bias,
                                               const float* __restrict__ gate, X* sum, int64_t rows,
                                               int dim) {
  const int groups = (dim + GROUP - 1) / GROUP;
  const int64_t thread = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  const int64_t row = thread / groups;
  const int at = int(thread - row * groups) * GROUP;
  if (row >= rows) return;
  const bool packed = groups_fit(x, dim) && groups_fit(y, dim) && groups_fit(sum, dim);
  float v[GROUP], added[GROUP];
  load_group(v, x + row * dim, at, dim, packed);
  load_group(added, y + row * dim, at, dim, packed);
  scale_group(added, scale_of(row_scale, row), bias, at, dim);
  if (gate) {
    float g[GROUP];
    load_group(g, gate, at, dim, groups_fit(gate, dim));
#pragma unroll
    for (int i = 0; i < GROUP; i++) added[i] *= g[i];
  }
#pragma unroll
  for (int i = 0; i < GROUP; i++) v[i] += added[i];
  store_group(sum + row * dim, at, dim, packed, v);
}

#define GATED_RESIDUAL(X, Y)                                                                             \
  KERNEL(gated_residual_##X##_##Y, 256, const X* x, const Y* y, const float* row_scale, const float* bias, \
         const float* gate, X* sum, int64_t rows, int dim) {                                             \
    gated_residual<X, Y>(x, y, row_scale, bias, gate, sum, rows, dim);                                                    \
  }
GATED_RESIDUAL(f32, f32)
GATED_RESIDUAL(f32, bf16)
GATED_RESIDUAL(f32, f16)
GATED_RESIDUAL(bf16, bf16)
GATED_RESIDUAL(f16, f16)
