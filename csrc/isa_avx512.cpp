#define AVAR_ISA avx512
#include "engine_f32.h"
#include "table.h"

namespace avar {
static const Kernels kernels = avx512::Table<avx512::FloatEngine>::make("avx512");
const Kernels* avx512_kernels(int64_t) { return &kernels; }
}  // namespace avar
