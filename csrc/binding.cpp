// The functions that Python calls through ctypes. They use neither Python nor torch, so one build
// serves all versions of both.
#include "cpu_features.h"
#include "driver.h"
#include "threads.h"

#define AVAR_EXPORT extern "C" __attribute__((visibility("default")))

// Bytes of Args; Python compares them with those of its own structure.
AVAR_EXPORT int64_t avar_args_bytes() { return sizeof(avar::Args); }

// The names of the instruction sets, least first; null after the last.
AVAR_EXPORT const char* avar_isa_name(int64_t isa) { return avar::isa_name(isa); }
AVAR_EXPORT int64_t avar_isa_runs(int64_t isa) { return avar::isa_runs(isa); }

AVAR_EXPORT const char* avar_thread_runtime() { return avar::thread_runtime(); }

AVAR_EXPORT void avar_forward(const avar::Args* args) { avar::forward(*args); }
AVAR_EXPORT void avar_backward(const avar::Args* args) { avar::backward(*args); }
