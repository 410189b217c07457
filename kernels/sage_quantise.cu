// Quantising for 8-bit attention; the layouts are in common/sage.cuh. The mean of the keys over all tokens is taken
// off first: it adds the same to all scores of a query, which the softmax does not see, and with it go the channels
// that are large in every key.
//
// A block has 16 threads a token, each with 8 channels. Maxima are taken over the bits of magnitudes, where NaN is above
// all numbers: it then reaches the scale, and through it the result.
#include "common/sage.cuh"

constexpr int THREADS = 256;
constexpr int PER = 8;                  // channels of a thread
constexpr int LANES = SAGE_DIM / PER;   // threads of a token
constexpr int ROWS = THREADS / LANES;   // tokens at once
constexpr int CHUNK = 512;              // tokens of a block of sage_statistics
constexpr float SMALLEST = 1e-12f;      // magnitude that a scale is made for
constexpr float INT8_MAX_VALUE = 127.0f;

__device__ __forceinline__ unsigned magnitude(float x) { return __float_as_uint(x) & 0x7fffffffu; }

// The factor that brings values up to `most` (the bits of a magnitude) to `limit`, and its inverse.
__device__ __forceinline__ float2 scales(unsigned most, float limit) {
  const float largest = __uint_as_float(max(most, __float_as_uint(SMALLEST)));
  return make_float2(limit / largest, largest / limit);
}

// 8 channels of a token; of tokens past the end zeros.
template <class T>
__device__ __forceinline__ void load(float (&x)[PER], const T* from, int64_t ld, int token, int count, int channel) {
  if (token >= count) {
#pragma unroll
    for (int i = 0; i < PER; i++) x[i] = 0.0f;
    return;
  }
  const Pack<T, PER> pack = load_pack<T, PER>(from + token * ld + channel);
#pragma unroll
  for (int i = 0; i < PER; i++) x[i] = to_float(pack.values[i]);
}

// 8 int8 values of row `row` of a tile.
__device__ __forceinline__ void store(uint8_t* tile, const float (&x)[PER], float factor, int row, int channel) {
  Pack<int8_t, PER> pack;
#pragma unroll
  for (int i = 0; i < PER; i++) pack.values[i] = int8_t(__float2int_rn(x[i] * factor));
  int8_t* to = reinterpret_cast<int8_t*>(tile + sage_piece(row, channel / 16) + channel % 16);
  store_pack(to, pack);
}

__device__ __forceinline__ unsigned largest(const float (&x)[PER]) {
  unsigned most = 0;
#pragma unroll
  for (int i = 0; i < PER; i++) most = max(most, magnitude(x[i]));
  return most;
}

// Sums of k and largest magnitudes of v over CHUNK tokens: [chunks, heads, 128] each.
template <class T>
__device__ __forceinline__ void statistics(const T* k, const T* v, int64_t ldk, int64_t ldv, int s, float* sums,
                                           unsigned* most) {
  SHARED(float, sum_of, [ROWS][SAGE_DIM]);
  SHARED(unsigned, most_of, [ROWS][SAGE_DIM]);
  const int row = threadIdx.x / LANES, channel = threadIdx.x % LANES * PER;
  const int64_t head = int64_t(blockIdx.y) * SAGE_DIM;
  float sum[PER] = {};
  unsigned large[PER] = {};
  const int first = blockIdx.x * CHUNK, end = min(first + CHUNK, s);
  for (int token = first + row; token < end; token += ROWS) {
    float x[PER];
    load(x, k + head, ldk, token, s, channel);
#pragma unroll
    for (int i = 0; i < PER; i++) sum[i] += x[i];
    load(x, v + head, ldv, token, s, channel);
#pragma unroll
    for (int i = 0; i < PER; i++) large[i] = max(large[i], magnitude(x[i]));
  }
#pragma unroll
  for (int i = 0; i < PER; i++) {
    sum_of[row][channel + i] = sum[i];
    most_of[row][channel + i] = large[i];
  }
  __syncthreads();
  if (threadIdx.x >= SAGE_DIM) return;
  float all = 0.0f;
  unsigned highest = 0;
  for (int i = 0; i < ROWS; i++) {
    all += sum_of[i][threadIdx.x];
    highest = max(highest, most_of[i][threadIdx.x]);
  }
  const int64_t at = (int64_t(blockIdx.x) * gridDim.y + blockIdx.y) * SAGE_DIM + threadIdx.x;
  sums[at] = all;
  most[at] = highest;
}

