// The threads are those of the OpenMP runtime that torch has loaded, called through its entry
// point. Its workers are awake already, and two pools on the same cores would wait for each other.
// Where torch has no such runtime, new threads are started for each call.
#include "threads.h"

#include <atomic>
#include <cstdlib>
#include <thread>
#include <vector>

#if defined(__linux__)
#include <dlfcn.h>
#include <link.h>

#include <cstring>
#endif
#if defined(__x86_64__)
#include <immintrin.h>
#endif
#include <sched.h>

namespace avar {

void wait_a_little() {
#if defined(__x86_64__)
  for (int i = 0; i < 64; ++i) _mm_pause();
#endif
  sched_yield();
}

namespace {

using GompParallel = void (*)(void (*)(void*), void*, unsigned, unsigned);

#if defined(__linux__)
// The symbol is looked up from libtorch_cpu. That finds the runtime which torch was linked to, even
// if the process has loaded others.
int find_torch(dl_phdr_info* info, size_t, void* path) {
  const char* name = info->dlpi_name ? std::strstr(info->dlpi_name, "libtorch_cpu") : nullptr;
  if (!name) return 0;
  *static_cast<const char**>(path) = info->dlpi_name;
  return 1;
}

GompParallel find_runtime() {
  const char* path = nullptr;
  dl_iterate_phdr(find_torch, &path);
  void* torch = path ? dlopen(path, RTLD_LAZY | RTLD_NOLOAD) : nullptr;
  return torch ? reinterpret_cast<GompParallel>(dlsym(torch, "GOMP_parallel")) : nullptr;
}
#else
GompParallel find_runtime() { return nullptr; }
#endif

GompParallel runtime() {
  static const GompParallel found = find_runtime();
  return found;
}

// Scratch memory of a thread. It is kept from call to call, because fresh pages cost more than a
// small problem; large memory is given back.
struct Scratch {
  static constexpr int64_t kKeptBytes = 16 << 20;
  char* data = nullptr;
  int64_t bytes = 0;

  char* at_least(int64_t wanted) {
    if (wanted > bytes) {
      std::free(data);
      bytes = (wanted + 63) / 64 * 64;
      data = static_cast<char*>(std::aligned_alloc(64, bytes));
      if (!data) std::abort();  // out of memory inside a team of threads: nobody could catch it
    }
    return data;
  }
  void shrink() {
    if (bytes > kKeptBytes) release();
  }
  void release() {
    std::free(data);
    data = nullptr;
    bytes = 0;
  }
  ~Scratch() { release(); }
};

struct Team {
  std::atomic<int64_t> next{0};
  int64_t count, scratch_bytes;
  Work work;
  void* context;
};

void run(void* data) {
  Team& team = *static_cast<Team*>(data);
  thread_local Scratch scratch;
  for (;;) {
    const int64_t index = team.next.fetch_add(1);
    if (index >= team.count) break;
    team.work(team.context, index, scratch.at_least(team.scratch_bytes));
  }
  scratch.shrink();
}

}  // namespace

void parallel_for(int64_t threads, int64_t count, int64_t scratch_bytes, Work work,
                  void* context) {
  Team team;
  team.count = count;
  team.scratch_bytes = scratch_bytes;
  team.work = work;
  team.context = context;
  if (threads > count) threads = count;
  if (threads <= 1) {
    run(&team);
  } else if (runtime()) {
    runtime()(run, &team, static_cast<unsigned>(threads), 0);
  } else {
    std::vector<std::thread> others;
    for (int64_t i = 1; i < threads; ++i) others.emplace_back(run, &team);
    run(&team);
    for (std::thread& other : others) other.join();
  }
}

const char* thread_runtime() { return runtime() ? "openmp" : "std::thread"; }

}  // namespace avar
