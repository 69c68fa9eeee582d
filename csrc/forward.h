// Forward of one tile of columns: online softmax over blocks of keys.
//
// Everything is transposed: scores are [keys][columns]. Properties of a column (maximum, visible
// range, the numbers of its head) are then vectors, and the type of a key is one number for its
// row, so the weights of a key are added to the mass of its type as they are. The row sum of
// softmax is the sum of the masses.
#pragma once

#include "columns.h"

namespace avar {
namespace AVAR_ISA {

// Weights may grow to 2^8 before the maximum that they refer to is raised. The output is then
// rescaled a few times in all rather than in most blocks. Nothing is lost, as float32 has room
// above.
constexpr float kMaximumSlack = 8.0f;

template <class E>
struct ForwardScratch {
  Columns<E> columns;
  float *scores;   // [BLOCK][COLUMNS]
  float *output;   // [padded value_dim][COLUMNS], not yet divided by the row sum
  float *mass;     // [num_types][COLUMNS]
  float *maximum;  // [COLUMNS], the reference of the weights, in base 2
  float *rescale;  // [COLUMNS]
  float *rows, *turned;
  char *q, *weights;
  char *own_k, *own_v, *packing;  // own_k, own_v [PENDING]: operands of a unit that has none
  // Blocks in slots [waiting, slot) of the weights wait until they are multiplied with their
  // values.
  const char* values[E::PENDING];
  int64_t waiting = 0, slot = 0;
  bool started = false;  // the output holds something
  // Distance, in elements, of the rows of the waiting values in their tensor; 0: they are packed.
  int64_t value_stride = 0;

  ForwardScratch(Arena& arena, const Args& args) : columns(arena, args) {
    const int64_t dim = padded<E>(args.dim), value_dim = padded<E>(args.value_dim);
    scores = arena.take<float>(E::BLOCK * E::COLUMNS);
    output = arena.take<float>(value_dim * E::COLUMNS);
    mass = arena.take<float>(args.num_types * E::COLUMNS);
    maximum = arena.take<float>(E::COLUMNS);
    rescale = arena.take<float>(E::COLUMNS);
    rows = arena.take<float>(E::COLUMNS * larger(dim, value_dim));
    turned = arena.take<float>(E::COLUMNS * dim);
    q = arena.take<char>(E::right_bytes(dim, E::COLUMNS));
    weights = arena.take<char>(E::PENDING * E::right_bytes(E::BLOCK, E::COLUMNS));
    own_k = arena.take<char>(operand_bytes<E>(args.dim));
    own_v = arena.take<char>(E::PENDING * operand_bytes<E>(args.value_dim));
    packing = arena.take<char>(pack_forward_scratch_bytes<E>(args));
  }

