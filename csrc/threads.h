// Work handed out in order to a team of threads.
#pragma once

#include <cstdint>

namespace avar {

using Work = void (*)(void* context, int64_t index, char* scratch);

// Calls work(context, i, scratch) for i = 0 .. count - 1. Indices are taken in order, so the work
// of a lower index has been started earlier. scratch belongs to the calling thread and is 64-byte
// aligned.
void parallel_for(int64_t threads, int64_t count, int64_t scratch_bytes, Work work, void* context);

// The name of what runs the threads: "openmp" or "std::thread".
const char* thread_runtime();

}  // namespace avar
