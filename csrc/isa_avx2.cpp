#define AVAR_ISA avx2
#include "engine_f32.h"
#include "table.h"

namespace avar {
using namespace avx2;
static const Kernels narrow = Table<Narrow<FloatEngine>>::make_narrow("avx2");
static const Kernels kernels = Table<FloatEngine>::make("avx2", &narrow);
const Kernels* avx2_kernels(int64_t) { return &kernels; }
}  // namespace avar
