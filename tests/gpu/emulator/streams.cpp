// Streams, events, and the order in which their work is done.
//
// Streams are done when somebody waits for them, one at a time. With EMULATOR_COPIES=early those that have only copies go
// as far ahead as their own waits allow instead: the other extreme of what a GPU may do.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <chrono>
#include <deque>

#include "driver.h"

// A place in a stream.
struct Marker {
  CUstream stream;
  bool reached = false;
  std::chrono::steady_clock::time_point time;
};

struct Work {
  std::function<void()> run;
  std::shared_ptr<Marker> after;  // may be null
};

struct CUstream_st {
  std::deque<Work> queue;
  bool computes = false;
  bool advancing = false;
};

struct CUevent_st {
  std::shared_ptr<Marker> marker;
};

namespace {

CUstream default_stream() {
  static CUstream_st stream;
  return &stream;
}

std::vector<CUstream>& streams() {
  static std::vector<CUstream> all = {default_stream()};
  return all;
}

CUstream stream_of(CUstream stream) {
  const bool is_default = !stream || stream == CU_STREAM_LEGACY || stream == CU_STREAM_PER_THREAD;
  return is_default ? default_stream() : stream;
}

bool copies_are_early() {
  static const char* text = getenv("EMULATOR_COPIES");
  return text && strcmp(text, "early") == 0;
}

void advance(CUstream stream);

void reach(const Marker& marker) {
  while (!marker.reached && !marker.stream->queue.empty()) advance(marker.stream);
}

// Does the first piece of work of a stream, and before it what it waits for.
void advance(CUstream stream) {
  if (const auto after = stream->queue.front().after) reach(*after);
  // Streams that wait for one another may have done it already.
  if (stream->queue.empty()) return;
  Work work = std::move(stream->queue.front());
  stream->queue.pop_front();
  if (emulator::failed == CUDA_SUCCESS) work.run();
}

void copy_ahead() {
  if (!copies_are_early()) return;
  for (CUstream stream : streams()) {
    if (stream->computes || stream->advancing || stream == default_stream()) continue;
    stream->advancing = true;
    while (!stream->queue.empty() && (!stream->queue.front().after || stream->queue.front().after->reached)) advance(stream);
    stream->advancing = false;
  }
}

}  // namespace

namespace emulator {

std::recursive_mutex mutex;
CUresult failed = CUDA_SUCCESS;

unsigned number(const char* variable, unsigned otherwise) {
  const char* text = getenv(variable);
  return text ? unsigned(strtoul(text, nullptr, 10)) : otherwise;
}

void enqueue(CUstream stream, std::function<void()> work) {
  Lock lock(mutex);
  stream_of(stream)->queue.push_back({std::move(work), nullptr});
  copy_ahead();
}

void enqueue_after(std::shared_ptr<Marker> after, CUstream stream) {
  Lock lock(mutex);
  stream_of(stream)->queue.push_back({[] {}, std::move(after)});
  copy_ahead();
}

void computes_on(CUstream stream) { stream_of(stream)->computes = true; }

void drain(CUstream stream) {
  while (!stream_of(stream)->queue.empty()) advance(stream_of(stream));
}

void drain_all() {
  for (size_t i = 0; i < streams().size(); i++) drain(streams()[i]);
}

void fail(const std::string& message) {
  if (failed == CUDA_SUCCESS) fprintf(stderr, "emulated GPU: %s\n", message.c_str());
  failed = CUDA_ERROR_LAUNCH_FAILED;
}

}  // namespace emulator

using namespace emulator;

extern "C" {

CUresult cuStreamCreate(CUstream* stream, unsigned) {
  Lock lock(mutex);
  *stream = new CUstream_st;
  streams().push_back(*stream);
  return CUDA_SUCCESS;
}
// The handle stays: events may still name it.
CUresult cuStreamDestroy(CUstream stream) {
  Lock lock(mutex);
  drain(stream);
  return failed;
}
CUresult cuStreamSynchronize(CUstream stream) {
  Lock lock(mutex);
  drain(stream);
  return failed;
}
CUresult cuStreamIsCapturing(CUstream, CUstreamCaptureStatus* status) {
  *status = CU_STREAM_CAPTURE_STATUS_NONE;
  return CUDA_SUCCESS;
}
CUresult cuStreamWaitEvent(CUstream stream, CUevent event, unsigned) {
  Lock lock(mutex);
  if (event->marker) enqueue_after(event->marker, stream);
  return failed;
}
CUresult cuEventCreate(CUevent* event, unsigned) {
  *event = new CUevent_st;
  return CUDA_SUCCESS;
}
CUresult cuEventDestroy(CUevent event) {
  Lock lock(mutex);
  delete event;
  return CUDA_SUCCESS;
}
CUresult cuEventRecord(CUevent event, CUstream stream) {
  Lock lock(mutex);
  auto marker = std::make_shared<Marker>();
  marker->stream = stream_of(stream);
  event->marker = marker;
  enqueue(stream, [=] {
    marker->reached = true;
    marker->time = std::chrono::steady_clock::now();
    copy_ahead();
  });
  return failed;
}
CUresult cuEventSynchronize(CUevent event) {
  Lock lock(mutex);
  if (event->marker) reach(*event->marker);
  return failed;
}
CUresult cuEventElapsedTime(float* milliseconds, CUevent start, CUevent end) {
  Lock lock(mutex);
  if (!start->marker || !end->marker || !start->marker->reached || !end->marker->reached) return CUDA_ERROR_NOT_READY;
  *milliseconds = std::chrono::duration<float, std::milli>(end->marker->time - start->marker->time).count();
  return failed;
}

}  // extern "C"
