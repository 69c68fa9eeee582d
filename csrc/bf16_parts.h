// Operands as sums of bfloat16 parts.
//
// One part serves bfloat16 inputs. float16 and float32 are exactly the sum of two and three: the
// first part is rounded to nearest, so that the remainder is small and of either sign, the others
// cut the remainder off after eight bits. Left operands are [part][rows][depth]; right operands
// interleave neighbours along the depth, [part][depth / 2][columns][2], as the machine multiplies
// pairs.
#pragma once

#include "simd.h"

namespace avar {
namespace AVAR_ISA {

template <int PARTS>
struct Bf16Parts {
  static constexpr int64_t PAD = 32;  // the depth of a tile register
  static constexpr bool PRECISE_EXP = PARTS > 1;

  static AVAR_INLINE int64_t left_bytes(int64_t rows, int64_t depth) {
    return PARTS * rows * depth * 2;
  }
  static AVAR_INLINE int64_t right_bytes(int64_t depth, int64_t columns) {
    return PARTS * depth * columns * 2;
  }

  static AVAR_INLINE __m512i upper_half() { return _mm512_set1_epi32((int)0xffff0000); }

  // The bits of x rounded to bfloat16 by its upper half; half of an unit goes up.
  static AVAR_INLINE __m512i rounded(vf x) {
    return _mm512_add_epi32((__m512i)x, _mm512_set1_epi32(0x8000));
  }
  static AVAR_INLINE vf without_upper_half(vf x, __m512i bits) {
    return x - (vf)_mm512_and_si512(bits, upper_half());
  }

  static AVAR_INLINE void put_left(char* to, int64_t rows, int64_t depth, int64_t i, int64_t j,
                                   vf x) {
    char* at = to + (i * depth + j) * 2;
    if (PARTS == 1) {
      _mm256_storeu_si256((__m256i*)at, (__m256i)_mm512_cvtneps_pbh((__m512)x));
      return;
    }
    __m512i bits = rounded(x);
#pragma GCC unroll 3
    for (int part = 0; part < PARTS; ++part) {
      _mm256_storeu_si256((__m256i*)at, _mm512_cvtepi32_epi16(_mm512_srli_epi32(bits, 16)));
      x = without_upper_half(x, bits);
      bits = (__m512i)x;
      at += rows * depth * 2;
    }
  }

  static AVAR_INLINE void put_right(char* to, int64_t depth, int64_t columns, int64_t k, int64_t j,
                                    vf a, vf b) {
    char* at = to + (k * columns + 2 * j) * 2;
    if (PARTS == 1) {
      const __m512i order = (__m512i)(short __attribute__((vector_size(64)))){
          0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23,
          8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
      const __m512i both = (__m512i)_mm512_cvtne2ps_pbh((__m512)b, (__m512)a);
      _mm512_storeu_si512(at, _mm512_permutexvar_epi16(order, both));
      return;
    }
    __m512i bits_a = rounded(a), bits_b = rounded(b);
#pragma GCC unroll 3
    for (int part = 0; part < PARTS; ++part) {
      // (b & upper half) | (a >> 16)
      _mm512_storeu_si512(at, _mm512_ternarylogic_epi32(bits_b, upper_half(),
                                                        _mm512_srli_epi32(bits_a, 16), 0xea));
      a = without_upper_half(a, bits_a);
      b = without_upper_half(b, bits_b);
      bits_a = (__m512i)a;
      bits_b = (__m512i)b;
      at += depth * columns * 2;
    }
  }
};

}  // namespace AVAR_ISA
}  // namespace avar
