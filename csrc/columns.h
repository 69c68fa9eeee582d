// A tile of columns: their rows and heads, the keys they see, and for each type the numbers that
// turn q.k into a logit.
#pragma once

#include "pack.h"

namespace avar {
namespace AVAR_ISA {

constexpr float kLog2E = 1.4426950408889634f;
constexpr float kLn2 = 0.6931471805599453f;

// The keys of one unit that the columns of a tile see.
struct KeyRange {
  int64_t begin, end;              // keys that any of the columns may see
  int64_t inner_begin, inner_end;  // keys that all of them see

  // All existing keys, as of a prefix. Keys that pad the last block do not exist.
  static KeyRange all(const Unit& unit) { return {0, unit.len_k, 0, INT64_MAX}; }

  bool cuts(int64_t first_key, int64_t num_keys) const {
    return first_key < inner_begin || first_key + num_keys > inner_end;
  }
};

template <class E>
struct Columns {
  static constexpr int64_t N = E::COLUMNS;
  int64_t first, count, group;
  KeyRange keys;
  int64_t table_rows;              // num_types, or 1 where all types share their numbers
  int32_t low[N], high[N];         // first and last key of each column
  // Of the query tensor; columns that pad the tile repeat the last.
  int64_t batches[N], rows[N], heads[N];
  // [table_rows][N]: base-2 logit = slope * (q.k) + offset.
  float *slope, *offset;

  const float* of_type(const float* table, int64_t type) const {
    return table + (table_rows == 1 ? 0 : type) * N;
  }

  Columns(Arena& arena, const Args& args) {
    slope = arena.take<float>(args.num_types * N);
    offset = arena.take<float>(args.num_types * N);
  }

  // The keys of a unit, its own or its prefix, that a row of `unit` sees: [begin, end), none if end
  // <= begin.
  static void visible(const Args& args, const Unit& unit, const Unit& of_keys, int64_t row,
                      int64_t& begin, int64_t& end) {
    begin = 0;
    end = of_keys.len_k;
    if (&of_keys != &unit) return;
    const int64_t position = row + unit.len_k - unit.len_q;
    if (args.causal) end = smaller(end, position + 1);
    if (args.window_right >= 0) end = smaller(end, position + args.window_right + 1);
    if (args.window_left >= 0) begin = smaller(larger(0, position - args.window_left), unit.len_k);
    end = larger(end, 0);
  }

  static int64_t columns_of(const Args& args, const Unit& unit) {
    return unit.len_q * (args.heads / args.kv_heads);
  }

  // Sets the rows and keys, but not the numbers of each column.
  void place(const Args& args, const Unit& unit, const Unit& of_keys, int64_t tile) {
    group = args.heads / args.kv_heads;
    first = tile * N;
    count = smaller(N, columns_of(args, unit) - first);
    visible(args, unit, of_keys, first / group, keys.begin, keys.inner_end);
    visible(args, unit, of_keys, (first + count - 1) / group, keys.inner_begin, keys.end);
  }

  void set(const Args& args, const Unit& unit, const Unit& of_keys, int64_t tile) {
    place(args, unit, of_keys, tile);
    const bool tables = args.type_bias || args.type_scale;
    table_rows = tables ? args.num_types : 1;
    const float scale = (float)(args.softmax_scale * 1.4426950408889634);
    int64_t row = first / group, head = first % group;
    for (int64_t j = 0; j < N; ++j) {
      int64_t begin, end;
      visible(args, unit, of_keys, row, begin, end);
      low[j] = (int32_t)begin;
      high[j] = (int32_t)end - 1;
      const int64_t at_row = unit.start_q + row;
      batches[j] = args.order ? args.order[at_row / args.len_q] : unit.batch;
      rows[j] = args.order ? at_row % args.len_q : at_row;
      heads[j] = unit.kv_head * group + head;
      const int64_t at = heads[j] * args.num_types;
      for (int64_t t = 0; t < table_rows; ++t) {
        slope[t * N + j] = scale * (args.type_scale ? args.type_scale[at + t] : 1.0f);
        offset[t * N + j] = args.type_bias ? args.type_bias[at + t] * kLog2E : 0.0f;
      }
      if (j + 1 < count && ++head == group) {
        head = 0;
        ++row;
      }
    }
  }

  // Loads the columns of a tensor as rows, float32 [N][padded dim]; zeros pad the tile.
  void load_rows(const Args& args, const Tensor& x, int64_t dim, float* to) const {
    const int64_t width = padded<E>(dim);
    for (int64_t j = 0; j < N; ++j) {
      const int64_t n = j < count ? dim : 0;
      load_row(at(args, x, j), args.dtype, n, width, to + j * width);
    }
  }

  // The address of a column's data in a tensor of the inputs' dtype (at) or of float32 (floats_at).
  char* at(const Args& args, const Tensor& x, int64_t column) const {
    return row_of(x, element_bytes(args.dtype), batches[column], rows[column], heads[column]);
  }
  float* floats_at(const Tensor& x, int64_t column) const {
    return (float*)row_of(x, 4, batches[column], rows[column], heads[column]);
  }
};

// Lanes whose column does not see the key.
AVAR_INLINE vi hidden(int64_t key, const int32_t* low, const int32_t* high) {
  const vi j = splat((int32_t)key);
  return (j < load(low)) | (j > load(high));
}

}  // namespace AVAR_ISA
}  // namespace avar
