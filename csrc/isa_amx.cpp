#define AVAR_ISA amx
#include "engine_amx.h"
#include "table.h"

namespace avar {
static const Kernels one_part = amx::Table<amx::AmxEngine<1>>::make("amx");
static const Kernels two_parts = amx::Table<amx::AmxEngine<2>>::make("amx, float16 in two parts");
static const Kernels three_parts = amx::Table<amx::AmxEngine<3>>::make("amx, float32 in three parts");

const Kernels* amx_kernels(int64_t dtype) {
  return dtype == kBFloat16 ? &one_part : dtype == kFloat16 ? &two_parts : &three_parts;
}
}  // namespace avar
