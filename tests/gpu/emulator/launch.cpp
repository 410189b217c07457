// Modules, and kernels: this repository's as kernels/shim runs them, candle's by what they mean.
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <thread>

#include "driver.h"
#include "shim/launch.h"

using namespace emulator;

struct CUmod_st {
  std::string image;
};

struct CUfunc_st {
  std::string name;
  unsigned shared_bytes = 48 << 10;  // that a launch may ask for
};

namespace {

// Bytes of a module: PTX is text, a cubin an ELF file whose sections' headers come last.
size_t image_bytes(const void* image) {
  const uint8_t* bytes = static_cast<const uint8_t*>(image);
  if (memcmp(bytes, "\x7f" "ELF", 4) != 0) return strlen(static_cast<const char*>(image));
  uint64_t program, sections;
  uint16_t program_size, program_count, section_size, section_count;
  memcpy(&program, bytes + 32, 8);
  memcpy(&sections, bytes + 40, 8);
  memcpy(&program_size, bytes + 54, 2);
  memcpy(&program_count, bytes + 56, 2);
  memcpy(&section_size, bytes + 58, 2);
  memcpy(&section_count, bytes + 60, 2);
  const uint64_t ends[] = {program + uint64_t(program_size) * program_count,
                           sections + uint64_t(section_size) * section_count};
  return ends[0] > ends[1] ? ends[0] : ends[1];
}

// Whether an image has a kernel: PTX declares it, a cubin has it among its strings.
bool has_kernel(const std::string& image, const std::string& name) {
  return image.find(".entry " + name + "(") != std::string::npos ||
         image.find(std::string(1, 0) + name + std::string(1, 0)) != std::string::npos;
}

// Whether the file that EMULATOR_FAULT names has appeared; then it is gone.
bool fault_is_due() {
  static const char* file = getenv("EMULATOR_FAULT");
  return file && unlink(file) == 0;
}

// Whether EMULATOR_SKIP names a kernel: it then leaves its output as it is.
bool is_skipped(const std::string& name) {
  static const char* skipped = getenv("EMULATOR_SKIP");
  return skipped && name == skipped;
}

size_t bytes_of(char kind) {
  switch (kind) {
    case 'b': return 1;
    case 'h': return 2;
    case 'i': case 'u': case 'f': return 4;
    default: return 8;
  }
}

void run_kernel(const std::string& name, const unsigned (&grid)[3], const unsigned (&block)[3], unsigned shared,
                const std::vector<uint64_t>& arguments) {
  const WanShimLaunch request = {name.c_str(), {grid[0], grid[1], grid[2]}, {block[0], block[1], block[2]}, shared,
                                 arguments.data(), wan_shim_kinds(name.c_str())};
  const unsigned count = std::thread::hardware_concurrency() > 1 ? std::thread::hardware_concurrency() : 1;
  std::vector<std::string> messages(count);
  std::vector<std::thread> threads;
  for (unsigned i = 0; i < count; i++) {
    threads.emplace_back([&, i] {
      char message[WAN_SHIM_MESSAGE_BYTES] = "";
      if (wan_shim_run(&request, i, count, message) != 0) messages[i] = message;
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const std::string& message : messages) {
    if (!message.empty()) return fail(message);
  }
}

}  // namespace

extern "C" {

CUresult cuModuleLoadData(CUmodule* module, const void* image) {
  *module = new CUmod_st{std::string(static_cast<const char*>(image), image_bytes(image))};
  return CUDA_SUCCESS;
}
CUresult cuModuleLoad(CUmodule*, const char*) { return CUDA_ERROR_NOT_SUPPORTED; }
CUresult cuModuleUnload(CUmodule module) {
  delete module;
  return CUDA_SUCCESS;
}
CUresult cuModuleGetFunction(CUfunction* function, CUmodule module, const char* name) {
  if (!has_kernel(module->image, name)) return CUDA_ERROR_NOT_FOUND;
  *function = new CUfunc_st{name};
  return CUDA_SUCCESS;
}
CUresult cuFuncSetAttribute(CUfunction function, CUfunction_attribute attribute, int value) {
  constexpr int MOST = 227 << 10;
  if (attribute != CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES) return CUDA_ERROR_NOT_SUPPORTED;
  if (value > MOST) return CUDA_ERROR_INVALID_VALUE;
  function->shared_bytes = unsigned(value);
  return CUDA_SUCCESS;
}
CUresult cuLaunchKernel(CUfunction function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                        unsigned shared, CUstream stream, void** parameters, void**) {
  Lock lock(mutex);
  if (fault_is_due()) fail("a fault, as EMULATOR_FAULT asks");
  if (failed != CUDA_SUCCESS) return failed;
  computes_on(stream);
  if (shared > function->shared_bytes || gx * gy * gz == 0 || bx * by * bz == 0) return CUDA_ERROR_INVALID_VALUE;
  const std::string name = function->name;
  const char* own = wan_shim_kinds(name.c_str());
  const CandleKernel foreign = own ? CandleKernel() : candle_kernel(name);
  const std::string kinds = own ? own : foreign.kinds;
  if (kinds.empty()) {
    fail("kernel " + name + " is not emulated (tests/gpu/emulator/candle.cpp)");
    return failed;
  }
  std::vector<uint64_t> arguments(kinds.size());
  for (size_t i = 0; i < kinds.size(); i++) memcpy(&arguments[i], parameters[i], bytes_of(kinds[i]));
  if (is_skipped(name)) return failed;
  if (own) {
    enqueue(stream, [=] { run_kernel(name, {gx, gy, gz}, {bx, by, bz}, shared, arguments); });
  } else {
    enqueue(stream, [=] { foreign.run(arguments); });
  }
  return failed;
}

}  // extern "C"
