// The engine of bfloat16 dot products (AVX512_BF16), for machines without tile registers.
#pragma once

#include "bf16_operands.h"
#include "gemm_fma.h"

namespace avar {
namespace AVAR_ISA {

struct PairLane {
  static AVAR_INLINE vf multiply_add(float a, vf b, vf c) {
    return (vf)_mm512_dpbf16_ps((__m512)c, (__m512bh)splat(a), (__m512bh)b);
  }
};

struct DotEngine : Bf16Operands {
  static constexpr int64_t COLUMNS = 64;
  static constexpr int64_t NARROW = 16;
  static constexpr int64_t BLOCK = 64;
  static constexpr int64_t PENDING = 1;

  static void multiply(int64_t rows, int64_t columns, int64_t depth, const char* left,
                       const char* right, float* c, bool add) {
    AVAR_ISA::multiply<PairLane>(rows, columns, depth / 2, (const float*)left, depth / 2,
                                 (const float*)right, columns, c, columns, add);
  }
  static void begin() {}
  static void end() {}
};

}  // namespace AVAR_ISA
}  // namespace avar
