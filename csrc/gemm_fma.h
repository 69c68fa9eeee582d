// C[rows][columns] (+)= A[rows][depth] B[depth][columns] by broadcasting elements of A, which lies
// in memory by rows, or by columns if TURNED.
//
// A register block of C is summed from zero and added to memory once, so a long sum over blocks is
// a sum of short ones. LANE says what a 32-bit element is: one float32, or a pair of bfloat16
// neighbors along the depth; the depth is then counted in pairs.
#pragma once

#include "simd.h"

namespace avar {
namespace AVAR_ISA {

constexpr int kPanelVectors = W == 16 ? 4 : 2;  // with 6 rows: 24 of 32, or 12 of 16 registers
constexpr int kPanelRows = 6;
constexpr int kNarrowPanelRows = 12;  // with one vector; fewer sums would wait for one another

struct FloatLane {
  static AVAR_INLINE vf multiply_add(float a, vf b, vf c) { return splat(a) * b + c; }
};

template <bool TURNED>
AVAR_INLINE const float* element(const float* a, int64_t stride, int64_t i, int64_t k) {
  return TURNED ? a + k * stride + i : a + i * stride + k;
}

template <class LANE, bool TURNED, int ROWS, int VECTORS>
inline void multiply_panel(int64_t depth, const float* a, int64_t a_stride, const float* b,
                           int64_t b_stride, float* c, int64_t c_stride, bool add) {
  vf sum[ROWS][VECTORS] = {};
  for (int64_t k = 0; k < depth; ++k) {
    vf right[VECTORS];
#pragma GCC unroll 4
    for (int j = 0; j < VECTORS; ++j) right[j] = load(b + k * b_stride + j * W);
#pragma GCC unroll 12
    for (int i = 0; i < ROWS; ++i)
#pragma GCC unroll 4
      for (int j = 0; j < VECTORS; ++j)
        sum[i][j] =
            LANE::multiply_add(*element<TURNED>(a, a_stride, i, k), right[j], sum[i][j]);
  }
#pragma GCC unroll 12
  for (int i = 0; i < ROWS; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < VECTORS; ++j) {
      float* to = c + i * c_stride + j * W;
      store(to, add ? load(to) + sum[i][j] : sum[i][j]);
    }
}

template <class LANE, bool TURNED, int VECTORS>
inline void multiply_columns(int64_t rows, int64_t depth, const float* a, int64_t a_stride,
                             const float* b, int64_t b_stride, float* c, int64_t c_stride,
                             bool add) {
  int64_t i = 0;
#define AVAR_PANEL(ROWS)                                                                     \
  multiply_panel<LANE, TURNED, ROWS, VECTORS>(depth, element<TURNED>(a, a_stride, i, 0), a_stride, \
                                              b, b_stride, c + i * c_stride, c_stride, add)
  if (VECTORS == 1)
    for (; i + kNarrowPanelRows <= rows; i += kNarrowPanelRows) AVAR_PANEL(kNarrowPanelRows);
  for (; i + kPanelRows <= rows; i += kPanelRows) AVAR_PANEL(kPanelRows);
  switch (rows - i) {
    case 5: return AVAR_PANEL(5);
    case 4: return AVAR_PANEL(4);
    case 3: return AVAR_PANEL(3);
    case 2: return AVAR_PANEL(2);
    case 1: return AVAR_PANEL(1);
    default: return;
  }
#undef AVAR_PANEL
}

// columns is a multiple of W. Strides and depth count 32-bit elements.
template <class LANE, bool TURNED = false>
inline void multiply(int64_t rows, int64_t columns, int64_t depth, const float* a,
                     int64_t a_stride, const float* b, int64_t b_stride, float* c,
                     int64_t c_stride, bool add) {
  int64_t j = 0;
  for (; j + kPanelVectors * W <= columns; j += kPanelVectors * W)
    multiply_columns<LANE, TURNED, kPanelVectors>(rows, depth, a, a_stride, b + j, b_stride, c + j,
                                                  c_stride, add);
  for (; j < columns; j += W)
    multiply_columns<LANE, TURNED, 1>(rows, depth, a, a_stride, b + j, b_stride, c + j, c_stride,
                                      add);
}

}  // namespace AVAR_ISA
}  // namespace avar
