// The arguments that Python passes: the same fields, in the same order, as in the ctypes structure
// of kernels/avar_kernels/cpu.py. Every field has eight bytes, so padding rules do not matter.
#pragma once

#include <cstdint>

namespace avar {

enum Dtype : int64_t { kFloat32 = 0, kBFloat16 = 1, kFloat16 = 2 };

// A tensor whose last dimension is contiguous; strides in elements. Packed tensors have batch
// stride 0, absent ones a null pointer.
struct Tensor {
  char* data;
  int64_t batch, row, head;
};

struct Args {
  int64_t isa, dtype, threads;
  int64_t batch, heads, kv_heads, dim, value_dim, len_q, len_k;
  int64_t num_sequences;  // of packed queries; 0: dense
  // Offsets of packed queries and keys; null: those of sequence n are batch n.
  const int32_t *cu_q, *cu_k;
  const int32_t* prefix_index;  // of packed sequences: the sequence whose keys each also sees, or -1
  // Of packed queries: row r is query r % len_q of batch order[r / len_q]; null: row r of batch 0.
  const int32_t* order;
  const int32_t* key_lengths;  // keys that each batch has, of len_k; null: all
  int64_t continues;  // the forward goes on from the out, mass and lse of other keys
  int64_t num_types, causal, window_left, window_right;
  double softmax_scale;
  const int8_t* key_types;  // (batch, len_k) or (Tk,), negative: absent; null: all 0
  const float *type_bias, *type_scale;  // (heads, num_types) or null
  Tensor q, k, v, out;  // in dtype
  Tensor mass, lse;     // float32; lse's last dimension is the row, so its row stride is 1
  Tensor grad_out;      // in dtype
  Tensor grad_mass, grad_lse;
  Tensor dq;                              // float32, zeroed: chunks of keys add to it
  Tensor dk, dv;                          // in dtype
  float *grad_type_bias, *grad_type_scale;  // (heads, num_types) or null
};

// static: a copy for each file, as kernels.h demands.
static inline int64_t element_bytes(int64_t dtype) { return dtype == kFloat32 ? 4 : 2; }

}  // namespace avar
