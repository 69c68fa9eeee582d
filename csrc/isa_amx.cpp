#define AVAR_ISA amx
#include "engine_amx.h"
#include "table.h"

namespace avar {
static const Kernels kernels = amx::Table<amx::AmxEngine>::make("amx");
const Kernels* amx_kernels(int64_t dtype) { return dtype == kBFloat16 ? &kernels : nullptr; }
}  // namespace avar
