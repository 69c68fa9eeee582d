#define AVAR_ISA avx512_bf16
#include "engine_dot.h"
#include "table.h"

namespace avar {
static const Kernels kernels = avx512_bf16::Table<avx512_bf16::DotEngine>::make("avx512_bf16");
const Kernels* avx512_bf16_kernels(int64_t dtype) {
  return dtype == kBFloat16 ? &kernels : nullptr;
}
}  // namespace avar
