#include "kernels.h"
namespace avar {
const Kernels* amx_kernels(int64_t dtype) { return nullptr; }
}