// The mean of k for each head and channel, and the scale that brings v up to `limit`, from the chunks of sage_statistics.
// One block a head.
KERNEL(sage_channels, 128, const float* sums, const unsigned* most, int chunks, int s, float limit, float* k_mean,
       float* v_scale) {
  const int64_t heads = gridDim.x, channel = int64_t(blockIdx.x) * SAGE_DIM + threadIdx.x;
  float sum = 0.0f;
  unsigned highest = 0;
  for (int i = 0; i < chunks; i++) {
    sum += sums[i * heads * SAGE_DIM + channel];
    highest = max(highest, most[i * heads * SAGE_DIM + channel]);
  }
  k_mean[channel] = sum / s;
  v_scale[channel] = scales(highest, limit).y;
}

// A tile of q and its scales, times `factor`.
template <class T>
__device__ __forceinline__ void quantise_q(const T* q, int64_t ld, int l, float factor, uint8_t* q8, float* scale) {
  const int channel = threadIdx.x % LANES * PER;
  const int64_t tile = int64_t(blockIdx.y) * gridDim.x + blockIdx.x;
  for (int row = threadIdx.x / LANES; row < SAGE_TOKENS; row += ROWS) {
    float x[PER];
    load(x, q + int64_t(blockIdx.y) * SAGE_DIM, ld, int(blockIdx.x) * SAGE_TOKENS + row, l, channel);
    unsigned most = largest(x);
#pragma unroll
    for (int lane = LANES / 2; lane > 0; lane /= 2) most = max(most, __shfl_xor_sync(FULL_WARP, most, lane));
    const float2 to = scales(most, INT8_MAX_VALUE);
    store(q8 + tile * SAGE_TILE, x, to.x, row, channel);
    if (channel == 0) scale[tile * SAGE_TOKENS + row] = to.y * factor;
  }
}

// A tile of k less its mean, and its four scales.
template <class T>
__device__ __forceinline__ void quantise_k(const T* k, int64_t ld, int s, const float* mean, uint8_t* k8, float* scale) {
  SHARED(unsigned, most, [SAGE_KEY_SCALES]);
  constexpr int STEPS = SAGE_TOKENS / ROWS;
  static_assert(ROWS % 8 == 0, "a thread's keys share a scale");
  const int first = threadIdx.x / LANES, channel = threadIdx.x % LANES * PER, group = first % 8 / 2;
  const int64_t head = int64_t(blockIdx.y) * SAGE_DIM, tile = int64_t(blockIdx.y) * gridDim.x + blockIdx.x;
  if (threadIdx.x < SAGE_KEY_SCALES) most[threadIdx.x] = 0;
  __syncthreads();
  float x[STEPS][PER];
  unsigned mine = 0;
#pragma unroll
  for (int i = 0; i < STEPS; i++) {
    const int token = int(blockIdx.x) * SAGE_TOKENS + first + i * ROWS;
    load(x[i], k + head, ld, token, s, channel);
    if (token >= s) continue;
#pragma unroll
    for (int j = 0; j < PER; j++) x[i][j] -= mean[head + channel + j];
    mine = max(mine, largest(x[i]));
  }
  atomicMax(&most[group], mine);
  __syncthreads();
  const float2 to = scales(most[group], INT8_MAX_VALUE);
#pragma unroll
  for (int i = 0; i < STEPS; i++) store(k8 + tile * SAGE_TILE, x[i], to.x, first + i * ROWS, channel);
  if (threadIdx.x < SAGE_KEY_SCALES) {
    scale[tile * SAGE_KEY_SCALES + threadIdx.x] = scales(most[threadIdx.x], INT8_MAX_VALUE).y;
  }
}

// Factors of a thread's channels of v.
__device__ __forceinline__ void inverse(float (&factor)[PER], const float* scale) {
#pragma unroll
  for (int i = 0; i < PER; i++) factor[i] = 1.0f / scale[i];
}

