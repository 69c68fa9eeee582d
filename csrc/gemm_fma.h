// C[rows][columns] (+)= A[rows][depth] B[depth][columns] by broadcasting elements of A.
//
// A register block of C is summed from zero and added to memory once, so a long sum over blocks is
// a sum of short ones. LANE says what a 32-bit element is: one float32, or a pair of bfloat16
// neighbours along the depth, which is then counted in pairs.
#pragma once

#include "simd.h"

namespace avar {
namespace AVAR_ISA {

constexpr int kPanelVectors = W == 16 ? 4 : 2;  // with 6 rows: 24 of 32, or 12 of 16 registers
constexpr int kPanelRows = 6;

struct FloatLane {
  static AVAR_INLINE vf multiply_add(float a, vf b, vf c) { return splat(a) * b + c; }
};

template <class LANE, int ROWS, int VECTORS>
inline void multiply_panel(int64_t depth, const float* a, int64_t a_stride, const float* b,
                           int64_t b_stride, float* c, int64_t c_stride, bool add) {
  vf sum[ROWS][VECTORS] = {};
  for (int64_t k = 0; k < depth; ++k) {
    vf right[VECTORS];
#pragma GCC unroll 4
    for (int j = 0; j < VECTORS; ++j) right[j] = load(b + k * b_stride + j * W);
#pragma GCC unroll 6
    for (int i = 0; i < ROWS; ++i)
#pragma GCC unroll 4
      for (int j = 0; j < VECTORS; ++j)
        sum[i][j] = LANE::multiply_add(a[i * a_stride + k], right[j], sum[i][j]);
  }
#pragma GCC unroll 6
  for (int i = 0; i < ROWS; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < VECTORS; ++j) {
      float* to = c + i * c_stride + j * W;
      store(to, add ? load(to) + sum[i][j] : sum[i][j]);
    }
}

template <class LANE, int VECTORS>
inline void multiply_columns(int64_t rows, int64_t depth, const float* a, int64_t a_stride,
                             const float* b, int64_t b_stride, float* c, int64_t c_stride,
                             bool add) {
  int64_t i = 0;
  for (; i + kPanelRows <= rows; i += kPanelRows)
    multiply_panel<LANE, kPanelRows, VECTORS>(depth, a + i * a_stride, a_stride, b, b_stride,
                                              c + i * c_stride, c_stride, add);
  a += i * a_stride;
  c += i * c_stride;
  switch (rows - i) {
    case 5: return multiply_panel<LANE, 5, VECTORS>(depth, a, a_stride, b, b_stride, c, c_stride, add);
    case 4: return multiply_panel<LANE, 4, VECTORS>(depth, a, a_stride, b, b_stride, c, c_stride, add);
    case 3: return multiply_panel<LANE, 3, VECTORS>(depth, a, a_stride, b, b_stride, c, c_stride, add);
    case 2: return multiply_panel<LANE, 2, VECTORS>(depth, a, a_stride, b, b_stride, c, c_stride, add);
    case 1: return multiply_panel<LANE, 1, VECTORS>(depth, a, a_stride, b, b_stride, c, c_stride, add);
    default: return;
  }
}

// columns is a multiple of W. Strides and depth count 32-bit elements.
template <class LANE>
inline void multiply(int64_t rows, int64_t columns, int64_t depth, const float* a,
                     int64_t a_stride, const float* b, int64_t b_stride, float* c,
                     int64_t c_stride, bool add) {
  int64_t j = 0;
  for (; j + kPanelVectors * W <= columns; j += kPanelVectors * W)
    multiply_columns<LANE, kPanelVectors>(rows, depth, a, a_stride, b + j, b_stride, c + j,
                                          c_stride, add);
  for (; j < columns; j += W)
    multiply_columns<LANE, 1>(rows, depth, a, a_stride, b + j, b_stride, c + j, c_stride, add);
}

}  // namespace AVAR_ISA
}  // namespace avar
