// Causal 3-D convolution for compute capability 9.0: as conv3d.cu, with products of warpgroups (wgmma), for kernels of
// 3 x 3 in space, stride 1, inputs in whole CHUNKs and outputs in whole OUTPUTS.
//
// A block computes a rectangle of VOXELS voxels of one frame by OUTPUTS outputs. The sum runs over slices of one frame of
// the kernel and CHUNK inputs: a slice of x with its edges comes to shared memory once for all nine taps, each of which
// reads it elsewhere. The weights come a row of three taps at a time. One warpgroup copies: three warps gather x, one
// brings the weights; the others multiply, 128 voxels each, whose operand they take to registers.
//
// A row of either matrix is CHUNK values, 4 pieces of 16 bytes; piece p of row r lies at p ^ (r / 2 % 4). That is the
// 64-byte swizzle of Hopper's descriptors, and the eight rows that ldmatrix reads at once lie in different banks wherever
// the first is. In memory the weights lie so as well: [outputs / OUTPUTS, kt, inputs / CHUNK, 3, 3, OUTPUTS, CHUNK].
#include "common/conv3d.cuh"
#include "common/ring.cuh"

constexpr int CHUNK = 32;
constexpr int PIECE = 8;  // values of 16 bytes
constexpr int PIECES = CHUNK / PIECE;
constexpr int ROW_BYTES = CHUNK * 2;
constexpr int OUTPUTS = 96;
constexpr int KERNEL_SIZE = 3;

constexpr int GROUP = 128;    // threads of a warpgroup
constexpr int CONSUMERS = 3;  // warpgroups
constexpr int THREADS = (1 + CONSUMERS) * GROUP;
constexpr int BLOCKS = 2;     // of 64 voxels, of a warpgroup
constexpr int VOXELS = CONSUMERS * BLOCKS * 64;
constexpr int SUMS = 64 * OUTPUTS / GROUP;  // of a thread and 64 voxels
constexpr int PRODUCER_REGISTERS = 56;
constexpr int CONSUMER_REGISTERS = 152;
static_assert((PRODUCER_REGISTERS + CONSUMERS * CONSUMER_REGISTERS) * GROUP <= 65536, "registers of a multiprocessor");

constexpr int MOST_COLUMNS = 64;  // of a rectangle; fewer of them have fewer edges
constexpr int EDGE = KERNEL_SIZE - 1;
constexpr int SLICE_ROWS = (VOXELS / MOST_COLUMNS + EDGE) * (MOST_COLUMNS + EDGE);
constexpr int SLICE = SLICE_ROWS * ROW_BYTES;
constexpr int TAP = OUTPUTS * ROW_BYTES;
constexpr int TAPS = KERNEL_SIZE * TAP;
using Slices = Ring<SLICE, 3>;
using Weights = Ring<TAPS, 4>;
static_assert(SLICE % 1024 == 0 && TAP % 512 == 0, "where a swizzle may start");

constexpr int GATHERERS = GROUP - WARP_SIZE;
constexpr int ROWS_AT_ONCE = GATHERERS / PIECES;

// Byte of a slice at which piece `piece` of row `row` lies.
__device__ __forceinline__ int swizzled(int row, int piece) {
  return row * ROW_BYTES + (piece ^ (row / 2 % PIECES)) * 16;
}

// A block's part of the results.
template <class T>
struct Part {
  const Conv3d<T>& conv;
  const int columns, rows;  // of the rectangle
  int output, column, row, frame;

  __device__ __forceinline__ Part(const Conv3d<T>& conv, int columns)
      : conv(conv), columns(columns), rows(VOXELS / columns) {
    const int outputs = conv.outputs / OUTPUTS;
    const int across = (conv.out_width + columns - 1) / columns, down = (conv.out_height + rows - 1) / rows;
    int block = blockIdx.x;
    output = block % outputs * OUTPUTS;
    block /= outputs;
    column = block % across * columns;
    block /= across;
    row = block % down * rows;
    frame = block / down;
  }
  // Rows of a slice from one line of x to the next.
  __device__ __forceinline__ int pitch() const { return columns + EDGE; }
  __device__ __forceinline__ int chunks() const { return conv.inputs / CHUNK; }
  // The kernel's first frame at which there is a frame of x or of the history.
  __device__ __forceinline__ int first_tap() const {
    const int missing = conv.front - conv.past - frame;
    return min(max(missing, 0), conv.kt);
  }
  // The frame of x or of the history that the kernel's frame `tap` sees.
  __device__ __forceinline__ const T* frame_at(int tap) const {
    const int at = frame - conv.front + tap;
    const int64_t values = int64_t(conv.height) * conv.width * conv.inputs;
    return at < 0 ? conv.history + (at + conv.past) * values : conv.x + at * values;
  }
};

