// RMS normalisation of rows, then, where a table is given, rotation of the adjacent pairs of each head.
#include "common/rms_norm.cuh"

// One row a block.
template <class T>
__device__ __forceinline__ void rms_norm(const RmsNorm<T>& norm, T* y) {
  SHARED(float, partial, [WARP_SIZE]);
  Row row;
  norm.apply(row, blockIdx.x, partial);
  row.store(y + int64_t(blockIdx.x) * norm.dim, norm.dim);
}

#define RMS_NORM(T)                                                                                             \
  KERNEL(rms_norm_##T, ROW_THREADS, const T* x, const float* row_scale, const float* bias, const float* weight, \
         const float* rope, T* y, int dim, int head, float eps) {                                               \
    rms_norm<T>({x, row_scale, bias, weight, rope, dim, head, eps}, y);                                         \
  }
RMS_NORM(f32)
RMS_NORM(bf16)
RMS_NORM(f16)
