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

static void *open_path(const char *parent, const char *folder, const char *name) {
  char path[PATH_MAX];
  int length = snprintf(path, sizeof(path), "%s%s%s", parent, folder, name);
  return length < (int)sizeof(path) ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : NULL;
}

// NVRTC opens a second library by its bare name when it first compiles, and does not look beside itself for it: where it
// was opened from a folder that the system does not search, so is that one, beforehand.
static void open_builtins(void *nvrtc, const char *parent, const char *folder) {
  int major, minor;
  int (*version)(int *, int *) = (int (*)(int *, int *))dlsym(nvrtc, "nvrtcVersion");
  char name[64];
  if (!version || version(&major, &minor) != 0) return;
  snprintf(name, sizeof(name), "libnvrtc-builtins.so.%d.%d", major, minor);
  open_path(parent, folder, name);
}

static void *open_in(const char *parent, const char *folder, size_t index) {
  void *handle = open_path(parent, folder, sonames[index]);
  int in_folder = *parent || *folder;
  if (handle && in_folder && strncmp(sonames[index], "libnvrtc.", 9) == 0) open_builtins(handle, parent, folder);
  return handle;
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

// Stand for a function of a library that is not there: an error of its status type, "unknown" or "internal".
static int unavailable(void) { return 999; }
static int unavailable_blas(void) { return 14; }
static int unavailable_compiler(void) { return 11; }

static void *error_of(const char *soname) {
  if (strncmp(soname, "libcublas", 9) == 0) return (void *)unavailable_blas;
  if (strncmp(soname, "libnvrtc", 8) == 0) return (void *)unavailable_compiler;
  return (void *)unavailable;
}

void *wan_cuda_find(struct record *record);
void *wan_cuda_find(struct record *record) {
  void *handle = library(record->library);
  void *function = handle ? dlsym(handle, record->name) : NULL;
  if (!function) return error_of(sonames[record->library]);
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
