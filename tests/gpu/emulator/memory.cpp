// Memory: what is allocated, on the device and pinned, and copies.
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <map>

#include "driver.h"

using namespace emulator;

struct CUmemPoolHandle_st {};

namespace {

constexpr size_t ALIGNMENT = 256;
constexpr size_t GUARD = 256;
constexpr int POISON = 0xff;

struct Allocation {
  size_t bytes;
  bool pooled;
};

CUmemPoolHandle_st pool;
std::map<uintptr_t, Allocation> device_memory;
std::map<uintptr_t, size_t> pinned_memory;
size_t used = 0, pool_used = 0, most_pool_used = 0;

size_t total_memory() {
  static const size_t bytes = size_t(number("EMULATOR_MEMORY_MIB", 4096)) << 20;
  return bytes;
}

// What can be allocated: less than there is said to be, where another program has taken some of it since.
size_t limit() {
  static const unsigned mib = number("EMULATOR_LIMIT_MIB", 0);
  return mib > 0 ? size_t(mib) << 20 : total_memory();
}

// The allocation that holds all of `bytes` from `address` on.
bool is_inside(const std::map<uintptr_t, Allocation>& memory, uintptr_t address, size_t bytes) {
  auto next = memory.upper_bound(address);
  if (next == memory.begin()) return false;
  --next;
  return address + bytes <= next->first + next->second.bytes;
}

bool is_device(CUdeviceptr address, size_t bytes, const char* what) {
  if (is_inside(device_memory, uintptr_t(address), bytes)) return true;
  fail(std::string(what) + ": " + std::to_string(bytes) + " bytes outside of the device's memory");
  return false;
}

bool is_pinned(const void* address, size_t bytes) {
  auto next = pinned_memory.upper_bound(uintptr_t(address));
  if (next == pinned_memory.begin()) return false;
  --next;
  return uintptr_t(address) + bytes <= next->first + next->second;
}

CUresult allocate(CUdeviceptr* address, size_t bytes, bool pooled) {
  if (bytes == 0) return CUDA_ERROR_INVALID_VALUE;
  // What is freed on a stream comes back when the stream gets there.
  if (used + bytes > limit()) drain_all();
  if (used + bytes > limit()) return CUDA_ERROR_OUT_OF_MEMORY;
  const size_t rounded = (bytes + GUARD + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
  void* memory = aligned_alloc(ALIGNMENT, rounded);
  if (!memory) return CUDA_ERROR_OUT_OF_MEMORY;
  memset(memory, POISON, rounded);
  device_memory[uintptr_t(memory)] = {bytes, pooled};
  used += bytes;
  if (pooled) pool_used += bytes;
  if (pool_used > most_pool_used) most_pool_used = pool_used;
  *address = CUdeviceptr(memory);
  return CUDA_SUCCESS;
}

void release(CUdeviceptr address) {
  const auto found = device_memory.find(uintptr_t(address));
  if (found == device_memory.end()) return fail("freed what is not allocated");
  const Allocation allocation = found->second;
  uint8_t* memory = reinterpret_cast<uint8_t*>(address);
  for (size_t i = 0; i < GUARD; i++) {
    if (memory[allocation.bytes + i] == POISON) continue;
    fail("wrote past an allocation of " + std::to_string(allocation.bytes) + " bytes");
    break;
  }
  used -= allocation.bytes;
  if (allocation.pooled) pool_used -= allocation.bytes;
  device_memory.erase(found);
  memset(memory, POISON, allocation.bytes);
  free(memory);
}

}  // namespace

extern "C" {

CUresult cuDeviceGetDefaultMemPool(CUmemoryPool* of, CUdevice) {
  *of = &pool;
  return CUDA_SUCCESS;
}
CUresult cuMemGetInfo(size_t* free_bytes, size_t* total) {
  Lock lock(mutex);
  drain_all();
  *total = total_memory();
  *free_bytes = *total - used;
  return CUDA_SUCCESS;
}
CUresult cuMemAlloc(CUdeviceptr* address, size_t bytes) {
  Lock lock(mutex);
  return failed != CUDA_SUCCESS ? failed : allocate(address, bytes, false);
}
// The memory may be another's until the stream gets here.
CUresult cuMemAllocAsync(CUdeviceptr* address, size_t bytes, CUstream stream) {
  Lock lock(mutex);
  const CUresult result = failed != CUDA_SUCCESS ? failed : allocate(address, bytes, true);
  if (result == CUDA_SUCCESS) {
    void* memory = reinterpret_cast<void*>(*address);
    enqueue(stream, [=] { memset(memory, POISON, bytes); });
  }
  return result;
}
CUresult cuMemFree(CUdeviceptr address) {
  Lock lock(mutex);
  drain_all();
  release(address);
  return failed;
}
CUresult cuMemFreeAsync(CUdeviceptr address, CUstream stream) {
  enqueue(stream, [=] { release(address); });
  return failed;
}
CUresult cuMemHostAlloc(void** address, size_t bytes, unsigned) {
  Lock lock(mutex);
  *address = aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
  if (!*address) return CUDA_ERROR_OUT_OF_MEMORY;
  memset(*address, POISON, bytes);
  pinned_memory[uintptr_t(*address)] = bytes;
  return CUDA_SUCCESS;
}
CUresult cuMemFreeHost(void* address) {
  Lock lock(mutex);
  drain_all();
  pinned_memory.erase(uintptr_t(address));
  free(address);
  return failed;
}
CUresult cuMemPoolSetAttribute(CUmemoryPool, CUmemPool_attribute, void*) { return CUDA_SUCCESS; }
CUresult cuMemPoolGetAttribute(CUmemoryPool, CUmemPool_attribute attribute, void* value) {
  Lock lock(mutex);
  uint64_t found = 0;
  if (attribute == CU_MEMPOOL_ATTR_USED_MEM_CURRENT || attribute == CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT) found = pool_used;
  if (attribute == CU_MEMPOOL_ATTR_USED_MEM_HIGH || attribute == CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH) found = most_pool_used;
  memcpy(value, &found, sizeof(found));
  return CUDA_SUCCESS;
}
CUresult cuMemPoolTrimTo(CUmemoryPool, size_t) { return CUDA_SUCCESS; }

// Pinned memory is read when the stream gets there, other memory at once.
CUresult cuMemcpyHtoDAsync(CUdeviceptr to, const void* from, size_t bytes, CUstream stream) {
  Lock lock(mutex);
  if (is_pinned(from, bytes)) {
    enqueue(stream, [=] {
      if (is_device(to, bytes, "copy to the device")) memcpy(reinterpret_cast<void*>(to), from, bytes);
    });
  } else {
    const uint8_t* start = static_cast<const uint8_t*>(from);
    auto staged = std::make_shared<std::vector<uint8_t>>(start, start + bytes);
    enqueue(stream, [=] {
      if (is_device(to, bytes, "copy to the device")) memcpy(reinterpret_cast<void*>(to), staged->data(), bytes);
    });
  }
  return failed;
}
CUresult cuMemcpyDtoHAsync(void* to, CUdeviceptr from, size_t bytes, CUstream stream) {
  Lock lock(mutex);
  enqueue(stream, [=] {
    if (is_device(from, bytes, "copy from the device")) memcpy(to, reinterpret_cast<const void*>(from), bytes);
  });
  if (!is_pinned(to, bytes)) drain(stream);
  return failed;
}
CUresult cuMemcpyDtoDAsync(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream) {
  enqueue(stream, [=] {
    if (is_device(from, bytes, "copy") && is_device(to, bytes, "copy")) {
      memmove(reinterpret_cast<void*>(to), reinterpret_cast<const void*>(from), bytes);
    }
  });
  return failed;
}
CUresult cuMemcpyPeerAsync(CUdeviceptr to, CUcontext, CUdeviceptr from, CUcontext, size_t bytes, CUstream stream) {
  return cuMemcpyDtoDAsync(to, from, bytes, stream);
}
CUresult cuMemsetD8Async(CUdeviceptr to, unsigned char value, size_t bytes, CUstream stream) {
  enqueue(stream, [=] {
    if (is_device(to, bytes, "memset")) memset(reinterpret_cast<void*>(to), value, bytes);
  });
  return failed;
}

}  // extern "C"
