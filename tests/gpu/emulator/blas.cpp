// cuBLAS and cublasLt: products as plain loops, sums in f32. And the little of cuRAND that opening a device calls.
#include <cublasLt.h>
#include <cublas_v2.h>
#include <curand.h>
#include <math.h>
#include <string.h>

#include <new>

#include "../../../kernels/shim/formats.h"
#include "emulator.h"

struct cublasContext {
  CUstream stream;
};
struct curandGenerator_st {};

namespace {

// A column-major matrix, transposed or not.
struct Matrix {
  const void* values;
  cudaDataType_t type;
  int64_t ld;
  bool transposed;

  float at(int64_t row, int64_t column) const {
    const int64_t i = transposed ? column + row * ld : row + column * ld;
    switch (type) {
      case CUDA_R_32F: return static_cast<const float*>(values)[i];
      case CUDA_R_16BF: return shim::bf16_to_float(static_cast<const uint16_t*>(values)[i]);
      case CUDA_R_16F: return shim::f16_to_float(static_cast<const uint16_t*>(values)[i]);
      default: return shim::e4m3_to_float(static_cast<const uint8_t*>(values)[i]);
    }
  }
};

bool is_known(cudaDataType_t type) {
  return type == CUDA_R_32F || type == CUDA_R_16BF || type == CUDA_R_16F || type == CUDA_R_8F_E4M3;
}

void store(void* values, cudaDataType_t type, int64_t i, float x) {
  switch (type) {
    case CUDA_R_32F: static_cast<float*>(values)[i] = x; break;
    case CUDA_R_16BF: static_cast<uint16_t*>(values)[i] = shim::float_to_bf16(x); break;
    case CUDA_R_16F: static_cast<uint16_t*>(values)[i] = shim::float_to_f16(x); break;
    default: static_cast<uint8_t*>(values)[i] = shim::float_to_e4m3(x);
  }
}

float gelu(float x) { return 0.5f * x * (1.0f + tanhf(0.7978845608f * (x + 0.044715f * x * x * x))); }

// d = epilogue(alpha a b + beta d), [m, n] of inner dimension k.
struct Product {
  int64_t m, n, k;
  Matrix a, b;
  void* d;
  cudaDataType_t type;
  int64_t ld;
  float alpha, beta;
  const void* bias;
  cudaDataType_t bias_type;
  bool has_gelu;

  void run() const {
    // Rows of a and columns of b, one after the other.
    std::vector<float> rows(size_t(m * k)), columns(size_t(n * k));
    for (int64_t i = 0; i < m; i++) {
      for (int64_t p = 0; p < k; p++) rows[size_t(i * k + p)] = a.at(i, p);
    }
    for (int64_t j = 0; j < n; j++) {
      for (int64_t p = 0; p < k; p++) columns[size_t(j * k + p)] = b.at(p, j);
    }
    const Matrix old = {d, type, ld, false}, biases = {bias, bias_type, 1, false};
#pragma omp parallel for
    for (int64_t j = 0; j < n; j++) {
      for (int64_t i = 0; i < m; i++) {
        const float *x = &rows[size_t(i * k)], *y = &columns[size_t(j * k)];
        float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
        for (int64_t p = 0; p < k; p++) sum += x[p] * y[p];
        sum *= alpha;
        if (beta != 0.0f) sum += beta * old.at(i, j);
        if (bias) sum += biases.at(i, 0);
        store(d, type, i + j * ld, has_gelu ? gelu(sum) : sum);
      }
    }
  }
};

// What cublasLt's opaque descriptors hold here.
struct Description {
  int32_t transposes[2];
  uint32_t epilogue;
  const void* bias;
  int32_t bias_type;
};
struct Layout {
  int32_t type;
  int64_t rows, columns, ld;
};

template <class T, class Opaque>
T& as(Opaque* opaque) {
  static_assert(sizeof(T) <= sizeof(Opaque), "an opaque descriptor has the room");
  return *reinterpret_cast<T*>(opaque);
}

}  // namespace

