// A GPU without a GPU: NVIDIA's libraries as far as wan-run calls them, on the host.
//
// Kernels of this repository run as kernels/shim runs them, the few of candle's that are used by what they mean
// (candle.cpp), products as plain loops (blas.cpp). Streams are what a program must expect of them at their worst: work is
// done when somebody waits for it, not before, and streams that nobody orders are not in order. Memory is NaN until it is
// written and again once it is freed, and there is only so much of it.
#pragma once

#include <cuda.h>
#include <stdint.h>

#include <functional>
#include <string>
#include <vector>

namespace emulator {

// Puts work onto a stream (null: the default stream).
void enqueue(CUstream stream, std::function<void()> work);

// Ends the work with an error that all later calls return, and prints it.
void fail(const std::string& message);

// A kernel of candle's by its name: one letter a parameter (as in kernels/shim/runtime.h, and l: size_t, d: double, h and b:
// 2 bytes and 1), and what it does with a whole grid.
struct CandleKernel {
  std::string kinds;
  std::function<void(const std::vector<uint64_t>&)> run;
};
// No kinds for a name that is not known.
CandleKernel candle_kernel(const std::string& name);

}  // namespace emulator
