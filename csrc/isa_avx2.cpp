#define AVAR_ISA avx2
#include "engine_f32.h"
#include "table.h"

namespace avar {
static const Kernels kernels = avx2::Table<avx2::FloatEngine>::make("avx2");
const Kernels* avx2_kernels(int64_t) { return &kernels; }
}  // namespace avar
