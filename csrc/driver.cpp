// Forward and backward as lists of tasks. The lists depend on shapes alone, and threads only take
// tasks from them, so results do not depend on the threads.
#include "driver.h"

#include <algorithm>
#include <cstdlib>
#include <memory>

#include "cpu_features.h"
#include "threads.h"
#include "units.h"

namespace avar {
namespace {

// Operands are packed for as many units at a time as fit into this much memory.
constexpr int64_t kOperandBytes = 96 << 20;
// Keys of a task of the backward. Larger tasks prepare the columns' operands less often; smaller
// ones keep more threads busy.
constexpr int64_t kChunkKeys = 512;

struct Task {
  int64_t unit, index, rank;  // what decides its place among the tasks
};

struct Buffer {
  std::unique_ptr<char, decltype(&std::free)> data{nullptr, std::free};

  char* at_least(int64_t bytes) {
    data.reset(static_cast<char*>(std::aligned_alloc(64, (bytes + 63) / 64 * 64)));
    if (!data && bytes) std::abort();
    return data.get();
  }
};

// State of one round: the units [first, end) whose operands are packed at the same time.
struct Round {
  const Args& args;
  const Kernels& kernels;
  std::vector<Unit>& units;
  std::vector<Task> tasks{};
  int64_t chunk_blocks = 0;
  std::vector<int32_t> tiles_done{};
  std::vector<int64_t> tiles_at{};  // of each unit in tiles_done
  std::vector<double> table_sums{};

