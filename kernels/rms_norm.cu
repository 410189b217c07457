// RMS normalisation of rows, then, where a table is given, rotation of the adjacent pairs of each head.
#include "common/row.cuh"

// One row a block: y = x rsqrt(mean(x²) + eps) weight of x = row_scale x + bias (null: 1, 0). `rope` (null: none): for
// every row `head` floats, the (cos, sin) of the head's pairs, the same for all heads; `dim` is a multiple of `head`,
// `head` of 2.
template <class T>
__device__ __forceinline__ void rms_norm(const T* __restrict__ x, const float* __restrict__ row_scale,
                                         const float* __restrict__ bias, const float* __restrict__ weight,
                                         const float* __restrict__ rope, T* __restrict__ y, int dim, int head,
                                         float eps) {
  SHARED(float, partial, [WARP_SIZE]);
  const int64_t first = int64_t(blockIdx.x) * dim;
  RawRow<T> raw;
  RawRow<float> weights;
  raw.load(x + first, dim);
  weights.load(weight, dim);
  Row row;
  row.take(raw);
  row.scale(scale_of(row_scale, blockIdx.x), bias, dim);
  const float mean = row.sum(partial, [](float v) { return v * v; }) / dim;
  const float inverse = rsqrtf(mean + eps);
#pragma unroll
  for (int c = 0; c < CHUNKS; c++) {
#pragma unroll
    for (int i = 0; i < GROUP; i++) row.v[c][i] *= inverse * weights.value(c, i);
  }
  if (rope) {
    const float* table = rope + int64_t(blockIdx.x) * head;
    const bool packed = groups_fit(table, head);
#pragma unroll
    for (int c = 0; c < CHUNKS; c++) {
      if (chunk_start(c) >= dim) continue;
      float angles[GROUP];
      int column = chunk_start(c) % head;
      if (packed) {
        load_group(angles, table, column, head, true);
      } else {
#pragma unroll
        for (int i = 0; i < GROUP; i++) {
          angles[i] = table[column];
          column = column + 1 < head ? column + 1 : 0;
        }
      }
#pragma unroll
      for (int i = 0; i < GROUP; i += 2) {
        const float re = row.v[c][i], im = row.v[c][i + 1];
        row.v[c][i] = re * angles[i] - im * angles[i + 1];
        row.v[c][i + 1] = re * angles[i + 1] + im * angles[i];
      }
    }
  }
  row.store(y + first, dim);
}

#define RMS_NORM(T)                                                                                   \
  KERNEL(rms_norm_##T, ROW_THREADS, const T* x, const float* row_scale, const float* bias, const float* weight, \
         const float* rope, T* y, int dim, int head, float eps) {                                     \
    rms_norm<T>(x, row_scale, bias, weight, rope, y, dim, head, eps);                                 \
  }
RMS_NORM(f32)
RMS_NORM(bf16)
RMS_NORM(f16)