// What the gathering warps do. `places`: room for where the rows of a slice lie in a frame.
template <class T>
__device__ __forceinline__ void gather(const Part<T>& part, const Slices& slices, int* places) {
  constexpr int ZERO = -1;
  const Conv3d<T>& conv = part.conv;
  const int pitch = part.pitch(), count = (part.rows + EDGE) * pitch;
  for (int i = threadIdx.x; i < count; i += GATHERERS) {
    const int row = part.row - conv.top + i / pitch, column = part.column - conv.left + i % pitch;
    const bool inside =
        unsigned(row) < unsigned(conv.height << conv.up) && unsigned(column) < unsigned(conv.width << conv.up);
    const int voxel = (row >> conv.up) * conv.width + (column >> conv.up);
    places[i] = inside ? voxel * conv.inputs : ZERO;
  }
  part_wait(1, GATHERERS);
  const int piece = threadIdx.x % PIECES;
  int slice = 0;
  for (int tap = part.first_tap(); tap < conv.kt; tap++) {
    const T* x = part.frame_at(tap) + piece * PIECE;
    for (int chunk = 0; chunk < part.chunks(); chunk++, slice++, x += CHUNK) {
      slices.make_room(slice);
      uint8_t* to = slices.tile(slice);
#pragma unroll 4
      for (int row = threadIdx.x / PIECES; row < count; row += ROWS_AT_ONCE) {
        const int place = places[row];
        cp_async16(to + swizzled(row, piece), x + max(place, 0), place != ZERO);
      }
      cp_async_commit();
      if (slice == 0) continue;
      cp_async_wait<1>();
      slices.filled(slice - 1);
    }
  }
  if (slice == 0) return;
  cp_async_wait<0>();
  slices.filled(slice - 1);
}

// What the thread does that brings the weights.
template <class T>
__device__ __forceinline__ void bring_weights(const Part<T>& part, const Weights& weights) {
  const int taps = part.conv.kt * part.chunks() * KERNEL_SIZE, first = part.first_tap() * part.chunks() * KERNEL_SIZE;
  const auto* from = reinterpret_cast<const uint8_t*>(part.conv.weight) + int64_t(part.output / OUTPUTS) * taps * TAPS;
  for (int at = first; at < taps; at++) weights.copy(at - first, from + int64_t(at) * TAPS);
}

// A warpgroup's voxels.
template <class T>
struct Consumer {
  const Part<T>& part;
  const int voxel;         // first of this warp's 16, of those of a block of 64
  int rows[BLOCKS];        // that this lane reads for ldmatrix at the first tap
  uint32_t voxels[2][BLOCKS][4];
  float sums[BLOCKS][SUMS] = {};

  __device__ __forceinline__ explicit Consumer(const Part<T>& part)
      : part(part), voxel((threadIdx.x / GROUP - 1) * BLOCKS * 64 + threadIdx.x % GROUP / WARP_SIZE * 16) {
#pragma unroll
    for (int b = 0; b < BLOCKS; b++) {
      const int at = voxel + b * 64;  // 16 voxels are of one line
      rows[b] = at / part.columns * part.pitch() + at % part.columns + threadIdx.x % 16;
    }
  }

  __device__ __forceinline__ void run(const Slices& slices, const Weights& weights) {
    int slice = 0, taps = 0;
    for (int tap = part.first_tap(); tap < part.conv.kt; tap++) {
      for (int chunk = 0; chunk < part.chunks(); chunk++, slice++) {
        slices.wait(slice);
#pragma unroll 1
        for (int row = 0; row < KERNEL_SIZE; row++, taps++) {
          weights.wait(taps);
          multiply(slices.tile(slice), weights.tile(taps), row * part.pitch());
          weights.release(taps);
        }
        slices.release(slice);
      }
    }
  }

