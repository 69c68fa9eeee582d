// Scratch memory of one thread, handed out front to back.
#pragma once

#include <cstdint>

namespace avar {
namespace AVAR_ISA {

// With a null start it only counts: the same code that takes the pieces says how much they need.
struct Arena {
  char* start;
  int64_t used = 0;

  template <class T>
  T* take(int64_t count) {
    T* piece = (T*)((uintptr_t)start + used);
    used += (count * (int64_t)sizeof(T) + 63) / 64 * 64;
    return piece;
  }
};

}  // namespace AVAR_ISA
}  // namespace avar
