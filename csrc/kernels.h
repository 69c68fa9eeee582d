// The border between the driver, compiled for any machine, and the kernels of one instruction set.
//
// Only structures of C and function pointers cross it. The code of an instruction set lives in a
// namespace of its own and calls no inline function of the standard library: the linker keeps one
// copy of such a function for all files, and that copy might have instructions that this machine
// lacks.
#pragma once

#include "args.h"

namespace avar {

// Classes of key blocks. Zero and above: plain, all keys exist and have this type. General: types
// meet, or some keys do not exist. Absent: no key exists.
enum BlockClass : int8_t { kGeneral = -1, kAbsent = -2 };

// One key head of one sequence, with the query heads that share it. Its "columns" are the pairs
// (query row, head of the group), heads fastest, so that a few rows fill a tile too.
//
// A sequence may also see the keys of another one, its prefix. The units of a prefix and of its
// users, for one key head, are a family: they lie next to each other in memory, the prefix first.
struct Unit {
  int64_t batch, start_q, len_q, key_batch, start_k, len_k, kv_head;
  int64_t num_users;   // units behind this one that also see its keys
  const Unit* prefix;  // null: none
  const int8_t* types;    // per key, padded to whole blocks with -1
  const int8_t* classes;  // per block of keys
  // Packed operands, block after block; in the forward v is transposed. The forward of a single
  // tile has none and packs each block when it comes to it.
  char *k, *k_transposed, *v;
};

// Tiles of columns of a unit. static: a copy for each file, as said above.
static inline int64_t tiles_of(const Args& args, const Unit& unit, int64_t tile_columns) {
  const int64_t columns = unit.len_q * (args.heads / args.kv_heads);
  return (columns + tile_columns - 1) / tile_columns;
}

struct Kernels {
  const char* name;
  // The kernels with narrow tiles, for the forward of calls whose units have no more columns than
  // two such tiles, as in decoding. They have no narrow ones of their own: null.
  const Kernels* narrow;
  int64_t tile_columns, block_keys;
  int64_t unpacked_tiles;  // as many tiles of a forward read the keys without packed operands
  // Bytes of one key block as operands: keys or values by rows, and transposed.
  int64_t (*operand_bytes)(int64_t dim);
  int64_t (*forward_scratch_bytes)(const Args&);
  int64_t (*backward_scratch_bytes)(const Args&, int64_t chunk_blocks);
  void (*pack_forward)(const Args&, const Unit&, int64_t block, char* scratch);
  void (*pack_backward)(const Args&, const Unit&, int64_t block, char* scratch);
  void (*forward_tile)(const Args&, const Unit&, int64_t tile, char* scratch);
  // One chunk of keys against all tiles of the unit and of its users: writes dk and dv, adds to dq
  // when tiles_done says it is this chunk's turn, writes table_sums[2][group][num_types] (of
  // type_bias, of type_scale). tiles_done has the tiles of the unit, then those of its users.
  void (*backward_chunk)(const Args&, const Unit&, int64_t chunk, int64_t chunk_blocks,
                         int32_t* tiles_done, double* table_sums, char* scratch);
};

// Waits for a moment; for a chunk that waits for another.
void wait_a_little();

// The kernels of an instruction set for a dtype; null where a lesser set serves the dtype.
const Kernels* portable_kernels(int64_t dtype);
const Kernels* avx2_kernels(int64_t dtype);
const Kernels* avx512_kernels(int64_t dtype);
const Kernels* avx512_bf16_kernels(int64_t dtype);
const Kernels* amx_kernels(int64_t dtype);

}  // namespace avar
