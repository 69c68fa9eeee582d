// The table of an engine's kernels. Each runs with the floating-point settings of its own thread.
#pragma once

#include "backward.h"

namespace avar {
namespace AVAR_ISA {

// While a kernel runs, subnormal numbers count as zero: a weight below 1e-38 does not matter, and
// arithmetic with one takes a hundred cycles.
template <class E>
struct Session {
#if defined(__x86_64__)
  unsigned control = _mm_getcsr();
  Session() {
    _mm_setcsr(control | 0x8040);
    E::begin();
  }
  ~Session() {
    E::end();
    _mm_setcsr(control);
  }
#endif
};

template <class E>
struct Narrow : E {
  static constexpr int64_t COLUMNS = E::NARROW;
};

template <class E>
struct Table {
  static void pack_forward(const Args& args, const Unit& unit, int64_t block, char* scratch) {
    if (unit.classes[block] == kAbsent) return;
    AVAR_ISA::pack_forward<E>(args, unit, block, unit.k + block * operand_bytes<E>(args.dim),
                              unit.v + block * operand_bytes<E>(args.value_dim), scratch);
  }
  static void pack_backward(const Args& args, const Unit& unit, int64_t block, char* scratch) {
    AVAR_ISA::pack_backward<E>(args, unit, block, scratch);
  }
  static void forward_tile(const Args& args, const Unit& unit, int64_t tile, char* scratch) {
    Session<E> session;
    AVAR_ISA::forward_tile<E>(args, unit, tile, scratch);
  }
  static void backward_chunk(const Args& args, const Unit& unit, int64_t chunk,
                             int64_t chunk_blocks, int32_t* tiles_done, double* table_sums,
                             char* scratch) {
    Session<E> session;
    AVAR_ISA::backward_chunk<E>(args, unit, chunk, chunk_blocks, tiles_done, table_sums, scratch);
  }
  static constexpr Kernels make(const char* name, const Kernels* narrow) {
    return {name,
            narrow,
            E::COLUMNS,
            E::BLOCK,
            1,
            operand_bytes<E>,
            forward_scratch_bytes<E>,
            backward_scratch_bytes<E>,
            pack_forward,
            pack_backward,
            forward_tile,
            backward_chunk};
  }
  // The kernels with narrow tiles, which have no backward.
  static constexpr Kernels make_narrow(const char* name) {
    return {name,
            nullptr,
            E::COLUMNS,
            E::BLOCK,
            E::IN_PLACE ? 4 : 1,
            operand_bytes<E>,
            forward_scratch_bytes<E>,
            nullptr,
            pack_forward,
            nullptr,
            forward_tile,
            nullptr};
  }
};

}  // namespace AVAR_ISA
}  // namespace avar
