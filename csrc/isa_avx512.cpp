#define AVAR_ISA avx512
#include "engine_f32.h"
#include "table.h"

namespace avar {
using namespace avx512;
static const Kernels narrow = Table<Narrow<FloatEngine>>::make_narrow("avx512");
static const Kernels kernels = Table<FloatEngine>::make("avx512", &narrow);
const Kernels* avx512_kernels(int64_t) { return &kernels; }
}  // namespace avar
