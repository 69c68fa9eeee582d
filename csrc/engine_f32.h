// The engine of float32 fused multiply-adds. An engine defines how operands lie in memory and
// multiplies them; forward.h and backward.h are written once for all engines:
//
//   left operand   [rows][depth]     put_left(operand, rows, depth, i, j, values): row i, from j on
//   right operand  [depth][columns]  put_right(operand, depth, columns, k, j, a, b): rows k, k + 1
//
// Here both are plain row-major float32.
#pragma once

#include "args.h"
#include "gemm_fma.h"

namespace avar {
namespace AVAR_ISA {

struct FloatEngine {
  static constexpr int64_t COLUMNS = 64;  // of a tile
  static constexpr int64_t NARROW = 16;   // of a tile for decoding
  static constexpr int64_t BLOCK = 64;    // keys
  static constexpr int64_t PENDING = 1;   // blocks whose weights wait for their values together
  static constexpr int64_t PAD = W;       // head dimensions are padded to its multiple
  static constexpr bool PRECISE_EXP = true;

  static AVAR_INLINE int64_t left_bytes(int64_t rows, int64_t depth) { return rows * depth * 4; }
  static AVAR_INLINE int64_t right_bytes(int64_t depth, int64_t columns) {
    return depth * columns * 4;
  }

  static AVAR_INLINE void put_left(char* to, int64_t, int64_t depth, int64_t i, int64_t j, vf x) {
    store((float*)to + i * depth + j, x);
  }
  static AVAR_INLINE void put_right(char* to, int64_t, int64_t columns, int64_t k, int64_t j, vf a,
                                    vf b) {
    store((float*)to + k * columns + j, a);
    store((float*)to + (k + 1) * columns + j, b);
  }

  static void multiply(int64_t rows, int64_t columns, int64_t depth, const char* left,
                       const char* right, float* c, bool add) {
    AVAR_ISA::multiply<FloatLane>(rows, columns, depth, (const float*)left, depth,
                                  (const float*)right, columns, c, columns, add);
  }

  // Keys and values may be read in place, with a stride of floats from row to row; 0: packed.
  static constexpr bool IN_PLACE = true;
  static bool can_read(const Args& args) {
    return args.dtype == kFloat32 && args.dim % PAD == 0 && args.value_dim % PAD == 0 &&
           args.k.row > 0 && args.v.row > 0;
  }
  static void multiply_keys(int64_t rows, int64_t columns, int64_t depth, const char* keys,
                            int64_t stride, const char* right, float* c) {
    AVAR_ISA::multiply<FloatLane>(rows, columns, depth, (const float*)keys, stride ? stride : depth,
                                  (const float*)right, columns, c, columns, false);
  }
  static void multiply_values(int64_t rows, int64_t columns, int64_t depth, const char* values,
                              int64_t stride, const char* right, float* c, bool add) {
    if (!stride) return multiply(rows, columns, depth, values, right, c, add);
    AVAR_ISA::multiply<FloatLane, true>(rows, columns, depth, (const float*)values, stride,
                                        (const float*)right, columns, c, columns, add);
  }

  // Called before and after the work of one thread.
  static void begin() {}
  static void end() {}
};

}  // namespace AVAR_ISA
}  // namespace avar