  char* weights_of(int64_t i) const { return weights + i * E::right_bytes(E::BLOCK, E::COLUMNS); }
};

// Raises the reference of the columns at v where a block's maximum is far above it. Returns whether
// the output must be rescaled.
template <class E>
AVAR_INLINE bool raise_maximum(ForwardScratch<E>& s, int64_t num_types, int64_t v,
                               vf block_maximum) {
  const vf old = load(s.maximum + v);
  const vi raise = block_maximum > old + kMaximumSlack;
  if (!any(raise)) {
    store(s.rescale + v, splat(1.0f));
    return false;
  }
  const vf factor = select(raise, exp2<true>(old - block_maximum), splat(1.0f));
  store(s.maximum + v, select(raise, block_maximum, old));
  store(s.rescale + v, factor);
  for (int64_t t = 0; t < num_types; ++t) {
    float* mass = s.mass + t * E::COLUMNS + v;
    store(mass, load(mass) * factor);
  }
  return true;
}

// The reference to subtract; 0, which is finite, where a column has seen nothing.
template <class E>
AVAR_INLINE vf reference(const ForwardScratch<E>& s, int64_t v) {
  const vf m = load(s.maximum + v);
  return select(m == splat(-kInfinity), splat(0.0f), m);
}

// Turns the scores of a plain block into weights: all keys exist, have one type and are seen by all
// columns.
template <class E>
inline bool weigh_plain(ForwardScratch<E>& s, int64_t num_types, int64_t type) {
  char* weights = s.weights_of(s.slot);
  bool raised = false;
  for (int64_t v = 0; v < E::COLUMNS; v += W) {
    const vf slope = load(s.columns.of_type(s.columns.slope, type) + v);
    const vf offset = load(s.columns.of_type(s.columns.offset, type) + v);
    vf top = splat(-kInfinity);
    for (int64_t n = 0; n < E::BLOCK; ++n)
      top = AVAR_ISA::maximum(load(s.scores + n * E::COLUMNS + v) * slope + offset, top);
    raised |= raise_maximum(s, num_types, v, top);
    const vf shift = offset - reference(s, v);
    vf sum = splat(0.0f);
    for (int64_t n = 0; n < E::BLOCK; n += 2) {
      const float* at = s.scores + n * E::COLUMNS + v;
      const vf a = exp2<E::PRECISE_EXP>(load(at) * slope + shift);
      const vf b = exp2<E::PRECISE_EXP>(load(at + E::COLUMNS) * slope + shift);
      sum += a + b;
      E::put_right(weights, E::BLOCK, E::COLUMNS, n, v, a, b);
    }
    float* mass = s.mass + type * E::COLUMNS + v;
    store(mass, load(mass) + sum);
  }
  return raised;
}

// Turns the scores of a general block into weights. CUT: some columns do not see all keys.
template <class E, bool CUT>
inline bool weigh(ForwardScratch<E>& s, int64_t num_types, int64_t first_key, const int8_t* types) {
  char* weights = s.weights_of(s.slot);
  bool raised = false;
  for (int64_t v = 0; v < E::COLUMNS; v += W) {
    vf top = splat(-kInfinity);
    for (int64_t n = 0; n < E::BLOCK; ++n) {
      if (types[n] < 0) continue;
      float* at = s.scores + n * E::COLUMNS + v;
      vf z = load(at) * load(s.columns.of_type(s.columns.slope, types[n]) + v) +
             load(s.columns.of_type(s.columns.offset, types[n]) + v);
      if (CUT)
        z = select(hidden(first_key + n, s.columns.low + v, s.columns.high + v), splat(-kInfinity),
                   z);
      store(at, z);
      top = AVAR_ISA::maximum(z, top);
    }
    raised |= raise_maximum(s, num_types, v, top);
    const vf shift = reference(s, v);
    for (int64_t n = 0; n < E::BLOCK; n += 2) {
      vf weight[2];
#pragma GCC unroll 2
      for (int64_t i = 0; i < 2; ++i) {
        const int64_t type = types[n + i];
        weight[i] = splat(0.0f);
        if (type < 0) continue;
        weight[i] = exp2<E::PRECISE_EXP>(load(s.scores + (n + i) * E::COLUMNS + v) - shift);
        float* mass = s.mass + type * E::COLUMNS + v;
        store(mass, load(mass) + weight[i]);
      }
      E::put_right(weights, E::BLOCK, E::COLUMNS, n, v, weight[0], weight[1]);
    }
  }
  return raised;
}

// Adds what waits to the output.
template <class E>
inline void add_values(ForwardScratch<E>& s, int64_t value_dim) {
  if (s.waiting == s.slot) return;
  if constexpr (E::IN_PLACE)
    E::multiply_values(value_dim, E::COLUMNS, E::BLOCK, s.values[0], s.value_stride, s.weights,
                       s.output, s.started);
  else if constexpr (E::PENDING == 1)
    E::multiply(value_dim, E::COLUMNS, E::BLOCK, s.values[0], s.weights, s.output, s.started);
  else
    E::multiply_parts(value_dim, E::COLUMNS, E::BLOCK, s.values + s.waiting, s.slot - s.waiting,
                      s.weights_of(s.waiting), s.output, s.started);
  s.waiting = s.slot;
  s.started = true;
}

// Called after a block raised the maximum: all blocks before it referred to the old one.
template <class E>
inline void rescale_output(ForwardScratch<E>& s, int64_t value_dim) {
  add_values(s, value_dim);
  if (!s.started) return;
  for (int64_t i = 0; i < value_dim; ++i)
    for (int64_t v = 0; v < E::COLUMNS; v += W) {
      float* at = s.output + i * E::COLUMNS + v;
      store(at, load(at) * load(s.rescale + v));
    }
}

// Divides by the row sum and writes out, mass and lse.
template <class E>
inline void finish(ForwardScratch<E>& s, const Args& args) {
  const int64_t width = padded<E>(args.value_dim);
  transpose(s.output, width, E::COLUMNS, s.rows);
  for (int64_t j = 0; j < s.columns.count; ++j) {
    float sum = 0.0f;
    for (int64_t t = 0; t < args.num_types; ++t) sum += s.mass[t * E::COLUMNS + j];
    const bool blind = s.maximum[j] == -kInfinity;
    const float factor = blind ? 0.0f : 1.0f / sum;
    store_row(s.rows + j * width, factor, args.dtype, args.value_dim,
              s.columns.at(args, args.out, j));
    float* mass = s.columns.floats_at(args.mass, j);
    for (int64_t t = 0; t < args.num_types; ++t) mass[t] = s.mass[t * E::COLUMNS + j] * factor;
    *s.columns.floats_at(args.lse, j) =
        blind ? -kInfinity
              : (float)((double)s.maximum[j] * 0.69314718055994531 + __builtin_log((double)sum));
  }
}

// Lets the columns attend to a range of keys, those of their own unit or of its prefix.
template <class E>
inline void attend(ForwardScratch<E>& s, const Args& args, const Unit& keys,
                   const KeyRange& range) {
  const int64_t dim = padded<E>(args.dim), value_dim = padded<E>(args.value_dim);
  bool in_place = false;
  if constexpr (E::IN_PLACE) in_place = E::can_read(args);
  const int64_t end = (range.end + E::BLOCK - 1) / E::BLOCK;
  for (int64_t block = range.begin / E::BLOCK; block < end; ++block) {
    if (keys.classes[block] == kAbsent) continue;
    const int64_t first = block * E::BLOCK;
    char *k = s.own_k, *v = s.own_v + s.slot * operand_bytes<E>(args.value_dim);
    int64_t key_stride = 0;
    s.value_stride = 0;
    if (keys.k) {
      k = keys.k + block * operand_bytes<E>(args.dim);
      v = keys.v + block * operand_bytes<E>(args.value_dim);
    } else if (in_place && keys.classes[block] >= 0) {  // all keys exist; others may hold NaN
      const int64_t bytes = element_bytes(args.dtype), row = keys.start_k + first;
      k = row_of(args.k, bytes, keys.key_batch, row, keys.kv_head);
      v = row_of(args.v, bytes, keys.key_batch, row, keys.kv_head);
      key_stride = args.k.row;
      s.value_stride = args.v.row;
    } else {
      pack_forward<E>(args, keys, block, k, v, s.packing);
    }
    if constexpr (E::IN_PLACE)
      E::multiply_keys(E::BLOCK, E::COLUMNS, dim, k, key_stride, s.q, s.scores);
    else
      E::multiply(E::BLOCK, E::COLUMNS, dim, k, s.q, s.scores, false);
    bool raised;
    if (range.cuts(first, E::BLOCK))
      raised = weigh<E, true>(s, args.num_types, first, keys.types + first);
    else if (keys.classes[block] == kGeneral)
      raised = weigh<E, false>(s, args.num_types, first, keys.types + first);
    else
      raised = weigh_plain<E>(s, args.num_types, keys.classes[block]);
    if (raised) rescale_output(s, value_dim);
    s.values[s.slot++] = v;
    if (s.slot < E::PENDING) continue;
    add_values(s, value_dim);
    s.waiting = s.slot = 0;
  }
}

// Takes out, mass and lse of other keys as the state after these keys: the reference is lse, to
// which the weights sum up to 1.
template <class E>
inline void go_on(ForwardScratch<E>& s, const Args& args) {
  const int64_t width = padded<E>(args.value_dim);
  s.columns.load_rows(args, args.out, args.value_dim, s.rows);
  transpose(s.rows, E::COLUMNS, width, s.output);
  s.started = true;
  for (int64_t j = 0; j < s.columns.count; ++j) {
    const float lse = *s.columns.floats_at(args.lse, j);
    if (lse == -kInfinity) continue;
    s.maximum[j] = lse * kLog2E;
    const float* mass = s.columns.floats_at(args.mass, j);
    for (int64_t t = 0; t < args.num_types; ++t) s.mass[t * E::COLUMNS + j] = mass[t];
  }
}

template <class E>
void forward_tile(const Args& args, const Unit& unit, int64_t tile, char* scratch) {
  Arena arena{scratch};
  ForwardScratch<E> s(arena, args);
  s.columns.set(args, unit, unit, tile);
  const int64_t dim = padded<E>(args.dim), value_dim = padded<E>(args.value_dim);
  s.columns.load_rows(args, args.q, args.dim, s.rows);
  transpose(s.rows, E::COLUMNS, dim, s.turned);
  pack_right<E>(s.turned, dim, E::COLUMNS, s.q);
  for (int64_t i = 0; i < args.num_types * E::COLUMNS; ++i) s.mass[i] = 0.0f;
  for (int64_t i = 0; i < E::COLUMNS; ++i) s.maximum[i] = -kInfinity;
  if (args.continues) go_on(s, args);

  if (unit.prefix) attend(s, args, *unit.prefix, KeyRange::all(*unit.prefix));
  attend(s, args, unit, s.columns.keys);
  add_values(s, value_dim);
  if (!s.started)
    for (int64_t i = 0; i < value_dim * E::COLUMNS; ++i) s.output[i] = 0.0f;
  finish<E>(s, args);
}

template <class E>
int64_t forward_scratch_bytes(const Args& args) {
  Arena arena{nullptr};
  ForwardScratch<E> s(arena, args);
  return arena.used;
}

}  // namespace AVAR_ISA
}  // namespace avar
