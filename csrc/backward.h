// Backward of one chunk of keys against all tiles of columns of its unit.
//
// The chunk owns its rows of dk and dv. Chunks add to the dq of a tile one after another, from the
// first chunk on, so the order of every sum is fixed, whatever the threads do. A chunk waits only
// for chunks before it. Tiles run from the last to the first, because under causal masking every
// chunk has work in the last ones: in practice no chunk waits.
//
// A chunk of a prefix then goes on with the tiles of the units that also see its keys, one unit
// after another. The chunks of a prefix come before the own chunks of such a unit.
#pragma once

#include "forward.h"

namespace avar {
namespace AVAR_ISA {

template <class E>
struct BackwardScratch {
  Columns<E> columns;
  // [table_rows or num_types][COLUMNS]:
  float *shifted;   // offset - lse, in base 2; -infinity where a column sees nothing
  float *constant;  // dmass[type] - delta + dlse
  float *steep;     // factor of dz in dq and dk: softmax_scale * type_scale
  float *bias_sums, *scale_sums;
  float *scores, *weight_grads;  // [BLOCK][COLUMNS]
  float *dq;                     // [padded dim][COLUMNS]
  float *dk, *dv;                // [chunk keys][padded dim]
  float *rows, *turned, *out_rows;
  char *q, *q_rows, *grad_out, *grad_out_rows;  // right operands, transposed or by rows
  char *weights, *logit_grads, *logit_grads_right;

