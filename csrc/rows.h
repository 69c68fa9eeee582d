// Rows of tensors in any dtype to and from float32.
#pragma once

#include "args.h"
#include "simd.h"

namespace avar {
namespace AVAR_ISA {

AVAR_INLINE float from_bits(uint32_t bits) {
  float x;
  __builtin_memcpy(&x, &bits, 4);
  return x;
}

AVAR_INLINE uint32_t to_bits(float x) {
  uint32_t bits;
  __builtin_memcpy(&bits, &x, 4);
  return bits;
}

AVAR_INLINE float bfloat16_to_float(uint16_t x) { return from_bits((uint32_t)x << 16); }

AVAR_INLINE uint16_t float_to_bfloat16(float x) {
  const uint32_t bits = to_bits(x);
  if (x != x) return (uint16_t)(bits >> 16 | 0x40);  // NaN stays NaN
  return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

// float16 by integer arithmetic: the exponent is shifted by 112, and float arithmetic normalizes
// numbers that are subnormal in half precision.
AVAR_INLINE float float16_to_float(uint16_t x) {
  const uint32_t sign = (uint32_t)(x & 0x8000) << 16, rest = (uint32_t)(x & 0x7fff);
  if (rest >= 0x7c00) return from_bits(sign | 0x7f800000 | (rest & 0x3ff) << 13);
  if (rest >= 0x400) return from_bits(sign | ((rest << 13) + (112u << 23)));
  return from_bits(sign | to_bits((float)rest * 5.9604644775390625e-8f));  // 2^-24
}

AVAR_INLINE uint16_t float_to_float16(float x) {
  const uint32_t bits = to_bits(x), sign = bits >> 16 & 0x8000, rest = bits & 0x7fffffff;
  if (rest > 0x7f800000) return (uint16_t)(sign | 0x7e00);
  if (rest >= 0x47800000) return (uint16_t)(sign | 0x7c00);  // 65536 and above; below it, rounding
  if (rest < 0x38800000)  // subnormal in half: adding 1/2 rounds to units of 2^-24
    return (uint16_t)(sign | (to_bits(from_bits(rest) + 0.5f) - 0x3f000000));
  return (uint16_t)(sign | ((rest + 0xfff + (rest >> 13 & 1)) - (112u << 23)) >> 13);
}

// to[0..padded) = the n elements of a row as float32, then zeros.
inline void load_row(const char* from, int64_t dtype, int64_t n, int64_t padded, float* to) {
  int64_t i = 0;
  if (dtype == kFloat32) {
    const float* x = (const float*)from;
    for (; i + W <= n; i += W) store(to + i, load(x + i));
    for (; i < n; ++i) to[i] = x[i];
  } else if (dtype == kBFloat16) {
    const uint16_t* x = (const uint16_t*)from;
#if defined(__AVX512F__)
    for (; i + 16 <= n; i += 16)
      _mm512_storeu_si512(to + i, _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(
                                                        (const __m256i*)(x + i))), 16));
#endif
    for (; i < n; ++i) to[i] = bfloat16_to_float(x[i]);
  } else {
    const uint16_t* x = (const uint16_t*)from;
#if defined(__AVX512F__)
    for (; i + 16 <= n; i += 16)
      _mm512_storeu_ps(to + i, _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)(x + i))));
#endif
    for (; i < n; ++i) to[i] = float16_to_float(x[i]);
  }
  for (; i < padded; ++i) to[i] = 0.0f;
}

// The first n elements of from, times factor, as a row of dtype.
inline void store_row(const float* from, float factor, int64_t dtype, int64_t n, char* to) {
  int64_t i = 0;
  if (dtype == kFloat32) {
    float* x = (float*)to;
    for (; i + W <= n; i += W) store(x + i, load(from + i) * factor);
    for (; i < n; ++i) x[i] = from[i] * factor;
  } else if (dtype == kBFloat16) {
    uint16_t* x = (uint16_t*)to;
#if defined(__AVX512BF16__)
    for (; i + 16 <= n; i += 16)
      _mm256_storeu_si256((__m256i*)(x + i),
                          (__m256i)_mm512_cvtneps_pbh(_mm512_mul_ps(_mm512_loadu_ps(from + i),
                                                                    _mm512_set1_ps(factor))));
#endif
    for (; i < n; ++i) x[i] = float_to_bfloat16(from[i] * factor);
  } else {
    uint16_t* x = (uint16_t*)to;
#if defined(__AVX512F__)
    for (; i + 16 <= n; i += 16)
      _mm256_storeu_si256((__m256i*)(x + i),
                          _mm512_cvtps_ph(_mm512_mul_ps(_mm512_loadu_ps(from + i),
                                                        _mm512_set1_ps(factor)),
                                          _MM_FROUND_TO_NEAREST_INT));
#endif
    for (; i < n; ++i) x[i] = float_to_float16(from[i] * factor);
  }
}

AVAR_INLINE char* row_of(const Tensor& x, int64_t bytes, int64_t batch, int64_t row,
                         int64_t head) {
  return x.data + bytes * (batch * x.batch + row * x.row + head * x.head);
}

}  // namespace AVAR_ISA
}  // namespace avar
