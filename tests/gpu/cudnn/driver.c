// A CUDA driver for a machine without a GPU: as much of one as cuDNN needs to compile attention for a GPU that it is told
// of. It has a GPU that cannot be used, takes every compiled image as it is, and names on stderr the kernels asked for.
#include <stdio.h>

enum { SUCCESS = 0, NO_DEVICE = 100, NOT_SUPPORTED = 801 };
static char any;

int cuInit(unsigned flags) {
  (void)flags;
  return NO_DEVICE;
}
int cuDeviceGetCount(int* count) {
  *count = 1;  // with none, cuDNN does not ask for the kernels it has compiled
  return SUCCESS;
}
int cuDriverGetVersion(int* version) {
  *version = 13000;
  return SUCCESS;
}
int cuLibraryLoadData(void** library) {
  *library = &any;
  return SUCCESS;
}
int cuLibraryUnload(void) { return SUCCESS; }
int cuLibraryGetKernel(void** kernel, void* library, const char* name) {
  (void)library;
  fprintf(stderr, "kernel %s\n", name);
  *kernel = &any;
  return SUCCESS;
}
int cuGetErrorName(int error, const char** name) {
  (void)error;
  *name = "";
  return SUCCESS;
}
int cuGetErrorString(int error, const char** text) { return cuGetErrorName(error, text); }

// Looked for before anything is compiled, by some version of cuDNN at least; not called.
#define ABSENT(name) \
  int name(void) { return NOT_SUPPORTED; }
ABSENT(cuCtxGetCurrent)
ABSENT(cuCtxGetDevice)
ABSENT(cuCtxGetLimit)
ABSENT(cuCtxPopCurrent)
ABSENT(cuCtxPushCurrent)
ABSENT(cuDeviceGet)
ABSENT(cuDeviceGetAttribute)
ABSENT(cuDevicePrimaryCtxRelease)
ABSENT(cuDevicePrimaryCtxReset)
ABSENT(cuDevicePrimaryCtxRetain)
ABSENT(cuFuncGetAttribute)
ABSENT(cuFuncSetAttribute)
ABSENT(cuKernelGetAttribute)
ABSENT(cuKernelGetFunction)
ABSENT(cuKernelSetAttribute)
ABSENT(cuLaunchCooperativeKernel)
ABSENT(cuLaunchKernel)
ABSENT(cuLaunchKernelEx)
ABSENT(cuLibraryLoadFromFile)
ABSENT(cuLinkAddData)
ABSENT(cuLinkAddData_v2)
ABSENT(cuLinkAddFile_v2)
ABSENT(cuLinkComplete)
ABSENT(cuLinkCreate)
ABSENT(cuLinkCreate_v2)
ABSENT(cuLinkDestroy)
ABSENT(cuMemcpyDtoH_v2)
ABSENT(cuModuleGetFunction)
ABSENT(cuModuleGetGlobal_v2)
ABSENT(cuModuleLoadData)
ABSENT(cuModuleLoadDataEx)
ABSENT(cuModuleLoadFatBinary)
ABSENT(cuModuleUnload)
ABSENT(cuOccupancyMaxActiveBlocksPerMultiprocessor)
ABSENT(cuOccupancyMaxPotentialClusterSize)
ABSENT(cuStreamGetCtx)
ABSENT(cuStreamGetGreenCtx)
ABSENT(cuStreamSynchronize)
ABSENT(cuTensorMapEncodeIm2col)
ABSENT(cuTensorMapEncodeTiled)
