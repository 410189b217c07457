// RMS normalisation of a row in the registers of a block, and rotation of the adjacent pairs of its heads.
#pragma once

#include "row.cuh"

// What is normalised, and how: rows of row_scale x + bias (null: 1, 0). `rope` (null: none): for every row `head` floats,
// the (cos, sin) of the head's pairs, the same for all heads; `dim` is a multiple of `head`, `head` of 2.
template <class T>
struct RmsNorm {
  const T* x;
  const float *row_scale, *bias, *weight, *rope;
  int dim, head;
  float eps;

  // `row` = x rsqrt(mean(x²) + eps) weight of row `index`, rotated.
  __device__ __forceinline__ void apply(Row& row, int64_t index, float* partial) const {
    RawRow<T> raw;
    RawRow<float> weights;
    raw.load(x + index * dim, dim);
    weights.load(weight, dim);
    row.take(raw);
    row.scale(scale_of(row_scale, index), bias, dim);
    const float mean = row.sum(partial, [](float v) { return v * v; }) / dim;
    const float inverse = rsqrtf(mean + eps);
#pragma unroll
    for (int c = 0; c < CHUNKS; c++) {
#pragma unroll
      for (int i = 0; i < GROUP; i++) row.v[c][i] *= inverse * weights.value(c, i);
    }
    if (rope) rotate(row, rope + index * head);
  }

 private:
  __device__ __forceinline__ void rotate(Row& row, const float* table) const {
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
};
