// What the convolution kernels share: geometry, and where the values of a tap lie.
//
// A convolution is the matrix product  y[m, n] = sum_k patch[m, k] w[n, k]  whose m counts output voxels
// (frame, row, column) and whose k counts (tap, input channel), channel fastest, taps (frame, row, column). The patch
// matrix exists only as addresses: nothing is gathered in memory.
#pragma once

#include "kernel.cuh"

// Parameters of every convolution kernel, and the same as a structure.
//   x:       [frames, height, width, inputs]; frames before it come from `history` [past, height, width, inputs],
//            those before that are zeros
//   weight:  [outputs, depth]; depth = kt kh kw inputs rounded up to 8, the rest zeros
//   up:      1 doubles height and width by repeating pixels, 0 does not
//   front, top, left: padding before the first frame, row and column
#define CONV3D_PARAMETERS(T)                                                                                      \
  const T *x, const T *history, const T *weight, const float *bias, const T *residual, T *y, int frames, int past, \
      int height, int width, int inputs, int outputs, int depth, int kt, int kh, int kw, int st, int sh, int sw,  \
      int front, int top, int left, int up, int out_frames, int out_height, int out_width
#define CONV3D_ARGUMENTS(T)                                                                                       \
  Conv3d<T> {                                                                                                     \
    x, history, weight, bias, residual, y, frames, past, height, width, inputs, outputs, depth, kt, kh, kw, st,   \
        sh, sw, front, top, left, up, out_frames, out_height, out_width                                           \
  }

template <class T>
struct Conv3d {
  const T *x, *history, *weight;
  const float* bias;
  const T* residual;
  T* y;
  int frames, past, height, width, inputs, outputs, depth;
  int kt, kh, kw, st, sh, sw, front, top, left, up;
  int out_frames, out_height, out_width;

  __device__ __forceinline__ int64_t voxels() const { return int64_t(out_frames) * out_height * out_width; }
};

// Input position of an output voxel's first tap; frames count from the first one of x.
struct Voxel {
  int frame, row, column;
};

// A frame before everything there is: reads as zeros.
constexpr int NO_FRAME = -(1 << 30);

template <class T>
__device__ __forceinline__ Voxel voxel_at(const Conv3d<T>& conv, int64_t m) {
  if (m >= conv.voxels()) return {NO_FRAME, 0, 0};
  const int plane = conv.out_height * conv.out_width;
  const int frame = int(m / plane), rest = int(m - int64_t(frame) * plane);
  const int row = rest / conv.out_width, column = rest - row * conv.out_width;
  return {frame * conv.st - conv.front, row * conv.sh - conv.top, column * conv.sw - conv.left};
}

// A position in the kernel: tap and channel.
struct Tap {
  int frame, row, column, channel;

  // The tap that holds `k` of the sum; beyond the last one `frame` is at least kt.
  template <class T>
  static __device__ __forceinline__ Tap at(const Conv3d<T>& conv, int k) {
    const int tap = k / conv.inputs;
    const int plane = conv.kh * conv.kw;
    const int frame = tap / plane, rest = tap - frame * plane;
    return {frame, rest / conv.kw, rest % conv.kw, k - tap * conv.inputs};
  }

  // Goes on by `by` values of the sum.
  template <class T>
  __device__ __forceinline__ void advance(const Conv3d<T>& conv, int by) {
    channel += by;
    while (channel >= conv.inputs) {
      channel -= conv.inputs;
      if (++column < conv.kw) continue;
      column = 0;
      if (++row < conv.kh) continue;
      row = 0;
      ++frame;
    }
  }
};

// The address of a voxel's value at a tap; null where that is a zero.
template <class T>
__device__ __forceinline__ const T* value_at(const Conv3d<T>& conv, const Voxel& voxel, const Tap& tap) {
  const int row = voxel.row + tap.row, column = voxel.column + tap.column;
  int frame = voxel.frame + tap.frame;
  const T* from = conv.x;
  if (frame < 0) {
    frame += conv.past;
    from = conv.history;
  }
  const bool inside = tap.frame < conv.kt && frame >= 0 && unsigned(row) < unsigned(conv.height << conv.up) &&
                      unsigned(column) < unsigned(conv.width << conv.up);
  if (!inside) return nullptr;
  const int at = (frame * conv.height + (row >> conv.up)) * conv.width + (column >> conv.up);
  return from + int64_t(at) * conv.inputs + tap.channel;
}
