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
    if constexpr (sizeof(T) == 1) {
      const uint32_t words[2] = {pack_e4m3(v[0], v[1], v[2], v[3]), pack_e4m3(v[4], v[5], v[6], v[7])};
      Pack<T, GROUP> pack;
      memcpy(&pack, words, GROUP);
      store_pack(row + at, pack);
    } else {
#pragma unroll
      for (int i = 0; i < GROUP; i += PER) {
        Pack<T, PER> pack;
#pragma unroll
        for (int j = 0; j < PER; j++) pack.values[j] = from_float<T>(v[i + j]);
        store_pack(row + at + i, pack);
      }
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
  if (groups_fit(bias, dim)) {
    float b[GROUP];
    load_group(b, bias, at, dim, true);
#pragma unroll
    for (int i = 0; i < GROUP; i++) v[i] += b[i];
  } else {
#pragma unroll
    for (int i = 0; i < GROUP; i++) {
      if (at + i < dim) v[i] += bias[at + i];
    }
  }
}

// One factor a row; null: 1.
__device__ __forceinline__ float scale_of(const float* row_scale, int64_t row) { return row_scale ? row_scale[row] : 1.0f; }

constexpr int CHUNKS = 2;
// Most threads of a block; fewer than 1024, which would leave each of them 64 registers: too few for the norms.
constexpr int ROW_THREADS = 896;
// Blocks of so many threads that a multiprocessor has room for.
#if defined(__CUDA_ARCH__) && (__CUDA_ARCH__ == 800 || __CUDA_ARCH__ == 900 || __CUDA_ARCH__ == 1000)
constexpr int ROW_BLOCKS = 2;
#else
constexpr int ROW_BLOCKS = 1;
#endif

// Where chunk `chunk` of this thread starts.
__device__ __forceinline__ int chunk_start(int chunk) { return (chunk * blockDim.x + threadIdx.x) * GROUP; }

// A row as it lies in memory, zeros past its end. A kernel loads all it needs so before it uses any of it: it then waits
// for memory once, not once for each group. Whole words, as they come: taking them apart would wait for them.
template <class T>
struct RawRow {
  static constexpr int PER_WORD = 4 / sizeof(T);
  uint32_t words[CHUNKS][GROUP / PER_WORD];

  // `row` null: zeros.
  __device__ __forceinline__ void load(const T* row, int dim) {
#pragma unroll
    for (int c = 0; c < CHUNKS; c++) {
#pragma unroll
      for (int i = 0; i < GROUP / PER_WORD; i++) words[c][i] = 0;
    }
    if (!row) return;
    const bool packed = groups_fit(row, dim);
#pragma unroll
    for (int c = 0; c < CHUNKS; c++) {
      const T* from = row + chunk_start(c);
      const int count = dim - chunk_start(c);
      if (count <= 0) break;
      if (packed) {
        load_words(words[c], from);
      } else {
        load_some(words[c], from, count);
      }
    }
  }

  __device__ __forceinline__ float value(int chunk, int i) const {
    T values[PER_WORD];
    memcpy(values, &words[chunk][i / PER_WORD], 4);
    return to_float(values[i % PER_WORD]);
  }

 private:
  static __device__ __forceinline__ void load_words(uint32_t (&to)[GROUP / PER_WORD], const T* from) {
    constexpr int PER = GROUP * sizeof(T) < 16 ? GROUP : 16 / int(sizeof(T));
#pragma unroll
    for (int i = 0; i < GROUP; i += PER) {
      const Pack<T, PER> pack = load_pack<T, PER>(from + i);
      memcpy(&to[i / PER_WORD], &pack, sizeof(pack));
    }
  }

  // The first `count` of a group.
  static __device__ __forceinline__ void load_some(uint32_t (&to)[GROUP / PER_WORD], const T* from, int count) {
#pragma unroll
    for (int i = 0; i < GROUP; i += PER_WORD) {
      T values[PER_WORD];
#pragma unroll
      for (int j = 0; j < PER_WORD; j++) values[j] = i + j < count ? from[i + j] : from_float<T>(0.0f);
      memcpy(&to[i / PER_WORD], values, 4);
    }
  }
};

// The least normal float: 1 / LEAST_STEP is finite.
constexpr float LEAST_STEP = 1.17549435e-38f;

// A row to compute with; past its end it is zeros, which whoever changes values keeps so.
struct Row {
  float v[CHUNKS][GROUP];

  template <class T>
  __device__ __forceinline__ void take(const RawRow<T>& raw) {
#pragma unroll
    for (int c = 0; c < CHUNKS; c++) {
#pragma unroll
      for (int i = 0; i < GROUP; i++) v[c][i] = raw.value(c, i);
    }
  }

  // What scale_group does, for the whole row.
  __device__ __forceinline__ void scale(float scale, const float* bias, int dim) {
#pragma unroll
    for (int c = 0; c < CHUNKS; c++) scale_group(v[c], scale, bias, chunk_start(c), dim);
  }

  template <class T>
  __device__ __forceinline__ void store(T* row, int dim) const {
    const bool packed = groups_fit(row, dim);
#pragma unroll
    for (int c = 0; c < CHUNKS; c++) store_group(row, chunk_start(c), dim, packed, v[c]);
  }

  // Replaces each value by f(value); f(0) is 0.
  template <class F>
  __device__ __forceinline__ void map(const F& f) {
#pragma unroll
    for (int c = 0; c < CHUNKS; c++) {
#pragma unroll
      for (int i = 0; i < GROUP; i++) v[c][i] = f(v[c][i]);
    }
  }

  // Adds to each value inside the row of `dim`.
  __device__ __forceinline__ void shift(float by, int dim) {
#pragma unroll
    for (int c = 0; c < CHUNKS; c++) {
#pragma unroll
      for (int i = 0; i < GROUP; i++) {
        if (chunk_start(c) + i < dim) v[c][i] += by;
      }
    }
  }

  // Sum of f(value) over the row, in every thread; f(0) is 0.
  template <class F>
  __device__ __forceinline__ float sum(float* partial, const F& f) const {
    float total = 0.0f;
#pragma unroll
    for (int c = 0; c < CHUNKS; c++) {
#pragma unroll
      for (int i = 0; i < GROUP; i++) total += f(v[c][i]);
    }
    return block_sum(total, partial);
  }

  // Rounds the row to e4m3 with the scale that maps its largest magnitude to the format's; writes codes and scale
  // (value = code * scale). A row of zeros, or of so little that there is no inverse of its scale, has scale 1.
  __device__ __forceinline__ void store_quantised(e4m3* row, float* scale, int dim, float* partial) {
    float largest = 0.0f;
#pragma unroll
    for (int c = 0; c < CHUNKS; c++) {
#pragma unroll
      for (int i = 0; i < GROUP; i++) largest = fmaxf(largest, fabsf(v[c][i]));
    }
    largest = block_max(largest, partial);
    const float step = largest >= LEAST_STEP * E4M3_MAX ? largest / E4M3_MAX : 1.0f;
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
