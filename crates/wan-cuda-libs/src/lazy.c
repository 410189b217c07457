// Opens NVIDIA's libraries when one of their functions is first called (see ../build/main.rs).

#include <dlfcn.h>
#include <limits.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define COUNT(list) (sizeof(list) / sizeof((list)[0]))

// One function: where its stand-in jumps to, and what it is.
struct record {
  void *target;
  const char *name;
  size_t library;
};

static const char *const sonames[] = {
#include "sonames.h"
};
enum { LIBRARIES = COUNT(sonames) };

// Where a library is looked for: as the system does (LD_LIBRARY_PATH, its cache), where toolkits lie, and beside the
// program, bare or as `pip install --target lib` leaves NVIDIA's wheels.
static const char *const folders[] = {"", "/usr/local/cuda/lib64/", "/opt/cuda/lib64/"};
static const char *const beside[] = {"lib/", "lib/nvidia/cu13/lib/"};

static void *open_in(const char *parent, const char *folder, size_t index) {
  char path[PATH_MAX];
  int length = snprintf(path, sizeof(path), "%s%s%s", parent, folder, sonames[index]);
  return length < (int)sizeof(path) ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : NULL;
}

// The folder of this program, with its last slash; empty where it is not known.
static void program_folder(char *folder, size_t size) {
  ssize_t length = readlink("/proc/self/exe", folder, size - 1);
  folder[length < 0 ? 0 : length] = 0;
  char *slash = strrchr(folder, '/');
  if (slash) slash[1] = 0;
}

static void *library(size_t index) {
  static void *handles[LIBRARIES];
  void *handle = __atomic_load_n(&handles[index], __ATOMIC_ACQUIRE);
  for (size_t i = 0; !handle && i < COUNT(folders); i++) handle = open_in("", folders[i], index);
  if (!handle) {
    char parent[PATH_MAX];
    program_folder(parent, sizeof(parent));
    for (size_t i = 0; *parent && !handle && i < COUNT(beside); i++) handle = open_in(parent, beside[i], index);
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
