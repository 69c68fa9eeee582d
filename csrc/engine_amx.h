// The engine of AMX tile registers: 16 x 16 float32 sums of products of bfloat16 pairs.
#pragma once

#include "bf16_operands.h"

namespace avar {
namespace AVAR_ISA {

struct AmxEngine : Bf16Operands {
  static constexpr int64_t COLUMNS = 64;
  static constexpr int64_t NARROW = 32;
  static constexpr int64_t BLOCK = 64;
  // More than one, because reading and writing tiles of the output costs more than the products of
  // one block.
  static constexpr int64_t PENDING = 4;

  static void begin() {
    struct alignas(64) {
      uint8_t palette = 1, start = 0, reserved[14] = {};
      uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
      uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
    } config;
    _tile_loadconfig(&config);
  }
  static void end() { _tile_release(); }

  // Adds left right, 32 x 32, to tiles 0 to 3.
  static AVAR_INLINE void add_products(const char* left, int64_t left_stride, const char* right,
                                       int64_t right_stride) {
    _tile_loadd(4, left, left_stride);
    _tile_loadd(5, left + 16 * left_stride, left_stride);
    _tile_loadd(6, right, right_stride);
    _tile_loadd(7, right + 64, right_stride);
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
  static AVAR_INLINE void multiply_parts(int64_t rows, int64_t columns, int64_t depth,
                                         const char* const* lefts, int64_t parts,
                                         const char* right, float* c, bool add) {
    const int64_t left_stride = depth * 2, right_stride = columns * 4;
    for (int64_t i = 0; i < rows; i += 32)
      for (int64_t j = 0; j < columns; j += 32) {
        const char* r = right + j * 4;
        float* to = c + i * columns + j;
        if (add)
          load_tiles(to, columns);
        else
          zero_tiles();
        for (int64_t part = 0; part < parts; ++part) {
          const char* l = lefts[part] + i * left_stride;
          for (int64_t k = 0; k < depth; k += 32, l += 64, r += 16 * right_stride)
            add_products(l, left_stride, r, right_stride);
        }
        store_tiles(to, columns);
      }
  }

  static void multiply(int64_t rows, int64_t columns, int64_t depth, const char* left,
                       const char* right, float* c, bool add) {
    multiply_parts(rows, columns, depth, &left, 1, right, c, add);
  }
};

}  // namespace AVAR_ISA
}  // namespace avar