// A tile of v in e4m3, transposed, each channel over its scale.
template <class T>
__device__ __forceinline__ void quantise_v(const T* v, int64_t ld, int s, const float* scale, uint8_t* v8) {
  constexpr int LD = SAGE_TOKENS + 4;
  SHARED(uint8_t, columns, [SAGE_DIM * LD]);
  const int channel = threadIdx.x % LANES * PER;
  const int64_t head = int64_t(blockIdx.y) * SAGE_DIM, tile = int64_t(blockIdx.y) * gridDim.x + blockIdx.x;
  float factor[PER];
  inverse(factor, scale + head + channel);
  for (int row = threadIdx.x / LANES; row < SAGE_TOKENS; row += ROWS) {
    float x[PER];
    load(x, v + head, ld, int(blockIdx.x) * SAGE_TOKENS + row, s, channel);
#pragma unroll
    for (int i = 0; i < PER; i++) {
      columns[(channel + i) * LD + sage_column(row)] = from_float<e4m3>(x[i] * factor[i]).bits;
    }
  }
  __syncthreads();
  for (int i = threadIdx.x; i < SAGE_DIM * SAGE_TOKENS / 16; i += THREADS) {
    const int row = i / 8, piece = i % 8;
    Pack<uint8_t> pack;
#pragma unroll
    for (int word = 0; word < 4; word++) {
      const Pack<uint8_t, 4> four = load_pack<uint8_t, 4>(columns + row * LD + piece * 16 + word * 4);
#pragma unroll
      for (int j = 0; j < 4; j++) pack.values[word * 4 + j] = four.values[j];
    }
    store_pack(v8 + tile * SAGE_TILE + sage_piece(row, piece), pack);
  }
}

// A tile of v in f16, each channel over its scale.
template <class T>
__device__ __forceinline__ void halve_v(const T* v, int64_t ld, int s, const float* scale, uint8_t* v16) {
  const int channel = threadIdx.x % LANES * PER;
  const int64_t head = int64_t(blockIdx.y) * SAGE_DIM, tile = int64_t(blockIdx.y) * gridDim.x + blockIdx.x;
  float factor[PER];
  inverse(factor, scale + head + channel);
  for (int row = threadIdx.x / LANES; row < SAGE_TOKENS; row += ROWS) {
    float x[PER];
    load(x, v + head, ld, int(blockIdx.x) * SAGE_TOKENS + row, s, channel);
    Pack<f16, PER> pack;
#pragma unroll
    for (int i = 0; i < PER; i++) pack.values[i] = from_float<f16>(x[i] * factor[i]);
    store_pack(reinterpret_cast<f16*>(v16 + tile * SAGE_F16_TILE + sage_f16_piece(row, channel / PER)), pack);
  }
}

#define SAGE_QUANTISE(T)                                                                                             \
  KERNEL(sage_statistics_##T, THREADS, const T* k, const T* v, int64_t ldk, int64_t ldv, int s, float* sums,         \
         unsigned* most) {                                                                                           \
    statistics<T>(k, v, ldk, ldv, s, sums, most);                                                                    \
  }                                                                                                                  \
  KERNEL(sage_quantise_q_##T, THREADS, const T* q, int64_t ld, int l, float factor, uint8_t* q8, float* scale) {     \
    quantise_q<T>(q, ld, l, factor, q8, scale);                                                                      \
  }                                                                                                                  \
  KERNEL(sage_quantise_k_##T, THREADS, const T* k, int64_t ld, int s, const float* mean, uint8_t* k8, float* scale) { \
    quantise_k<T>(k, ld, s, mean, k8, scale);                                                                        \
  }                                                                                                                  \
  KERNEL(sage_quantise_v_##T, THREADS, const T* v, int64_t ld, int s, const float* scale, uint8_t* v8) {             \
    quantise_v<T>(v, ld, s, scale, v8);                                                                              \
  }                                                                                                                  \
  KERNEL(sage_halve_v_##T, THREADS, const T* v, int64_t ld, int s, const float* scale, uint8_t* v16) {               \
    halve_v<T>(v, ld, s, scale, v16);                                                                                \
  }
SAGE_QUANTISE(bf16)
SAGE_QUANTISE(f16)
