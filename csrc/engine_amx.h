// The engine of AMX tile registers: 16 x 16 float32 sums of products of bfloat16 pairs.
//
// With several parts, C = sum of left[p] right[r] over the pairs p + r < PARTS; what is left out is
// below float32's rounding. The small products are summed first, apart from the large ones: six
// sums would otherwise round at the size of C six times as often as one does.
#pragma once

#include "bf16_parts.h"

namespace avar {
namespace AVAR_ISA {

template <int PARTS>
struct AmxEngine : Bf16Parts<PARTS> {
  static constexpr int64_t COLUMNS = 64;
  static constexpr int64_t BLOCK = 64;

  static void begin() {
    struct alignas(64) {
      uint8_t palette = 1, start = 0, reserved[14] = {};
      uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
      uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
    } config;
    _tile_loadconfig(&config);
  }
  static void end() { _tile_release(); }

  // Adds left[p] right[r], 32 x 32, to tiles 0 to 3. Consecutive calls that share an operand find it
  // in its registers: the other LOAD_ flag is false then.
  template <bool LOAD_LEFT, bool LOAD_RIGHT>
  static AVAR_INLINE void add_products(const char* left, int64_t left_stride, const char* right,
                                       int64_t right_stride) {
    if (LOAD_LEFT) {
      _tile_loadd(4, left, left_stride);
      _tile_loadd(5, left + 16 * left_stride, left_stride);
    }
    if (LOAD_RIGHT) {
      _tile_loadd(6, right, right_stride);
      _tile_loadd(7, right + 64, right_stride);
    }
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }

  static AVAR_INLINE void zero_tiles() {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }

  static AVAR_INLINE void store_tiles(float* c, int64_t columns) {
    _tile_stored(0, c, columns * 4);
    _tile_stored(1, c + 16, columns * 4);
    _tile_stored(2, c + 16 * columns, columns * 4);
    _tile_stored(3, c + 16 * columns + 16, columns * 4);
  }

  static AVAR_INLINE void load_tiles(const float* c, int64_t columns) {
    _tile_loadd(0, c, columns * 4);
    _tile_loadd(1, c + 16, columns * 4);
    _tile_loadd(2, c + 16 * columns, columns * 4);
    _tile_loadd(3, c + 16 * columns + 16, columns * 4);
  }

  // All dimensions are multiples of 32.
  static void multiply(int64_t rows, int64_t columns, int64_t depth, const char* left,
                       const char* right, float* c, bool add) {
    const int64_t left_stride = depth * 2, left_part = rows * depth * 2;
    const int64_t right_stride = columns * 4, right_part = depth * columns * 2;
    for (int64_t i = 0; i < rows; i += 32)
      for (int64_t j = 0; j < columns; j += 32) {
        const char *l = left + i * left_stride, *r = right + j * 4;
        const int64_t right_step = 16 * right_stride;
        float* to = c + i * columns + j;
        if (PARTS == 1 && add)
          load_tiles(to, columns);
        else
          zero_tiles();
        if (PARTS == 2)
          for (int64_t k = 0; k < depth; k += 32, l += 64, r += right_step) {
            add_products<true, true>(l, left_stride, r + right_part, right_stride);
            add_products<true, true>(l + left_part, left_stride, r, right_stride);
          }
        if (PARTS == 3)
          for (int64_t k = 0; k < depth; k += 32, l += 64, r += right_step) {
            add_products<true, true>(l, left_stride, r + 2 * right_part, right_stride);
            add_products<false, true>(l, left_stride, r + right_part, right_stride);
            add_products<true, false>(l + left_part, left_stride, r, right_stride);
            add_products<false, true>(l, left_stride, r, right_stride);
            add_products<true, false>(l + 2 * left_part, left_stride, r, right_stride);
          }
        l = left + i * left_stride;
        r = right + j * 4;
        for (int64_t k = 0; k < depth; k += 32, l += 64, r += right_step)
          add_products<true, true>(l, left_stride, r, right_stride);
        if (PARTS > 1 && add)
          add_tiles(to, columns);
        else
          store_tiles(to, columns);
      }
  }

  // Adds tiles 0 to 3 to memory.
  static AVAR_INLINE void add_tiles(float* c, int64_t columns) {
    alignas(64) float sums[32 * 32];
    store_tiles(sums, 32);
    for (int64_t i = 0; i < 32; ++i)
#pragma GCC unroll 2
      for (int64_t j = 0; j < 32; j += W) {
        float* to = c + i * columns + j;
        store(to, load(to) + load(sums + i * 32 + j));
      }
  }
};

}  // namespace AVAR_ISA
}  // namespace avar
