#define AVAR_ISA portable
#include "engine_f32.h"
#include "table.h"

namespace avar {
using namespace portable;
static const Kernels narrow = Table<Narrow<FloatEngine>>::make_narrow("portable");
static const Kernels kernels = Table<FloatEngine>::make("portable", &narrow);
const Kernels* portable_kernels(int64_t) { return &kernels; }
}  // namespace avar
