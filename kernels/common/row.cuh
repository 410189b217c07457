// A row of values held in the registers of one block: what kernels do that read a row once and need statistics of
// all of it. Each thread has up to CHUNKS groups of GROUP neighbouring values; chunk c of thread t starts at
// (c * threads + t) * GROUP.
#pragma once

#include "kernel.cuh"

constexpr int GROUP = 8;

// Whether groups of rows of `stride` values from `p` on can be read as packs.
template <class T>
__device__ __forceinline__ bool groups_fit(const T* p, int64_t stride) {
  constexpr int BYTES = GROUP * sizeof(T) < 16 ? GROUP * sizeof(T) : 16;
  return reinterpret_cast<uintptr_t>(p) % BYTES == 0 && stride % GROUP == 0;
}

// Values `at` .. `at + GROUP` of a row of `dim`, zeros past its end; `packed` promises groups_fit.
template <class T>
__device__ __forceinline__ void load_group(float (&v)[GROUP], const T* row, int64_t at, int64_t dim, bool packed) {
  constexpr int PER = GROUP * sizeof(T) < 16 ? GROUP : 16 / int(sizeof(T));
  if (packed && at < dim) {
#pragma unroll
    for (int i = 0; i < GROUP; i += PER) {
      const Pack<T, PER> pack = load_pack<T, PER>(row + at + i);
#pragma unroll
      for (int j = 0; j < PER; j++) v[i + j] = to_float(pack.values[j]);
    }
  } else {
#pragma unroll
    for (int i = 0; i < GROUP; i++) v[i] = at + i < dim ? to_float(row[at + i]) : 0.0f;
  }
}

// Writes the values of a group that lie inside of a row of `dim`.
template <class T>
__device__ __forceinline__ void store_group(T* row, int64_t at, int64_t dim, bool packed, const float (&v)[GROUP]) {
  constexpr int PER = GROUP * sizeof(T) < 16 ? GROUP : 16 / int(sizeof(T));
  if (packed && at < dim) {
#pragma unroll
    for (int i = 0; i < GROUP; i += PER) {
      Pack<T, PER> pack;
#pragma unroll
      for (int j = 0; j < PER; j++) pack.values[j] = from_float<T>(v[i + j]);
      store_pack(row + at + i, pack);
    }
  } else {
#pragma unroll
    for (int i = 0; i < GROUP; i++) {
      if (at + i < dim) row[at + i] = from_float<T>(v[i]);
    }
  }
}

// A group as scale v + bias; `bias` (of a row of `dim`; null: 0).
__device__ __forceinline__ void scale_group(float (&v)[GROUP], float scale, const float* bias, int64_t at, int64_t dim) {
#pragma unroll
  for (int i = 0; i < GROUP; i++) v[i] *= scale;
  if (!bias) return;
  float b[GROUP];
  load_group(b, bias, at, dim, groups_fit(bias, dim));
#pragma unroll
  for (int i = 0; i < GROUP; i++) v[i] += b[i];
}

// One factor a row; null: 1.
__device__ __forceinline__ float scale_of(const float* row_scale, int64_t row) { return row_scale ? row_scale[row] : 1.0f; }

constexpr int CHUNKS = 2;
// Most threads of a block; fewer than 1024, which would leave each of them 64 registers: too few for the norms.
constexpr int ROW_THREADS = 896;

struct Row {
  float v[CHUNKS][GROUP];

  static __device__ __forceinline__ int at(int chunk) { return (chunk * blockDim.x + threadIdx.x) * GROUP; }

  template <class T>
  __device__ __forceinline__ void load(const T* row, int dim) {
    const bool packed = groups_fit(row, dim);
#pragma unroll
    for (int c = 0; c < CHUNKS; c++) load_group(v[c], row, at(c), dim, packed);
  }

  // What scale_group does, for the whole row.
  __device__ __forceinline__ void scale(float scale, const float* bias, int dim) {
#pragma unroll
    for (int c = 0; c < CHUNKS; c++) scale_group(v[c], scale, bias, at(c), dim);
  }

  template <class T>
  __device__ __forceinline__ void store(T* row, int dim) const {
    const bool packed = groups_fit(row, dim);
#pragma unroll
    for (int c = 0; c < CHUNKS; c++) store_group(row, at(c), dim, packed, v[c]);
  }

  // Replaces each value inside the row by f(value, its column).
  template <class F>
  __device__ __forceinline__ void map(int dim, const F& f) {
#pragma unroll
    for (int c = 0; c < CHUNKS; c++) {
#pragma unroll
      for (int i = 0; i < GROUP; i++) {
        if (at(c) + i < dim) v[c][i] = f(v[c][i], at(c) + i);
      }
    }
  }

  // Sum of f(value) over the row, in every thread.
  template <class F>
  __device__ __forceinline__ float sum(int dim, float* partial, const F& f) const {
    float total = 0.0f;
#pragma unroll
    for (int c = 0; c < CHUNKS; c++) {
#pragma unroll
      for (int i = 0; i < GROUP; i++) total += at(c) + i < dim ? f(v[c][i]) : 0.0f;
    }
    return block_sum(total, partial);
  }

  // Rounds the row to e4m3 with the scale that maps its largest magnitude to the format's; writes codes and scale
  // (value = code * scale). A row of zeros has scale 1.
  __device__ __forceinline__ void store_quantised(e4m3* row, float* scale, int dim, float* partial) {
    float largest = 0.0f;
#pragma unroll
    for (int c = 0; c < CHUNKS; c++) {
#pragma unroll
      for (int i = 0; i < GROUP; i++) largest = at(c) + i < dim ? fmaxf(largest, fabsf(v[c][i])) : largest;
    }
    largest = block_max(largest, partial);
    const float step = largest > 0.0f ? largest / E4M3_MAX : 1.0f;
    const float inverse = 1.0f / step;
#pragma unroll
    for (int c = 0; c < CHUNKS; c++) {
#pragma unroll
      for (int i = 0; i < GROUP; i++) v[c][i] *= inverse;
    }
    store(row, dim);
    if (threadIdx.x == 0) *scale = step;
  }
};
