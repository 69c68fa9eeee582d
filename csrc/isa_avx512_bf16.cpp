#define AVAR_ISA avx512_bf16
#include "engine_dot.h"
#include "table.h"

namespace avar {
using namespace avx512_bf16;
static const Kernels narrow = Table<Narrow<DotEngine>>::make_narrow("avx512_bf16");
static const Kernels kernels = Table<DotEngine>::make("avx512_bf16", &narrow);
const Kernels* avx512_bf16_kernels(int64_t dtype) {
  return dtype == kBFloat16 ? &kernels : nullptr;
}
}  // namespace avar
