// Quantising for 8-bit attention; the layouts are in common/sage.cuh. The mean of the keys over all tokens is taken
// off first: it adds the same to all scores of a query, which the softmax does not see, and with it go the channels
// that are large in every key. The mean of every SAMPLE-th key does as well, and takes less to read.
#include "common/sage_quantise.cuh"

constexpr int THREADS = 256;
constexpr int PER = GROUP;             // channels of a thread
constexpr int LANES = SAGE_LANES;      // threads of a token
constexpr int ROWS = THREADS / LANES;  // tokens at once
constexpr int CHUNK = 512;             // tokens of a block of sage_statistics
constexpr int SAMPLE = 4;
static_assert(CHUNK % SAMPLE == 0, "chunks begin with a key of the sample");

// Tokens [count, heads, 128], each `ld` values behind the one before, that stand for row_scale x + bias (null: 1, 0).
template <class T>
struct Tokens {
  const T* x;
  int64_t ld;
  const float *row_scale, *bias;
  int count;

  // 8 channels of a token; of tokens past the end zeros.
  __device__ __forceinline__ void load(float (&to)[PER], int token, int head, int channel) const {
    if (token >= count) {
#pragma unroll
      for (int i = 0; i < PER; i++) to[i] = 0.0f;
      return;
    }
    const int at = head * SAGE_DIM + channel;
    load_group(to, x + token * ld, at, ld, true);
    scale_group(to, scale_of(row_scale, token), bias, at, int64_t(gridDim.y) * SAGE_DIM);
  }
};

