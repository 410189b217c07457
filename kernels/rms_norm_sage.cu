// Queries on their way from a product to 8-bit attention: RMS normalisation, rotation and quantising in one pass.
#include "common/rms_norm.cuh"
#include "common/sage_quantise.cuh"

// One token a block, `gridDim.x` of them in whole tiles; those past `l` become zeros. Tiles and scales as in
// common/sage.cuh, the scales times `factor`.
template <class T>
__device__ __forceinline__ void quantise_queries(const RmsNorm<T>& norm, int l, float factor, uint8_t* q8, float* scale) {
  SHARED(float, partial, [WARP_SIZE]);
  const int token = blockIdx.x;
  Row row = {};
  if (token < l) norm.apply(row, token, partial);
#pragma unroll
  for (int c = 0; c < CHUNKS; c++) {
    const int column = chunk_start(c);
    const int64_t tile = int64_t(column / SAGE_DIM) * (gridDim.x / SAGE_TOKENS) + token / SAGE_TOKENS;
    store_query(q8 + tile * SAGE_TILE, scale + tile * SAGE_TOKENS, row.v[c], factor, token % SAGE_TOKENS,
                column % SAGE_DIM, column < norm.dim);
  }
}

#define RMS_NORM_SAGE(T)                                                                                             \
  KERNEL(rms_norm_sage_##T, ROW_THREADS, const T* x, const float* row_scale, const float* bias, const float* weight, \
         const float* rope, int dim, int head, float eps, int l, float factor, uint8_t* q8, float* scale) {          \
    quantise_queries<T>({x, row_scale, bias, weight, rope, dim, head, eps}, l, factor, q8, scale);                   \
  }
RMS_NORM_SAGE(bf16)
RMS_NORM_SAGE(f16)
