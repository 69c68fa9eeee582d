// Cuts a call into units, one per key head of a sequence, and finds the class of each key block,
// once for all heads of a sequence.
#pragma once

#include <vector>

#include "kernels.h"

namespace avar {

struct UnitList {
  std::vector<int8_t> types, classes;  // of all sequences, each padded to whole blocks
  std::vector<Unit> units;             // family after family; operands not yet placed
};

UnitList list_units(const Args& args, int64_t block_keys);

inline int64_t blocks_of(const Unit& unit, int64_t block_keys) {
  return (unit.len_k + block_keys - 1) / block_keys;
}

}  // namespace avar