  // Adds bias and residual and writes what lies inside of the result.
  __device__ __forceinline__ void finish() {
    const Conv3d<T>& conv = part.conv;
    const int lane = threadIdx.x % WARP_SIZE, output = part.output + lane % 4 * 2;
#pragma unroll
    for (int b = 0; b < BLOCKS; b++) {
#pragma unroll
      for (int h = 0; h < 2; h++) {
        const int at = voxel + b * 64 + lane / 4 + 8 * h;
        const int row = part.row + at / part.columns, column = part.column + at % part.columns;
        if (row >= conv.out_height || column >= conv.out_width) continue;
        const int64_t to = (int64_t(part.frame) * conv.out_height + row) * conv.out_width + column;
        const int64_t first = to * conv.outputs + output;
#pragma unroll
        for (int n = 0; n < OUTPUTS / 8; n++) {
          Pack<T, 2> added = {};
          if (conv.residual) added = load_pack<T, 2>(conv.residual + first + 8 * n);
          Pack<T, 2> pack;
#pragma unroll
          for (int i = 0; i < 2; i++) {
            const float sum = sums[b][4 * n + 2 * h + i] + conv.bias[output + 8 * n + i];
            pack.values[i] = from_float<T>(conv.residual ? sum + to_float(added.values[i]) : sum);
          }
          store_pack(conv.y + first + 8 * n, pack);
        }
      }
    }
  }

 private:
  // Three taps: voxels are read for a step of 16 inputs while the products of the step before run.
  __device__ __forceinline__ void multiply(const uint8_t* slice, const uint8_t* weights, int moved) {
#pragma unroll
    for (int column = 0; column < KERNEL_SIZE; column++) {
      const uint64_t outputs = matrix_descriptor<ROW_BYTES>(weights + column * TAP);
#pragma unroll
      for (int step = 0; step < 2; step++) {
        wgmma_wait<1>();  // those that read the registers filled now
#pragma unroll
        for (int b = 0; b < BLOCKS; b++) {
          pin(voxels[step][b]);
          const int row = rows[b] + moved + column;
          ldmatrix_x4(voxels[step][b], slice + swizzled(row, 2 * step + int(threadIdx.x) / 16 % 2));
        }
        wgmma_fence();
#pragma unroll
        for (int b = 0; b < BLOCKS; b++) wgmma_outputs(T(), sums[b], voxels[step][b], outputs + step * DESCRIPTOR_STEP);
        wgmma_commit();
      }
    }
    wgmma_wait<0>();
#pragma unroll
    for (int b = 0; b < BLOCKS; b++) pin(sums[b]);
  }
};

template <class T>
__device__ __forceinline__ void conv3d(const Conv3d<T>& conv, int columns) {
  DYNAMIC_SHARED(start);
  constexpr int WEIGHTS = Slices::SIZE, PLACES = WEIGHTS + Weights::SIZE, BEHIND = PLACES + SLICE_ROWS * 4;
  uint64_t* barriers = reinterpret_cast<uint64_t*>(start + BEHIND);
  const Slices slices(start, barriers);
  const Weights weights(start + WEIGHTS, barriers + Slices::BARRIERS);
  if (threadIdx.x == 0) {
    constexpr int READERS = CONSUMERS * GROUP / WARP_SIZE;
    slices.init(GATHERERS, READERS);
    weights.init(1, READERS);
    barrier_init_fence();
  }
  __syncthreads();
  const Part<T> part(conv, columns);
  if (threadIdx.x < GROUP) {
    give_registers<PRODUCER_REGISTERS>();
    if (threadIdx.x < GATHERERS) gather(part, slices, reinterpret_cast<int*>(start + PLACES));
    if (threadIdx.x == GATHERERS) bring_weights(part, weights);
  } else {
    take_registers<CONSUMER_REGISTERS>();
    Consumer<T> consumer(part);
    consumer.run(slices, weights);
    consumer.finish();
  }
}

// `columns` of the rectangle: 16, 32 or 64.
#define CONV3D_SM90(T)                                                              \
  KERNEL(conv3d_sm90_##T, THREADS, CONV3D_PARAMETERS(T), int columns) {             \
    conv3d<T>(CONV3D_ARGUMENTS(T), columns);                                        \
  }
CONV3D_SM90(bf16)
CONV3D_SM90(f16)
