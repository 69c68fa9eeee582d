#include "cpu_features.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace avar {
namespace {

struct Isa {
  const char* name;
  const Kernels* (*kernels)(int64_t dtype);
  bool (*runs)();
};

#if defined(__x86_64__)
bool runs_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

bool runs_avx512() {
  return runs_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
}

bool runs_avx512_bf16() {
  unsigned a, b, c, d;
  return runs_avx512() && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 5 & 1);
}

#if defined(__linux__) && defined(SYS_arch_prctl)
bool runs_amx() {
  unsigned a, b, c, d;
  if (!runs_avx512_bf16() || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
  if (!(d >> 22 & 1) || !(d >> 24 & 1)) return false;  // AMX-BF16, AMX-TILE
  // Linux grants tile registers on request, to the whole process: 0x1023 is
  // ARCH_REQ_XCOMP_PERM, 18 the state component of tile data.
  return syscall(SYS_arch_prctl, 0x1023, 18) == 0;
}
#else
bool runs_amx() { return false; }
#endif
#endif

bool always() { return true; }

const Isa kIsas[] = {
    {"portable", portable_kernels, always},
#if defined(__x86_64__)
    {"avx2", avx2_kernels, runs_avx2},
    {"avx512", avx512_kernels, runs_avx512},
    {"avx512_bf16", avx512_bf16_kernels, runs_avx512_bf16},
    {"amx", amx_kernels, runs_amx},
#endif
};
constexpr int64_t kKnown = sizeof(kIsas) / sizeof(kIsas[0]);

}  // namespace

const char* isa_name(int64_t isa) { return isa < kKnown ? kIsas[isa].name : nullptr; }

bool isa_runs(int64_t isa) { return isa < kKnown && kIsas[isa].runs(); }

const Kernels& kernels_of(int64_t isa, int64_t dtype) {
  const Kernels* found = nullptr;
  for (; !found; --isa) found = kIsas[isa].kernels(dtype);
  return *found;
}

}  // namespace avar