// Sums of the sample of k and largest magnitudes of v over CHUNK tokens: [chunks, heads, 128] each.
template <class T>
__device__ __forceinline__ void statistics(const Tokens<T>& k, const Tokens<T>& v, float* sums, unsigned* most) {
  SHARED(float, sum_of, [ROWS][SAGE_DIM]);
  SHARED(unsigned, most_of, [ROWS][SAGE_DIM]);
  const int row = threadIdx.x / LANES, channel = threadIdx.x % LANES * PER;
  float sum[PER] = {};
  unsigned large[PER] = {};
  const int first = blockIdx.x * CHUNK, end = min(first + CHUNK, k.count);
  for (int token = first + row * SAMPLE; token < end; token += ROWS * SAMPLE) {
    float x[PER];
    k.load(x, token, blockIdx.y, channel);
#pragma unroll
    for (int i = 0; i < PER; i++) sum[i] += x[i];
  }
  for (int token = first + row; token < end; token += ROWS) {
    float x[PER];
    v.load(x, token, blockIdx.y, channel);
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

// The mean of k's sample for each head and channel, and the scale that brings v up to `limit`, from the chunks of
// sage_statistics. One block a head.
KERNEL(sage_channels, 128, const float* sums, const unsigned* most, int chunks, int s, float limit, float* k_mean,
       float* v_scale) {
  const int64_t heads = gridDim.x, channel = int64_t(blockIdx.x) * SAGE_DIM + threadIdx.x;
  float sum = 0.0f;
  unsigned highest = 0;
  for (int i = 0; i < chunks; i++) {
    sum += sums[i * heads * SAGE_DIM + channel];
    highest = max(highest, most[i * heads * SAGE_DIM + channel]);
  }
  k_mean[channel] = sum / ((s + SAMPLE - 1) / SAMPLE);
  v_scale[channel] = scales(highest, limit).y;
}

// A tile of q and its scales, times `factor`.
template <class T>
__device__ __forceinline__ void quantise_q(const Tokens<T>& q, float factor, uint8_t* q8, float* scale) {
  const int channel = threadIdx.x % LANES * PER;
  const int64_t tile = int64_t(blockIdx.y) * gridDim.x + blockIdx.x;
  for (int row = threadIdx.x / LANES; row < SAGE_TOKENS; row += ROWS) {
    float x[PER];
    q.load(x, int(blockIdx.x) * SAGE_TOKENS + row, blockIdx.y, channel);
    store_query(q8 + tile * SAGE_TILE, scale + tile * SAGE_TOKENS, x, factor, row, channel, true);
  }
}

// A tile of k less its mean, and its four scales.
template <class T>
__device__ __forceinline__ void quantise_k(const Tokens<T>& k, const float* mean, uint8_t* k8, float* scale) {
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
    k.load(x[i], token, blockIdx.y, channel);
    if (token >= k.count) continue;
#pragma unroll
    for (int j = 0; j < PER; j++) x[i][j] -= mean[head + channel + j];
    mine = max(mine, largest(x[i]));
  }
  atomicMax(&most[group], mine);
  __syncthreads();
  const float2 to = scales(most[group], INT8_MAX_VALUE);
#pragma unroll
  for (int i = 0; i < STEPS; i++) store_int8(k8 + tile * SAGE_TILE, x[i], to.x, first + i * ROWS, channel);
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
__device__ __forceinline__ void quantise_v(const Tokens<T>& v, const float* scale, uint8_t* v8) {
  constexpr int LD = SAGE_TOKENS + 4;
  SHARED(uint8_t, columns, [SAGE_DIM * LD]);
  const int channel = threadIdx.x % LANES * PER;
  const int64_t head = int64_t(blockIdx.y) * SAGE_DIM, tile = int64_t(blockIdx.y) * gridDim.x + blockIdx.x;
  float factor[PER];
  inverse(factor, scale + head + channel);
  for (int row = threadIdx.x / LANES; row < SAGE_TOKENS; row += ROWS) {
    float x[PER];
    v.load(x, int(blockIdx.x) * SAGE_TOKENS + row, blockIdx.y, channel);
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
__device__ __forceinline__ void halve_v(const Tokens<T>& v, const float* scale, uint8_t* v16) {
  const int channel = threadIdx.x % LANES * PER;
  const int64_t head = int64_t(blockIdx.y) * SAGE_DIM, tile = int64_t(blockIdx.y) * gridDim.x + blockIdx.x;
  float factor[PER];
  inverse(factor, scale + head + channel);
  for (int row = threadIdx.x / LANES; row < SAGE_TOKENS; row += ROWS) {
    float x[PER];
    v.load(x, int(blockIdx.x) * SAGE_TOKENS + row, blockIdx.y, channel);
    Pack<f16, PER> pack;
#pragma unroll
    for (int i = 0; i < PER; i++) pack.values[i] = from_float<f16>(x[i] * factor[i]);
    store_pack(reinterpret_cast<f16*>(v16 + tile * SAGE_F16_TILE + sage_f16_piece(row, channel / PER)), pack);
  }
}

#define SAGE_QUANTISE(T)                                                                                             \
  KERNEL(sage_statistics_##T, THREADS, const T* k, const T* v, int64_t ldk, int64_t ldv, const float* v_row_scale,   \
         const float* v_bias, int s, float* sums, unsigned* most) {                                                  \
    statistics<T>({k, ldk, nullptr, nullptr, s}, {v, ldv, v_row_scale, v_bias, s}, sums, most);                      \
  }                                                                                                                  \
  KERNEL(sage_quantise_q_##T, THREADS, const T* q, int64_t ld, int l, float factor, uint8_t* q8, float* scale) {     \
    quantise_q<T>({q, ld, nullptr, nullptr, l}, factor, q8, scale);                                                  \
  }                                                                                                                  \
  KERNEL(sage_quantise_k_##T, THREADS, const T* k, int64_t ld, int s, const float* mean, uint8_t* k8, float* scale) { \
    quantise_k<T>({k, ld, nullptr, nullptr, s}, mean, k8, scale);                                                    \
  }                                                                                                                  \
  KERNEL(sage_quantise_v_##T, THREADS, const T* v, int64_t ld, const float* row_scale, const float* bias, int s,     \
         const float* scale, uint8_t* v8) {                                                                          \
    quantise_v<T>({v, ld, row_scale, bias, s}, scale, v8);                                                           \
  }                                                                                                                  \
  KERNEL(sage_halve_v_##T, THREADS, const T* v, int64_t ld, const float* row_scale, const float* bias, int s,        \
         const float* scale, uint8_t* v16) {                                                                         \
    halve_v<T>({v, ld, row_scale, bias, s}, scale, v16);                                                             \
  }
SAGE_QUANTISE(bf16)
SAGE_QUANTISE(f16)
