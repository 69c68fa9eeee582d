#define AVAR_ISA portable
#include "engine_f32.h"
#include "table.h"

namespace avar {
static const Kernels kernels = portable::Table<portable::FloatEngine>::make("portable");
const Kernels* portable_kernels(int64_t) { return &kernels; }
}  // namespace avar
