// Opens NVIDIA's libraries when one of their functions is first called (see ../build/main.rs).

#include <dlfcn.h>
#include <stddef.h>
#include <stdio.h>

// One function: where its stand-in jumps to, and what it is.
struct record {
  void *target;
  const char *name;
  size_t library;
};

static const char *const sonames[] = {
#include "sonames.h"
};
enum { LIBRARIES = sizeof(sonames) / sizeof(sonames[0]) };

// Where a library is looked for: as the system does (LD_LIBRARY_PATH, its cache), then where toolkits lie.
static const char *const folders[] = {"", "/usr/local/cuda/lib64/", "/opt/cuda/lib64/"};

static void *library(size_t index) {
  static void *handles[LIBRARIES];
  void *handle = __atomic_load_n(&handles[index], __ATOMIC_ACQUIRE);
  for (size_t i = 0; !handle && i < sizeof(folders) / sizeof(folders[0]); i++) {
    char path[256];
    snprintf(path, sizeof(path), "%s%s", folders[i], sonames[index]);
    handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  }
  if (handle) __atomic_store_n(&handles[index], handle, __ATOMIC_RELEASE);
  return handle;
}

// Stands for a function of a library that is not there. Every status type of these libraries reads it as an error.
static int unavailable(void) { return 999; }

void *wan_cuda_find(struct record *record);
void *wan_cuda_find(struct record *record) {
  void *handle = library(record->library);
  void *function = handle ? dlsym(handle, record->name) : NULL;
  if (!function) return (void *)unavailable;
  __atomic_store_n(&record->target, function, __ATOMIC_RELEASE);
  return function;
}

// The first library that cannot be opened; null if there is none.
const char *wan_cuda_missing(void);
const char *wan_cuda_missing(void) {
  for (size_t i = 0; i < LIBRARIES; i++) {
    if (!library(i)) return sonames[i];
  }
  return NULL;
}
