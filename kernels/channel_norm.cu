// The VAE's norm over the channels of each voxel: act(x / max(|x|, 1e-12) sqrt(C) gamma), channels last.
#include "common/activation.cuh"
#include "common/row.cuh"

constexpr int CHANNEL_CHUNKS = 4;  // groups a lane can hold: 32 lanes have 1024 channels

// `lanes` (a power of two, up to a warp) neighbouring lanes share a voxel; together they hold all its channels.
template <class T>
__device__ __forceinline__ void channel_norm(const T* x, const float* __restrict__ gamma,
                                             T* y, int64_t voxels, int channels, int lanes,
                                             int activation) {
  const int64_t voxel = (int64_t(blockIdx.x) * blockDim.x + threadIdx.x) / lanes;
  const int lane = threadIdx.x % lanes;
  const bool inside = voxel < voxels;  // lanes outside still take part in the shuffles
  const T* from = x + (inside ? voxel : 0) * channels;
  const bool packed = groups_fit(x, channels) && groups_fit(y, channels);

  float v[CHANNEL_CHUNKS][GROUP];
  float squares = 0.0f;
#pragma unroll
  for (int c = 0; c < CHANNEL_CHUNKS; c++) {
    const int at = (c * lanes + lane) * GROUP;
    if (at >= channels) break;
    load_group(v[c], from, at, channels, packed);
#pragma unroll
    for (int i = 0; i < GROUP; i++) squares += v[c][i] * v[c][i];
  }
  for (int distance = lanes / 2; distance > 0; distance /= 2) {
    squares += __shfl_xor_sync(FULL_WARP, squares, distance);
  }
  if (!inside) return;
  const float factor = sqrtf(float(channels)) / fmaxf(sqrtf(squares), 1e-12f);
  const bool gamma_packed = groups_fit(gamma, channels);
  with_activation(activation, [&](const auto& function) {
#pragma unroll
    for (int c = 0; c < CHANNEL_CHUNKS; c++) {
      const int at = (c * lanes + lane) * GROUP;
      if (at >= channels) break;
      float g[GROUP];
      load_group(g, gamma, at, channels, gamma_packed);
#pragma unroll
      for (int i = 0; i < GROUP; i++) v[c][i] = function(v[c][i] * factor * g[i]);
      store_group(y + voxel * channels, at, channels, packed, v[c]);
    }
  });
}

#define CHANNEL_NORM(T)                                                                              \
  KERNEL(channel_norm_##T, 256, const T* x, const float* gamma, T* y, int64_t voxels, int channels,  \
         int lanes, int activation) {                                                                \
    channel_norm<T>(x, gamma, y, voxels, channels, lanes, activation);                               \
  }
CHANNEL_NORM(f32)
CHANNEL_NORM(bf16)
CHANNEL_NORM(f16)