  BackwardScratch(Arena& arena, const Args& args, int64_t chunk_blocks) : columns(arena, args) {
    const int64_t dim = padded<E>(args.dim), value_dim = padded<E>(args.value_dim);
    const int64_t widest = larger(dim, value_dim), tile = E::BLOCK * E::COLUMNS;
    const int64_t table = args.num_types * E::COLUMNS;
    shifted = arena.take<float>(table);
    constant = arena.take<float>(table);
    steep = arena.take<float>(table);
    bias_sums = arena.take<float>(table);
    scale_sums = arena.take<float>(table);
    scores = arena.take<float>(tile);
    weight_grads = arena.take<float>(tile);
    dq = arena.take<float>(dim * E::COLUMNS);
    dk = arena.take<float>(chunk_blocks * E::BLOCK * dim);
    dv = arena.take<float>(chunk_blocks * E::BLOCK * value_dim);
    rows = arena.take<float>(E::COLUMNS * widest);
    turned = arena.take<float>(E::COLUMNS * widest);
    out_rows = arena.take<float>(E::COLUMNS * value_dim);
    q = arena.take<char>(E::right_bytes(dim, E::COLUMNS));
    q_rows = arena.take<char>(E::right_bytes(E::COLUMNS, dim));
    grad_out = arena.take<char>(E::right_bytes(value_dim, E::COLUMNS));
    grad_out_rows = arena.take<char>(E::right_bytes(E::COLUMNS, value_dim));
    weights = arena.take<char>(E::left_bytes(E::BLOCK, E::COLUMNS));
    logit_grads = arena.take<char>(E::left_bytes(E::BLOCK, E::COLUMNS));
    logit_grads_right = arena.take<char>(E::right_bytes(E::BLOCK, E::COLUMNS));
  }
};

// Loads the operands and numbers of a tile.
template <class E>
inline void load_tile(BackwardScratch<E>& s, const Args& args, const Unit& unit,
                      const Unit& of_keys, int64_t tile) {
  constexpr int64_t N = E::COLUMNS;
  const int64_t dim = padded<E>(args.dim), value_dim = padded<E>(args.value_dim);
  Columns<E>& columns = s.columns;
  columns.set(args, unit, of_keys, tile);
  columns.load_rows(args, args.q, args.dim, s.rows);
  pack_right<E>(s.rows, N, dim, s.q_rows);
  transpose(s.rows, N, dim, s.turned);
  pack_right<E>(s.turned, dim, N, s.q);
  columns.load_rows(args, args.grad_out, args.value_dim, s.rows);
  columns.load_rows(args, args.out, args.value_dim, s.out_rows);

  for (int64_t j = 0; j < N; ++j) {
    const float lse = *columns.floats_at(args.lse, j);
    const bool blind = j >= columns.count || lse == -kInfinity;
    if (blind)  // its weights are 0, but 0 times an infinite gradient would be NaN
      for (int64_t i = 0; i < value_dim; ++i) s.rows[j * value_dim + i] = 0.0f;
    const float* grad_mass = columns.floats_at(args.grad_mass, j);
    const float* mass = columns.floats_at(args.mass, j);
    vf sum = splat(0.0f);
    for (int64_t i = 0; i < value_dim; i += W)
      sum += load(s.rows + j * value_dim + i) * load(s.out_rows + j * value_dim + i);
    float row_constant = *columns.floats_at(args.grad_lse, j);  // dlse - delta
    for (int i = 0; i < W; ++i) row_constant -= sum[i];
    for (int64_t t = 0; t < args.num_types; ++t) row_constant -= grad_mass[t] * mass[t];
    for (int64_t t = 0; t < args.num_types; ++t) {
      const int64_t at = columns.heads[j] * args.num_types + t;
      s.constant[t * N + j] = blind ? 0.0f : row_constant + grad_mass[t];
      const float scale = args.type_scale ? args.type_scale[at] : 1.0f;
      s.steep[t * N + j] = (float)args.softmax_scale * scale;
      s.bias_sums[t * N + j] = s.scale_sums[t * N + j] = 0.0f;
    }
    for (int64_t t = 0; t < columns.table_rows; ++t)
      s.shifted[t * N + j] = blind ? -kInfinity : columns.offset[t * N + j] - lse * kLog2E;
  }
  pack_right<E>(s.rows, N, value_dim, s.grad_out_rows);
  transpose(s.rows, N, value_dim, s.turned);
  pack_right<E>(s.turned, value_dim, N, s.grad_out);
}

// Turns the scores and dP of a block into P and dZ, as operands. PLAIN: the block is plain and seen
// by all columns; TABLES: the call has type_bias or type_scale, so their sums are needed.
template <class E, bool PLAIN, bool TABLES>
inline void differentiate(BackwardScratch<E>& s, int64_t first_key, const int8_t* types) {
  constexpr int64_t N = E::COLUMNS;
  const Columns<E>& columns = s.columns;
  for (int64_t v = 0; v < N; v += W) {
    const int64_t common = PLAIN ? types[0] : 0;
    const vf slope = load(columns.of_type(columns.slope, common) + v);
    const vf shift = load(columns.of_type(s.shifted, common) + v);
    const vf constant = load(s.constant + common * N + v);
    const vf steep = load(s.steep + common * N + v);
    vf bias_sum = splat(0.0f), scale_sum = splat(0.0f);
    for (int64_t n = 0; n < E::BLOCK; n += 2) {
      vf grads[2];
#pragma GCC unroll 2
      for (int64_t i = 0; i < 2; ++i) {
        const vf score = load(s.scores + (n + i) * N + v);
        const vf weight_grad = load(s.weight_grads + (n + i) * N + v);
        vf weight = splat(0.0f);
        grads[i] = splat(0.0f);
        if (PLAIN) {
          weight = exp2<E::PRECISE_EXP>(score * slope + shift);
          const vf dz = weight * (weight_grad + constant);
          if (TABLES) {
            bias_sum += dz;
            scale_sum += dz * score;
          }
          grads[i] = dz * steep;
        } else if (types[n + i] >= 0) {
          const int64_t type = types[n + i];
          vf z = score * load(columns.of_type(columns.slope, type) + v) +
                 load(columns.of_type(s.shifted, type) + v);
          z = select(hidden(first_key + n + i, columns.low + v, columns.high + v),
                     splat(-kInfinity), z);
          weight = exp2<E::PRECISE_EXP>(z);
          const vf dz = weight * (weight_grad + load(s.constant + type * N + v));
          if (TABLES) {
            float *bias = s.bias_sums + type * N + v, *scale = s.scale_sums + type * N + v;
            store(bias, load(bias) + dz);
            store(scale, load(scale) + dz * score);
          }
          grads[i] = dz * load(s.steep + type * N + v);
        }
        E::put_left(s.weights, E::BLOCK, N, n + i, v, weight);
        E::put_left(s.logit_grads, E::BLOCK, N, n + i, v, grads[i]);
      }
      E::put_right(s.logit_grads_right, E::BLOCK, N, n, v, grads[0], grads[1]);
    }
    if (PLAIN && TABLES) {
      float *bias = s.bias_sums + common * N + v, *scale = s.scale_sums + common * N + v;
      store(bias, load(bias) + bias_sum);
      store(scale, load(scale) + scale_sum);
    }
  }
}

template <class E>
inline void differentiate(BackwardScratch<E>& s, const Args& args, const Unit& keys,
                          int64_t block) {
  const int64_t first = block * E::BLOCK;
  const int8_t* types = keys.types + first;
  const bool plain = keys.classes[block] >= 0 && !s.columns.keys.cuts(first, E::BLOCK);
  const bool tables = args.grad_type_bias || args.grad_type_scale;
  if (plain)
    tables ? differentiate<E, true, true>(s, first, types)
           : differentiate<E, true, false>(s, first, types);
  else
    tables ? differentiate<E, false, true>(s, first, types)
           : differentiate<E, false, false>(s, first, types);
}

// Waits until the chunks before this one have added their share to the tile's dq, then adds its
// own.
template <class E>
inline void add_dq(BackwardScratch<E>& s, const Args& args, int64_t turn, bool has_work,
                   int32_t* done) {
  const int64_t dim = padded<E>(args.dim);
  if (has_work) transpose(s.dq, dim, E::COLUMNS, s.rows);
  while (__atomic_load_n(done, __ATOMIC_ACQUIRE) != turn) wait_a_little();
  if (has_work)
    for (int64_t j = 0; j < s.columns.count; ++j) {
      float* to = s.columns.floats_at(args.dq, j);
      const float* from = s.rows + j * dim;
      int64_t i = 0;
      for (; i + W <= args.dim; i += W) store(to + i, load(to + i) + load(from + i));
      for (; i < args.dim; ++i) to[i] += from[i];
    }
  __atomic_store_n(done, (int32_t)turn + 1, __ATOMIC_RELEASE);
}

// Adds up the columns of each head of the group.
template <class E>
inline void add_table_sums(const BackwardScratch<E>& s, const Args& args, double* sums) {
  const int64_t group = s.columns.group, num_types = args.num_types;
  const int64_t first_head = s.columns.heads[0] / group * group;
  for (int64_t j = 0; j < s.columns.count; ++j)
    for (int64_t t = 0; t < num_types; ++t) {
      double* to = sums + (s.columns.heads[j] - first_head) * num_types + t;
      to[0] += s.bias_sums[t * E::COLUMNS + j];
      to[group * num_types] += args.softmax_scale * s.scale_sums[t * E::COLUMNS + j];
    }
}

template <class E>
inline void write_keys(const float* from, const Args& args, const Unit& unit, const Tensor& x,
                       int64_t dim, int64_t first, int64_t end) {
  const int64_t width = padded<E>(dim);
  for (int64_t j = first; j < end; ++j)
    store_row(from + (j - first) * width, 1.0f, args.dtype, dim,
              row_of(x, element_bytes(args.dtype), unit.key_batch, unit.start_k + j,
                     unit.kv_head));
}

// One chunk of the keys of `keys` against all tiles of `unit`, which is `keys` itself or one of its
// users.
template <class E>
inline void add_tiles(BackwardScratch<E>& s, const Args& args, const Unit& keys, const Unit& unit,
                      int64_t chunk, int64_t chunk_keys, int32_t* tiles_done, double* table_sums) {
  const int64_t dim = padded<E>(args.dim), value_dim = padded<E>(args.value_dim);
  const int64_t k_bytes = operand_bytes<E>(args.dim), v_bytes = operand_bytes<E>(args.value_dim);
  const int64_t begin = chunk * chunk_keys, end = smaller(begin + chunk_keys, keys.len_k);
  const bool own_keys = &keys == &unit;
  const int64_t chunks_before =
      own_keys && unit.prefix ? (unit.prefix->len_k + chunk_keys - 1) / chunk_keys : 0;
  for (int64_t tile = tiles_of(args, unit, E::COLUMNS) - 1; tile >= 0; --tile) {
    s.columns.place(args, unit, keys, tile);
    const int64_t key_begin = larger(begin, s.columns.keys.begin);
    const int64_t key_end = smaller(end, s.columns.keys.end);
    if (key_begin >= key_end) continue;
    const int64_t turn = chunks_before + chunk - s.columns.keys.begin / chunk_keys;
    bool has_work = false;
    for (int64_t block = key_begin / E::BLOCK; block * E::BLOCK < key_end; ++block) {
      if (keys.classes[block] == kAbsent) continue;
      if (!has_work) load_tile(s, args, unit, keys, tile);
      const int64_t at = block * E::BLOCK - begin;
      E::multiply(E::BLOCK, E::COLUMNS, dim, keys.k + block * k_bytes, s.q, s.scores, false);
      E::multiply(E::BLOCK, E::COLUMNS, value_dim, keys.v + block * v_bytes, s.grad_out,
                  s.weight_grads, false);
      differentiate(s, args, keys, block);
      E::multiply(E::BLOCK, value_dim, E::COLUMNS, s.weights, s.grad_out_rows,
                  s.dv + at * value_dim, true);
      E::multiply(E::BLOCK, dim, E::COLUMNS, s.logit_grads, s.q_rows, s.dk + at * dim, true);
      E::multiply(dim, E::COLUMNS, E::BLOCK, keys.k_transposed + block * k_bytes,
                  s.logit_grads_right, s.dq, has_work);
      has_work = true;
    }
    add_dq(s, args, turn, has_work, tiles_done + tile);
    if (has_work && table_sums) add_table_sums(s, args, table_sums);
  }
}

template <class E>
void backward_chunk(const Args& args, const Unit& unit, int64_t chunk, int64_t chunk_blocks,
                    int32_t* tiles_done, double* table_sums, char* scratch) {
  Arena arena{scratch};
  BackwardScratch<E> s(arena, args, chunk_blocks);
  const int64_t dim = padded<E>(args.dim), value_dim = padded<E>(args.value_dim);
  const int64_t chunk_keys = chunk_blocks * E::BLOCK, begin = chunk * chunk_keys;
  const int64_t end = smaller(begin + chunk_keys, unit.len_k);
  for (int64_t i = 0; i < chunk_keys * dim; ++i) s.dk[i] = 0.0f;
  for (int64_t i = 0; i < chunk_keys * value_dim; ++i) s.dv[i] = 0.0f;
  const Unit* const last = &unit + unit.num_users;
  for (const Unit* reader = &unit; reader <= last; ++reader) {
    add_tiles(s, args, unit, *reader, chunk, chunk_keys, tiles_done, table_sums);
    tiles_done += tiles_of(args, *reader, E::COLUMNS);
  }
  write_keys<E>(s.dk, args, unit, args.dk, args.dim, begin, end);
  write_keys<E>(s.dv, args, unit, args.dv, args.value_dim, begin, end);
}

template <class E>
int64_t backward_scratch_bytes(const Args& args, int64_t chunk_blocks) {
  Arena arena{nullptr};
  BackwardScratch<E> s(arena, args, chunk_blocks);
  return arena.used;
}

}  // namespace AVAR_ISA
}  // namespace avar