  int64_t tiles_of(const Unit& unit) const {
    return avar::tiles_of(args, unit, kernels.tile_columns);
  }
  // Tiles that read the keys of a unit: its own and those of its users.
  int64_t readers_of(const Unit& unit) const {
    int64_t tiles = 0;
    for (int64_t i = 0; i <= unit.num_users; ++i) tiles += tiles_of((&unit)[i]);
    return tiles;
  }
  int64_t chunks_of(const Unit& unit) const {
    return (blocks_of(unit, kernels.block_keys) + chunk_blocks - 1) / chunk_blocks;
  }
  int64_t table_size() const { return 2 * args.heads / args.kv_heads * args.num_types; }
};

void pack_forward(void* context, int64_t i, char* scratch) {
  const Round& round = *static_cast<Round*>(context);
  const Task& task = round.tasks[i];
  round.kernels.pack_forward(round.args, round.units[task.unit], task.index, scratch);
}

void pack_backward(void* context, int64_t i, char* scratch) {
  const Round& round = *static_cast<Round*>(context);
  const Task& task = round.tasks[i];
  round.kernels.pack_backward(round.args, round.units[task.unit], task.index, scratch);
}

void forward_tile(void* context, int64_t i, char* scratch) {
  const Round& round = *static_cast<Round*>(context);
  const Task& task = round.tasks[i];
  round.kernels.forward_tile(round.args, round.units[task.unit], task.index, scratch);
}

void backward_chunk(void* context, int64_t i, char* scratch) {
  Round& round = *static_cast<Round*>(context);
  const Task& task = round.tasks[i];
  double* sums =
      round.table_sums.empty() ? nullptr : round.table_sums.data() + i * round.table_size();
  round.kernels.backward_chunk(round.args, round.units[task.unit], task.index, round.chunk_blocks,
                               round.tiles_done.data() + round.tiles_at[task.unit], sums, scratch);
}

// The forward reads the operands of a unit once for each tile. A few tiles, as in decoding, are not
// worth the memory.
bool has_operands(const Round& round, const Unit& unit, bool backward) {
  return backward || round.readers_of(unit) > round.kernels.unpacked_tiles;
}

// Places the operands of as many families as fit in the buffer, from first on; returns the end.
int64_t place_operands(Round& round, int64_t first, bool backward, Buffer& buffer) {
  const int64_t k_bytes = round.kernels.operand_bytes(round.args.dim);
  const int64_t v_bytes = round.kernels.operand_bytes(round.args.value_dim);
  const int64_t block_bytes = (backward ? 2 : 1) * k_bytes + v_bytes;
  int64_t end = first, bytes = 0;
  while (end < static_cast<int64_t>(round.units.size())) {
    const Unit& unit = round.units[end];
    const int64_t more = has_operands(round, unit, backward)
                             ? blocks_of(unit, round.kernels.block_keys) * block_bytes
                             : 0;
    if (end > first && !unit.prefix && bytes + more > kOperandBytes) break;
    bytes += more;
    ++end;
  }
  char* at = buffer.at_least(bytes);
  for (int64_t u = first; u < end; ++u) {
    Unit& unit = round.units[u];
    if (!has_operands(round, unit, backward)) continue;
    const int64_t blocks = blocks_of(unit, round.kernels.block_keys);
    unit.k = at;
    unit.v = unit.k + blocks * k_bytes;
    unit.k_transposed = unit.v + blocks * v_bytes;
    at += blocks * block_bytes;
  }
  return end;
}

void list_blocks(Round& round, int64_t first, int64_t end) {
  round.tasks.clear();
  for (int64_t u = first; u < end; ++u) {
    if (!round.units[u].k) continue;  // its forward packs the blocks itself
    const int64_t blocks = blocks_of(round.units[u], round.kernels.block_keys);
    for (int64_t b = 0; b < blocks; ++b) round.tasks.push_back({u, b, 0});
  }
}

// Tiles of one unit stay together, so that threads find its operands in their caches. The longest
// units go first, and the heaviest tiles of each, so that no long task is left for the end. The
// cost of a tile is the number of keys that its last row may see; windows are left out of it.
void list_tiles(Round& round, int64_t first, int64_t end) {
  const Args& args = round.args;
  round.tasks.clear();
  for (int64_t u = first; u < end; ++u) {
    const Unit& unit = round.units[u];
    const int64_t tiles = round.tiles_of(unit);
    for (int64_t t = 0; t < tiles; ++t) {
      const int64_t last_column = (t + 1) * round.kernels.tile_columns - 1;
      const int64_t last_row = std::min(last_column / (args.heads / args.kv_heads), unit.len_q - 1);
      const int64_t own = last_row + 1 + unit.len_k - unit.len_q;
      const int64_t prefix = unit.prefix ? unit.prefix->len_k : 0;
      round.tasks.push_back({u, t, prefix + (args.causal ? std::max<int64_t>(own, 0) : unit.len_k)});
    }
  }
  const auto size = [&](int64_t u) {
    const Unit& unit = round.units[u];
    return unit.len_q * (unit.len_k + (unit.prefix ? unit.prefix->len_k : 0));
  };
  std::stable_sort(round.tasks.begin(), round.tasks.end(), [&](const Task& a, const Task& b) {
    if (a.unit == b.unit) return a.rank > b.rank;
    return size(a.unit) != size(b.unit) ? size(a.unit) > size(b.unit) : a.unit < b.unit;
  });
}

// The first chunks of all units go first: a chunk waits for the chunks before it, so they must have
// been started. Those of a prefix count as chunks before the first of each of its users.
void list_chunks(Round& round, int64_t first, int64_t end) {
  round.tasks.clear();
  round.tiles_at.assign(round.units.size(), 0);
  int64_t tiles = 0;
  for (int64_t u = first; u < end; ++u) {
    const Unit& unit = round.units[u];
    const int64_t before = unit.prefix ? round.chunks_of(*unit.prefix) : 0;
    for (int64_t c = 0; c < round.chunks_of(unit); ++c) round.tasks.push_back({u, c, before + c});
    round.tiles_at[u] = tiles;
    tiles += round.tiles_of(unit);
  }
  std::stable_sort(round.tasks.begin(), round.tasks.end(),
                   [](const Task& a, const Task& b) { return a.rank < b.rank; });
  round.tiles_done.assign(tiles, 0);
}

void run(Round& round, int64_t scratch_bytes, Work work) {
  parallel_for(round.args.threads, round.tasks.size(), scratch_bytes, work, &round);
}

// Two narrow tiles compute less than a wide one that is half empty.
bool fits_narrow(const Args& args, const UnitList& list, const Kernels& wide) {
  return std::all_of(list.units.begin(), list.units.end(), [&](const Unit& unit) {
    return unit.len_q * (args.heads / args.kv_heads) <= 2 * wide.narrow->tile_columns;
  });
}

// Adds the sums of the tasks, in their order, to the gradients of the tables.
void add_table_sums(const Round& round, std::vector<double>& total) {
  const Args& args = round.args;
  const int64_t group = args.heads / args.kv_heads, table = args.heads * args.num_types;
  const int64_t part = group * args.num_types;
  for (size_t i = 0; i < round.tasks.size(); ++i) {
    const double* sums = round.table_sums.data() + i * round.table_size();
    double* to = total.data() + round.units[round.tasks[i].unit].kv_head * part;
    for (int64_t j = 0; j < part; ++j) {
      to[j] += sums[j];
      to[table + j] += sums[part + j];
    }
  }
}

}  // namespace

void forward(const Args& args) {
  const Kernels& wide = kernels_of(args.isa, args.dtype);
  UnitList list = list_units(args, wide.block_keys);
  const Kernels& kernels = fits_narrow(args, list, wide) ? *wide.narrow : wide;
  Round round{args, kernels, list.units};
  const int64_t scratch = kernels.forward_scratch_bytes(args);
  Buffer operands;
  const int64_t num_units = list.units.size();
  for (int64_t first = 0, end; first < num_units; first = end) {
    end = place_operands(round, first, false, operands);
    list_blocks(round, first, end);
    run(round, scratch, pack_forward);
    list_tiles(round, first, end);
    run(round, scratch, forward_tile);
  }
}

void backward(const Args& args) {
  const Kernels& kernels = kernels_of(args.isa, args.dtype);
  UnitList list = list_units(args, kernels.block_keys);
  Round round{args, kernels, list.units};
  round.chunk_blocks = kChunkKeys / kernels.block_keys;
  const int64_t scratch = kernels.backward_scratch_bytes(args, round.chunk_blocks);
  const bool tables = args.grad_type_bias || args.grad_type_scale;
  std::vector<double> total(tables ? 2 * args.heads * args.num_types : 0, 0.0);
  Buffer operands;
  const int64_t num_units = list.units.size();
  for (int64_t first = 0, end; first < num_units; first = end) {
    end = place_operands(round, first, true, operands);
    list_blocks(round, first, end);
    run(round, scratch, pack_backward);
    list_chunks(round, first, end);
    if (tables) round.table_sums.assign(round.tasks.size() * round.table_size(), 0.0);
    run(round, scratch, backward_chunk);
    if (tables) add_table_sums(round, total);
  }
  const int64_t table = args.heads * args.num_types;
  for (int64_t i = 0; i < table; ++i) {
    if (args.grad_type_bias) args.grad_type_bias[i] = static_cast<float>(total[i]);
    if (args.grad_type_scale) args.grad_type_scale[i] = static_cast<float>(total[table + i]);
  }
}

}  // namespace avar
