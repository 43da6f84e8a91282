// The calls of CUDA's runtime and driver that onesearch.compiling.cuda makes, over the processor's memory.
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static int allocated, recording, recordings;
static uintptr_t serial;
static void (*again)(void *);

int fake_allocated(void) { return allocated; }
int fake_recording(void) { return recording; }
int fake_recordings(void) { return recordings; }
void fake_on_launch(void (*run)(void *)) { again = run; }

const char *cudaGetErrorString(int status) { return status == 2 ? "out of memory" : "invalid argument"; }
int cudaGetDeviceCount(int *count) { *count = 1; return 0; }
int cudaStreamCreateWithFlags(void **stream, unsigned flags) { *stream = (void *)(uintptr_t)(0x1230 + flags); return 0; }
int cudaStreamSynchronize(void *stream) { return stream != (void *)0x1231; }
int cudaMalloc(void **pointer, size_t size) {
  if (size > ((size_t)1 << 40)) return 2;
  *pointer = malloc(size);
  ++allocated;
  return 0;
}
int cudaFree(void *pointer) { free(pointer); --allocated; return 0; }
int cudaMemcpyAsync(void *to, const void *from, size_t size, int kind, void *stream) {
  if (stream != (void *)0x1231 || kind < 1 || kind > 3) return 1;
  memcpy(to, from, size);
  return 0;
}
int cudaStreamBeginCapture(void *stream, int mode) { recording = 1; return stream != (void *)0x1231 || mode != 1; }
int cudaStreamEndCapture(void *stream, void **graph) { recording = 0; *graph = malloc(8); return stream != (void *)0x1231; }
int cudaGraphInstantiateWithFlags(void **made, void *graph, unsigned long long flags) {
  if (!graph || flags) return 1;
  *made = (void *)++serial;
  ++recordings;
  return 0;
}
int cudaGraphDestroy(void *graph) { free(graph); return 0; }
int cudaGraphExecDestroy(void *made) { --recordings; return !made; }
int cudaGraphLaunch(void *made, void *stream) {
  if (!made || stream != (void *)0x1231) return 1;
  again(made);
  return 0;
}
int cuInit(unsigned flags) { return flags; }
int cuDeviceGet(int *device, int ordinal) { *device = ordinal + 7; return 0; }
int cuDeviceGetName(char *name, int room, int device) {
  if (device != 7 || room < 16) return 1;
  strcpy(name, "Simulated GPU");
  return 0;
}