extern "C" {

// ---- cuBLAS -----------------------------------------------------------------------------------------------

cublasStatus_t cublasCreate(cublasHandle_t* handle) {
  *handle = new cublasContext();
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasDestroy(cublasHandle_t handle) {
  delete handle;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetStream(cublasHandle_t handle, cudaStream_t stream) {
  handle->stream = stream;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasGemmStridedBatchedEx(cublasHandle_t handle, cublasOperation_t transa, cublasOperation_t transb, int m,
                                          int n, int k, const void* alpha, const void* a, cudaDataType a_type, int lda,
                                          long long stride_a, const void* b, cudaDataType b_type, int ldb,
                                          long long stride_b, const void* beta, void* c, cudaDataType c_type, int ldc,
                                          long long stride_c, int count, cublasComputeType_t compute, cublasGemmAlgo_t) {
  if (!is_known(a_type) || !is_known(b_type) || !is_known(c_type)) return CUBLAS_STATUS_NOT_SUPPORTED;
  float factors[2];
  for (int i = 0; i < 2; i++) {
    const void* factor = i == 0 ? alpha : beta;
    factors[i] = compute == CUBLAS_COMPUTE_16F ? shim::f16_to_float(*static_cast<const uint16_t*>(factor))
                                               : *static_cast<const float*>(factor);
  }
  const auto size = [](cudaDataType type) { return type == CUDA_R_32F ? 4 : type == CUDA_R_8F_E4M3 ? 1 : 2; };
  emulator::enqueue(handle->stream, [=] {
    for (int i = 0; i < count; i++) {
      const Matrix left = {static_cast<const uint8_t*>(a) + i * stride_a * size(a_type), a_type, lda, transa != CUBLAS_OP_N};
      const Matrix right = {static_cast<const uint8_t*>(b) + i * stride_b * size(b_type), b_type, ldb, transb != CUBLAS_OP_N};
      uint8_t* d = static_cast<uint8_t*>(c) + i * stride_c * size(c_type);
      Product{m, n, k, left, right, d, c_type, ldc, factors[0], factors[1], nullptr, c_type, false}.run();
    }
  });
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasDgemmStridedBatched(cublasHandle_t, cublasOperation_t, cublasOperation_t, int, int, int, const double*,
                                         const double*, int, long long, const double*, int, long long, const double*,
                                         double*, int, long long, int) {
  return CUBLAS_STATUS_NOT_SUPPORTED;
}

// ---- cublasLt ---------------------------------------------------------------------------------------------

size_t cublasLtGetVersion(void) { return CUBLAS_VERSION; }
size_t cublasLtGetCudartVersion(void) { return CUDA_VERSION; }
cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
  *handle = reinterpret_cast<cublasLtHandle_t>(new cublasContext());
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) {
  delete reinterpret_cast<cublasContext*>(handle);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* desc, cublasComputeType_t compute, cudaDataType_t scale) {
  if (compute != CUBLAS_COMPUTE_32F || scale != CUDA_R_32F) return CUBLAS_STATUS_NOT_SUPPORTED;
  *desc = new cublasLtMatmulDescOpaque_t();
  new (*desc) Description{{CUBLAS_OP_N, CUBLAS_OP_N}, CUBLASLT_EPILOGUE_DEFAULT, nullptr, CUDA_R_32F};
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t desc) {
  delete desc;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t desc, cublasLtMatmulDescAttributes_t attribute,
                                              const void* value, size_t bytes) {
  Description& of = as<Description>(desc);
  const auto set = [&](auto* field) {
    if (bytes != sizeof(*field)) return CUBLAS_STATUS_INVALID_VALUE;
    memcpy(field, value, bytes);
    return CUBLAS_STATUS_SUCCESS;
  };
  switch (attribute) {
    case CUBLASLT_MATMUL_DESC_TRANSA: return set(&of.transposes[0]);
    case CUBLASLT_MATMUL_DESC_TRANSB: return set(&of.transposes[1]);
    case CUBLASLT_MATMUL_DESC_EPILOGUE: return set(&of.epilogue);
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER: return set(&of.bias);
    case CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE: return set(&of.bias_type);
    case CUBLASLT_MATMUL_DESC_FAST_ACCUM: return CUBLAS_STATUS_SUCCESS;
    default: return CUBLAS_STATUS_NOT_SUPPORTED;
  }
}
cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* layout, cudaDataType type, uint64_t rows,
                                          uint64_t columns, int64_t ld) {
  if (!is_known(type) || ld < int64_t(rows)) return CUBLAS_STATUS_INVALID_VALUE;
  *layout = new cublasLtMatrixLayoutOpaque_t();
  new (*layout) Layout{type, int64_t(rows), int64_t(columns), ld};
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) {
  delete layout;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* preference) {
  *preference = new cublasLtMatmulPreferenceOpaque_t();
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) {
  delete preference;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t, cublasLtMatmulPreferenceAttributes_t,
                                                    const void*, size_t) {
  return CUBLAS_STATUS_SUCCESS;
}

// Two algorithms, so that there is something to choose from.
cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t, cublasLtMatrixLayout_t,
                                              cublasLtMatrixLayout_t, cublasLtMatrixLayout_t, cublasLtMatrixLayout_t,
                                              cublasLtMatmulPreference_t, int wanted,
                                              cublasLtMatmulHeuristicResult_t results[], int* found) {
  *found = wanted < 2 ? wanted : 2;
  for (int i = 0; i < *found; i++) {
    results[i] = {};
    results[i].algo.data[0] = uint64_t(i + 1);
    results[i].state = CUBLAS_STATUS_SUCCESS;
  }
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulAlgoCheck(cublasLtHandle_t, cublasLtMatmulDesc_t, cublasLtMatrixLayout_t,
                                       cublasLtMatrixLayout_t, cublasLtMatrixLayout_t, cublasLtMatrixLayout_t,
                                       const cublasLtMatmulAlgo_t* algorithm, cublasLtMatmulHeuristicResult_t* result) {
  if (algorithm->data[0] < 1 || algorithm->data[0] > 2) return CUBLAS_STATUS_INVALID_VALUE;
  *result = {};
  result->algo = *algorithm;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t desc, const void* alpha, const void* a,
                              cublasLtMatrixLayout_t a_layout, const void* b, cublasLtMatrixLayout_t b_layout,
                              const void* beta, const void* c, cublasLtMatrixLayout_t, void* d,
                              cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t*, void*, size_t,
                              cudaStream_t stream) {
  const Description of = as<Description>(desc);
  const Layout left = as<Layout>(a_layout), right = as<Layout>(b_layout), out = as<Layout>(d_layout);
  const bool turned[2] = {of.transposes[0] != CUBLAS_OP_N, of.transposes[1] != CUBLAS_OP_N};
  const int64_t m = turned[0] ? left.columns : left.rows, k = turned[0] ? left.rows : left.columns;
  const int64_t n = turned[1] ? right.rows : right.columns, inner = turned[1] ? right.columns : right.rows;
  if (k != inner || out.rows != m || out.columns != n) return CUBLAS_STATUS_INVALID_VALUE;
  // What the tensor cores ask of products in FP8 (cublasLt's documentation of cublasLtMatmul).
  const bool is_fp8 = left.type == CUDA_R_8F_E4M3;
  const bool aligned = m % 16 == 0 && k % 16 == 0 && (uint64_t(a) | uint64_t(b) | uint64_t(d)) % 16 == 0;
  if (is_fp8 && (!turned[0] || turned[1] || !aligned)) return CUBLAS_STATUS_NOT_SUPPORTED;
  const bool gelu = of.epilogue == CUBLASLT_EPILOGUE_GELU || of.epilogue == CUBLASLT_EPILOGUE_GELU_BIAS;
  const bool bias = of.epilogue == CUBLASLT_EPILOGUE_BIAS || of.epilogue == CUBLASLT_EPILOGUE_GELU_BIAS;
  if (!gelu && !bias && of.epilogue != CUBLASLT_EPILOGUE_DEFAULT) return CUBLAS_STATUS_NOT_SUPPORTED;
  const Product product = {m, n, k,
                           {a, cudaDataType_t(left.type), left.ld, turned[0]},
                           {b, cudaDataType_t(right.type), right.ld, turned[1]},
                           d, cudaDataType_t(out.type), out.ld,
                           *static_cast<const float*>(alpha), *static_cast<const float*>(beta),
                           bias ? of.bias : nullptr, cudaDataType_t(of.bias_type), gelu};
  if (product.beta != 0.0f && c != d) return CUBLAS_STATUS_NOT_SUPPORTED;
  emulator::enqueue(stream, [=] { product.run(); });
  return CUBLAS_STATUS_SUCCESS;
}

// ---- cuRAND: candle makes a generator for every device; nothing here draws from it ------------------------

curandStatus_t curandCreateGenerator(curandGenerator_t* generator, curandRngType_t) {
  *generator = new curandGenerator_st();
  return CURAND_STATUS_SUCCESS;
}
curandStatus_t curandDestroyGenerator(curandGenerator_t generator) {
  delete generator;
  return CURAND_STATUS_SUCCESS;
}
curandStatus_t curandSetPseudoRandomGeneratorSeed(curandGenerator_t, unsigned long long) { return CURAND_STATUS_SUCCESS; }
curandStatus_t curandSetStream(curandGenerator_t, cudaStream_t) { return CURAND_STATUS_SUCCESS; }

}  // extern "C"
