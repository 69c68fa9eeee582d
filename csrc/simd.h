// Vectors of W floats on the compiler's vector extensions, as wide as this file's flags allow.
#pragma once

#include <cstdint>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace avar {
namespace AVAR_ISA {

#if defined(__AVX512F__)
constexpr int W = 16;
#elif defined(__AVX2__)
constexpr int W = 8;
#else
constexpr int W = 4;
#endif

typedef float vf __attribute__((vector_size(W * 4)));
typedef int32_t vi __attribute__((vector_size(W * 4)));
typedef float vf_memory __attribute__((vector_size(W * 4), aligned(4), may_alias));
typedef int32_t vi_memory __attribute__((vector_size(W * 4), aligned(4), may_alias));

#define AVAR_INLINE inline __attribute__((always_inline))

constexpr float kInfinity = __builtin_inff();

AVAR_INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
AVAR_INLINE int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
AVAR_INLINE constexpr int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

AVAR_INLINE vf load(const float* p) { return *(const vf_memory*)p; }
AVAR_INLINE vi load(const int32_t* p) { return *(const vi_memory*)p; }
AVAR_INLINE void store(float* p, vf x) { *(vf_memory*)p = x; }
AVAR_INLINE vf splat(float x) { return x - vf{}; }
AVAR_INLINE vi splat(int32_t x) { return x - vi{}; }
AVAR_INLINE vf select(vi mask, vf yes, vf no) { return mask ? yes : no; }

// Returns the second argument where either is NaN, as the machine's instruction does. exp2's clamp
// therefore lets NaN through, and a running maximum does not.
AVAR_INLINE vf maximum(vf a, vf b) {
#if defined(__AVX512F__)
  return (vf)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__)
  return (vf)_mm256_max_ps((__m256)a, (__m256)b);
#elif defined(__x86_64__)
  return (vf)_mm_max_ps((__m128)a, (__m128)b);
#else
  return a > b ? a : b;
#endif
}

AVAR_INLINE vf minimum(vf a, vf b) {
#if defined(__AVX512F__)
  return (vf)_mm512_min_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__)
  return (vf)_mm256_min_ps((__m256)a, (__m256)b);
#elif defined(__x86_64__)
  return (vf)_mm_min_ps((__m128)a, (__m128)b);
#else
  return a < b ? a : b;
#endif
}

AVAR_INLINE bool any(vi mask) {
#if defined(__AVX512F__)
  return _mm512_test_epi32_mask((__m512i)mask, (__m512i)mask) != 0;
#elif defined(__AVX2__)
  return _mm256_movemask_ps((__m256)mask) != 0;
#else
  int32_t found = 0;
  for (int i = 0; i < W; ++i) found |= mask[i];
  return found != 0;
#endif
}

// 2^x for x below 128; 0 from -127 down, so hidden keys have weight exactly 0. NaN stays NaN.
// 2^x = 2^n * 2^f with n = round(x), f in [-1/2, 1/2]; the coefficients are a minimax fit of the
// relative error of 2^f: 2e-9 in degree 6, 2.6e-6 in degree 4 (plenty for bfloat16 weights).
template <bool PRECISE>
AVAR_INLINE vf exp2(vf x) {
  x = maximum(splat(-127.0f), x);
  // Adding 1.5 * 2^23 leaves round(x) in the low bits; 127 more are the bias of an exponent.
  const vf magic = splat(12582912.0f + 127.0f);
  const vf shifted = x + magic;
  const vf f = x - (shifted - magic);
  vf p;
  if (PRECISE) {
    p = splat(1.5345820214842835e-4f);
    p = p * f + 1.3399937225999632e-3f;
    p = p * f + 9.61848898099992e-3f;
    p = p * f + 5.550328762352794e-2f;
    p = p * f + 2.402264688991966e-1f;
    p = p * f + 6.931472057438406e-1f;
    p = p * f + 1.0f;
  } else {
    p = splat(9.570086414380998e-3f);
    p = p * f + 5.5917901135446604e-2f;
    p = p * f + 2.4024745459438113e-1f;
    p = p * f + 6.931218099646614e-1f;
    p = p * f + 9.999992611881546e-1f;
  }
  return p * (vf)((vi)shifted << 23);
}

// In place: register i, lane j <-> register j, lane i.
AVAR_INLINE void transpose_square(vf (&r)[W]) {
#pragma GCC unroll 4
  for (int step = 1; step < W; step *= 2) {
    vi low, high;
    for (int l = 0; l < W; ++l) {
      low[l] = l & step ? W + l - step : l;
      high[l] = l & step ? W + l : l + step;
    }
#pragma GCC unroll 16
    for (int i = 0; i < W; ++i) {
      if (i & step) continue;
      const vf a = r[i], b = r[i | step];
#if defined(__clang__)
      for (int l = 0; l < W; ++l) {
        r[i][l] = l & step ? b[l - step] : a[l];
        r[i | step][l] = l & step ? b[l] : a[l + step];
      }
#else
      r[i] = __builtin_shuffle(a, b, low);
      r[i | step] = __builtin_shuffle(a, b, high);
#endif
    }
  }
}

// to[columns][rows] = from[rows][columns]; rows and columns are multiples of W.
inline void transpose(const float* from, int64_t rows, int64_t columns, float* to) {
  for (int64_t i = 0; i < rows; i += W)
    for (int64_t j = 0; j < columns; j += W) {
      vf r[W];
#pragma GCC unroll 16
      for (int l = 0; l < W; ++l) r[l] = load(from + (i + l) * columns + j);
      transpose_square(r);
#pragma GCC unroll 16
      for (int l = 0; l < W; ++l) store(to + (j + l) * rows + i, r[l]);
    }
}

}  // namespace AVAR_ISA
}  // namespace avar
