// Cuts a call into units (a key head of a sequence) and sorts the key blocks of each sequence by
// class, once for all heads.
#pragma once

#include <vector>

#include "kernels.h"

namespace avar {

struct Plan {
  std::vector<int8_t> types, classes;  // of all sequences, each padded to whole blocks
  std::vector<Unit> units;             // operands not yet placed
};

Plan make_plan(const Args& args, int64_t block_keys);

inline int64_t blocks_of(const Unit& unit, int64_t block_keys) {
  return (unit.len_k + block_keys - 1) / block_keys;
}

}  // namespace avar
