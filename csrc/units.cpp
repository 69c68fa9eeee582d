#include "units.h"

namespace avar {
namespace {

Unit sequence(const Args& args, int64_t n) {
  Unit unit{};
  if (args.cu_q) {
    unit.start_q = args.cu_q[n];
    unit.len_q = args.cu_q[n + 1] - unit.start_q;
  } else {
    unit.batch = n;
    unit.len_q = args.len_q;
  }
  if (args.cu_k) {
    unit.start_k = args.cu_k[n];
    unit.len_k = args.cu_k[n + 1] - unit.start_k;
  } else {
    unit.key_batch = n;
    unit.len_k = args.key_lengths ? args.key_lengths[n] : args.len_k;
  }
  return unit;
}

int8_t class_of(const int8_t* types, int64_t count) {
  bool same = true;
  for (int64_t i = 1; i < count; ++i) same &= types[i] == types[0];
  if (same) return types[0] < 0 ? static_cast<int8_t>(kAbsent) : types[0];
  return kGeneral;
}

}  // namespace

UnitList list_units(const Args& args, int64_t block_keys) {
  UnitList list;
  const int64_t count = args.num_sequences ? args.num_sequences : args.batch;
  const auto prefix_of = [&](int64_t n) { return args.prefix_index ? args.prefix_index[n] : -1; };
  std::vector<std::vector<int64_t>> users(count);
  int64_t blocks = 0;
  for (int64_t n = 0; n < count; ++n) {
    blocks += blocks_of(sequence(args, n), block_keys);
    if (prefix_of(n) >= 0) users[prefix_of(n)].push_back(n);
  }
  list.types.assign(blocks * block_keys, -1);
  list.classes.resize(blocks);
  std::vector<Unit> sequences;
  blocks = 0;
  for (int64_t n = 0; n < count; ++n) {
    Unit unit = sequence(args, n);
    int8_t* types = list.types.data() + blocks * block_keys;
    const int8_t* given = args.key_types;
    if (given) given += unit.key_batch * args.len_k + unit.start_k;
    for (int64_t i = 0; i < unit.len_k; ++i)
      types[i] = !given ? 0 : given[i] < 0 || given[i] >= args.num_types ? -1 : given[i];
    const int64_t num_blocks = blocks_of(unit, block_keys);
    for (int64_t i = 0; i < num_blocks; ++i)
      list.classes[blocks + i] = class_of(types + i * block_keys, block_keys);
    unit.types = types;
    unit.classes = list.classes.data() + blocks;
    unit.num_users = users[n].size();
    sequences.push_back(unit);
    blocks += num_blocks;
  }
  list.units.reserve(count * args.kv_heads);  // units point to one another
  for (int64_t n = 0; n < count; ++n) {
    if (prefix_of(n) >= 0) continue;
    for (int64_t head = 0; head < args.kv_heads; ++head) {
      list.units.push_back(sequences[n]);
      list.units.back().kv_head = head;
      const Unit* prefix = &list.units.back();
      for (const int64_t user : users[n]) {
        list.units.push_back(sequences[user]);
        list.units.back().kv_head = head;
        list.units.back().prefix = prefix;
      }
    }
  }
  return list;
}

}  // namespace avar
