// How others run kernels through the shim: crates/wan-cuda/src/shim.rs, and tests/gpu/emulator.
#pragma once

#include <stdint.h>

extern "C" {

// Arguments as 8-byte slots with a letter each (see Kernel::kinds in runtime.h).
struct WanShimLaunch {
  const char* kernel;
  unsigned grid[3], block[3];
  unsigned shared_bytes;
  const uint64_t* arguments;
  const char* kinds;
};

// Bytes of a message, its end included.
constexpr int WAN_SHIM_MESSAGE_BYTES = 1024;

// Runs the blocks `first`, `first + step`, ... of a launch; 0, or 1 with `message` filled.
int wan_shim_run(const WanShimLaunch* request, uint64_t first, uint64_t step, char* message);

// The letters of a kernel's arguments; null if there is none of that name.
const char* wan_shim_kinds(const char* kernel);

}  // extern "C"
