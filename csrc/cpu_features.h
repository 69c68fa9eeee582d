// Instruction sets, least first, and those that this machine runs.
#pragma once

#include "kernels.h"

namespace avar {

const char* isa_name(int64_t isa);
bool isa_runs(int64_t isa);

// The kernels that instruction set isa uses for a dtype: its own, or those of the set below it.
const Kernels& kernels_of(int64_t isa, int64_t dtype);

}  // namespace avar
