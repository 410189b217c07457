// What the parts of the emulated driver share.
#pragma once

#include <memory>
#include <mutex>

#include "emulator.h"

struct Marker;

namespace emulator {

// Held by every call that touches what follows.
extern std::recursive_mutex mutex;
using Lock = std::lock_guard<std::recursive_mutex>;

// What all calls return since something failed.
extern CUresult failed;

// An environment variable's number.
unsigned number(const char* variable, unsigned otherwise);

// Puts work onto a stream that may not begin before `after` is reached.
void enqueue_after(std::shared_ptr<Marker> after, CUstream stream);

// Tells that kernels run on a stream: it is not one for copies alone.
void computes_on(CUstream stream);

// Does all work of one stream, or of all.
void drain(CUstream stream);
void drain_all();

}  // namespace emulator
