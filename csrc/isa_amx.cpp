#define AVAR_ISA amx
#include "engine_amx.h"
#include "table.h"

namespace avar {
using namespace amx;
static const Kernels narrow = Table<Narrow<AmxEngine>>::make_narrow("amx");
static const Kernels kernels = Table<AmxEngine>::make("amx", &narrow);
const Kernels* amx_kernels(int64_t dtype) { return dtype == kBFloat16 ? &kernels : nullptr; }
}  // namespace avar
