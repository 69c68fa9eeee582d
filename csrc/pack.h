// Packs tensors into operands of an engine, through float32 rows and their transpose.
#pragma once

#include "kernels.h"
#include "rows.h"
#include "scratch.h"

namespace avar {
namespace AVAR_ISA {

template <class E>
AVAR_INLINE int64_t padded(int64_t dim) {
  return round_up(dim, E::PAD);
}

template <class E>
inline void pack_left(const float* from, int64_t rows, int64_t depth, char* to) {
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < depth; j += W)
      E::put_left(to, rows, depth, i, j, load(from + i * depth + j));
}

template <class E>
inline void pack_right(const float* from, int64_t depth, int64_t columns, char* to) {
  for (int64_t k = 0; k < depth; k += 2)
    for (int64_t j = 0; j < columns; j += W)
      E::put_right(to, depth, columns, k, j, load(from + k * columns + j),
                   load(from + (k + 1) * columns + j));
}

// A block of keys or values as float32 [BLOCK][padded dim]. Keys that do not exist become zeros,
// whatever they hold: 0 * NaN would be NaN.
template <class E>
inline void load_keys(const Args& args, const Unit& unit, const Tensor& x, int64_t dim,
                      int64_t block, float* to) {
  const int64_t first = block * E::BLOCK, width = padded<E>(dim);
  for (int64_t i = 0; i < E::BLOCK; ++i) {
    const int64_t n = unit.types[first + i] < 0 ? 0 : dim;
    const char* from = row_of(x, element_bytes(args.dtype), unit.key_batch,
                              unit.start_k + first + i, unit.kv_head);
    load_row(from, args.dtype, n, width, to + i * width);
  }
}

template <class E>
inline int64_t operand_bytes(int64_t dim) {
  return E::left_bytes(E::BLOCK, padded<E>(dim));
}

// Forward: keys by rows (for K Q^T) and values transposed (for V^T P^T).
template <class E>
void pack_forward(const Args& args, const Unit& unit, int64_t block, char* k, char* v,
                  char* scratch) {
  const int64_t dim = padded<E>(args.dim), value_dim = padded<E>(args.value_dim);
  Arena arena{scratch};
  float* rows = arena.take<float>(E::BLOCK * larger(dim, value_dim));
  float* turned = arena.take<float>(E::BLOCK * value_dim);
  load_keys<E>(args, unit, args.k, args.dim, block, rows);
  pack_left<E>(rows, E::BLOCK, dim, k);
  load_keys<E>(args, unit, args.v, args.value_dim, block, rows);
  transpose(rows, E::BLOCK, value_dim, turned);
  pack_left<E>(turned, value_dim, E::BLOCK, v);
}

template <class E>
inline int64_t pack_forward_scratch_bytes(const Args& args) {
  const int64_t dim = padded<E>(args.dim), value_dim = padded<E>(args.value_dim);
  return E::BLOCK * 4 * (larger(dim, value_dim) + value_dim);
}

// Backward: keys by rows and transposed (for K^T dZ^T), values by rows (for V dO^T).
template <class E>
void pack_backward(const Args& args, const Unit& unit, int64_t block, char* scratch) {
  if (unit.classes[block] == kAbsent) return;
  const int64_t dim = padded<E>(args.dim), value_dim = padded<E>(args.value_dim);
  Arena arena{scratch};
  float* rows = arena.take<float>(E::BLOCK * larger(dim, value_dim));
  float* turned = arena.take<float>(E::BLOCK * dim);
  const int64_t bytes = operand_bytes<E>(args.dim);
  load_keys<E>(args, unit, args.k, args.dim, block, rows);
  pack_left<E>(rows, E::BLOCK, dim, unit.k + block * bytes);
  transpose(rows, E::BLOCK, dim, turned);
  pack_left<E>(turned, dim, E::BLOCK, unit.k_transposed + block * bytes);
  load_keys<E>(args, unit, args.v, args.value_dim, block, rows);
  pack_left<E>(rows, E::BLOCK, value_dim, unit.v + block * operand_bytes<E>(args.value_dim));
}

}  // namespace AVAR_ISA
}  // namespace avar
