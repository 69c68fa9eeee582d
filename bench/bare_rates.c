// The rates of a core's bare multiply-adds, from registers alone: the limit of any product.
//
// Each function runs `rounds` times a chain of independent multiply-adds on as many sums as hide
// their latency, and returns the floating-point operations; 0 where the machine lacks the
// instructions.
#include <immintrin.h>
#include <stdint.h>

static volatile float sink;

// Sums of their own names: gcc keeps an array of vectors in memory.
#define TWELVE(STEP) \
  STEP(s0) STEP(s1) STEP(s2) STEP(s3) STEP(s4) STEP(s5) STEP(s6) STEP(s7) STEP(s8) STEP(s9) \
  STEP(s10) STEP(s11)
// The empty instruction keeps the loop from being folded.
#define KEPT(s) __asm__ volatile("" : "+v"(s));

__attribute__((target("avx512f"))) static double float32_avx512(int64_t rounds) {
  const __m512 a = _mm512_set1_ps(1.0001f), b = _mm512_set1_ps(0.9999f);
#define START(s) __m512 s = a;
#define ADD(s) s = _mm512_fmadd_ps(s, a, b); KEPT(s)
#define TAKE(s) sink = _mm512_reduce_add_ps(s);
  TWELVE(START)
  for (int64_t r = 0; r < rounds; ++r) { TWELVE(ADD) }
  TWELVE(TAKE)
#undef START
#undef ADD
#undef TAKE
  return (double)rounds * 12 * 16 * 2;
}

__attribute__((target("avx2,fma"))) static double float32_avx2(int64_t rounds) {
  const __m256 a = _mm256_set1_ps(1.0001f), b = _mm256_set1_ps(0.9999f);
#define START(s) __m256 s = a;
#define ADD(s) s = _mm256_fmadd_ps(s, a, b); __asm__ volatile("" : "+x"(s));
#define TAKE(s) sink = _mm256_cvtss_f32(s);
  TWELVE(START)
  for (int64_t r = 0; r < rounds; ++r) { TWELVE(ADD) }
  TWELVE(TAKE)
#undef START
#undef ADD
#undef TAKE
  return (double)rounds * 12 * 8 * 2;
}

double float32_rate(int64_t rounds) {
  if (__builtin_cpu_supports("avx512f")) return float32_avx512(rounds);
  if (__builtin_cpu_supports("avx2")) return float32_avx2(rounds);
  return 0.0;
}

__attribute__((target("avx512bf16,avx512f"))) static double bfloat16_pairs(int64_t rounds) {
  const __m512bh a = (__m512bh)_mm512_set1_epi16(0x3f80), b = (__m512bh)_mm512_set1_epi16(0x3c00);
#define START(s) __m512 s = _mm512_set1_ps(1.0f);
#define ADD(s) s = _mm512_dpbf16_ps(s, a, b); KEPT(s)
#define TAKE(s) sink = _mm512_reduce_add_ps(s);
  TWELVE(START)
  for (int64_t r = 0; r < rounds; ++r) { TWELVE(ADD) }
  TWELVE(TAKE)
  return (double)rounds * 12 * 32 * 2;
}

double bfloat16_rate(int64_t rounds) {
  return __builtin_cpu_supports("avx512bf16") ? bfloat16_pairs(rounds) : 0.0;
}

// Tiles of 16 x 32 bfloat16, four sums. The caller must have asked the system for tiles.
__attribute__((target("amx-tile,amx-bf16"))) double tile_rate(int64_t rounds) {
  struct __attribute__((aligned(64))) {
    uint8_t palette, start, zero[14];
    uint16_t bytes[16];
    uint8_t rows[16];
  } shape = {.palette = 1};
  for (int i = 0; i < 7; ++i) shape.bytes[i] = 64, shape.rows[i] = 16;
  _tile_loadconfig(&shape);
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  _tile_zero(4);
  _tile_zero(5);
  _tile_zero(6);
  for (int64_t r = 0; r < rounds; ++r) {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 5, 6);
    _tile_dpbf16ps(2, 4, 6);
    _tile_dpbf16ps(3, 5, 6);
  }
  _tile_release();
  return (double)rounds * 4 * 16 * 16 * 32 * 2;
}
