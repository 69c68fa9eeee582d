// Operands in bfloat16. The machine multiplies pairs, so right operands interleave neighbors along
// the depth, [depth / 2][columns][2]; left operands are [rows][depth].
#pragma once

#include "simd.h"

namespace avar {
namespace AVAR_ISA {

struct Bf16Operands {
  static constexpr int64_t PAD = 32;  // the depth of a tile register
  static constexpr bool PRECISE_EXP = false;
  static constexpr bool IN_PLACE = false;  // interleaving is work either way

  static AVAR_INLINE int64_t left_bytes(int64_t rows, int64_t depth) { return rows * depth * 2; }
  static AVAR_INLINE int64_t right_bytes(int64_t depth, int64_t columns) {
    return depth * columns * 2;
  }

  static AVAR_INLINE void put_left(char* to, int64_t, int64_t depth, int64_t i, int64_t j, vf x) {
    char* at = to + (i * depth + j) * 2;
    _mm256_storeu_si256((__m256i*)at, (__m256i)_mm512_cvtneps_pbh((__m512)x));
  }

  static AVAR_INLINE void put_right(char* to, int64_t, int64_t columns, int64_t k, int64_t j, vf a,
                                    vf b) {
    const __m512i order = (__m512i)(short __attribute__((vector_size(64)))){
        0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23,
        8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    const __m512i both = (__m512i)_mm512_cvtne2ps_pbh((__m512)b, (__m512)a);
    _mm512_storeu_si512(to + (k * columns + 2 * j) * 2, _mm512_permutexvar_epi16(order, both));
  }
};

}  // namespace AVAR_ISA
}  // namespace avar
