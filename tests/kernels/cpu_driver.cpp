// Runs the C++ kernel over odd shapes without Python, for a build with sanitizers: every buffer has
// its exact size, so that a step outside is seen. Ends with status 1 where a result is not finite.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "../../csrc/cpu_features.h"
#include "../../csrc/driver.h"

using avar::Args;
using avar::Tensor;

struct Shape {
  int64_t batch, heads, kv_heads, dim, value_dim, len_q, len_k, causal, left, right;
};

constexpr Shape kShapes[] = {
    {1, 1, 1, 1, 1, 1, 1, 0, -1, -1},     {2, 7, 1, 7, 19, 70, 131, 1, -1, -1},
    {1, 2, 2, 40, 33, 600, 65, 1, -1, -1},  {1, 4, 2, 16, 16, 100, 1100, 1, 200, -1},
    {1, 2, 1, 17, 8, 129, 129, 0, 30, 5},   {1, 2, 1, 8, 8, 0, 5, 0, -1, -1},
    {1, 2, 1, 8, 8, 5, 0, 1, -1, -1},       {1, 3, 1, 130, 65, 33, 64, 0, -1, -1},
};
constexpr int64_t kTypes = 5;

struct Buffer {
  std::vector<char> bytes;
  Tensor tensor;
};

// (batch, rows, heads, n) without gaps; 1.0 and -0.5 in turns, in any dtype.
Buffer make(int64_t batch, int64_t rows, int64_t heads, int64_t n, int64_t dtype, bool zero) {
  const int64_t size = avar::element_bytes(dtype);
  Buffer made;
  made.bytes.resize(batch * rows * heads * n * size);
  const uint16_t half[2][2] = {{0x3f80, 0xbf00}, {0x3c00, 0xb800}};
  for (int64_t i = 0; i < batch * rows * heads * n; ++i) {
    const int sign = (i * 2654435761u >> 7) & 1;
    if (dtype == avar::kFloat32)
      reinterpret_cast<float*>(made.bytes.data())[i] = zero ? 0.0f : sign ? -0.5f : 1.0f;
    else
      reinterpret_cast<uint16_t*>(made.bytes.data())[i] = zero ? 0 : half[dtype - 1][sign];
  }
  made.tensor = {made.bytes.data(), rows * heads * n, heads * n, n};
  return made;
}

bool finite(const Buffer& x, int64_t dtype) {
  if (dtype == avar::kFloat32) {
    const float* values = reinterpret_cast<const float*>(x.bytes.data());
    for (size_t i = 0; i < x.bytes.size() / 4; ++i)
      if (!std::isfinite(values[i])) return false;
    return true;
  }
  const unsigned exponent = dtype == avar::kBFloat16 ? 0x7f80 : 0x7c00;
  const uint16_t* values = reinterpret_cast<const uint16_t*>(x.bytes.data());
  for (size_t i = 0; i < x.bytes.size() / 2; ++i)
    if ((values[i] & exponent) == exponent) return false;
  return true;
}

bool run(int64_t isa, int64_t dtype, const Shape& s, bool packed, bool prefixes, bool tables) {
  Args args{};
  args.isa = isa;
  args.dtype = dtype;
  args.threads = 3;
  args.batch = s.batch;
  args.heads = s.heads;
  args.kv_heads = s.kv_heads;
  args.dim = s.dim;
  args.value_dim = s.value_dim;
  args.len_q = s.len_q;
  args.len_k = s.len_k;
  args.num_types = kTypes;
  args.causal = s.causal;
  args.window_left = s.left;
  args.window_right = s.right;
  args.softmax_scale = 0.3;
  const int64_t rows = s.batch * s.len_q, keys = s.batch * s.len_k;
  // As packed: an empty sequence, then two with all tokens but a tail that belongs to none. The
  // second may be the prefix of the other two, of which the first then sees its keys alone.
  std::vector<int32_t> cu_q = {0, 0, int32_t(rows / 3), int32_t(rows - rows / 9)};
  std::vector<int32_t> cu_k = {0, 0, int32_t(keys / 2), int32_t(keys - keys / 9)};
  std::vector<int32_t> prefix_index = {1, -1, 1};
  if (packed) {
    args.num_sequences = 3;
    args.cu_q = cu_q.data();
    args.cu_k = cu_k.data();
    if (prefixes) {
      cu_q[1] = int32_t(rows / 5);
      args.prefix_index = prefix_index.data();
      args.window_left = args.window_right = -1;
    }
  }
  std::vector<int8_t> types(keys);
  for (int64_t i = 0; i < keys; ++i) types[i] = i < keys / 2 ? 1 : int8_t(i * 7 % 6 - 1);
  args.key_types = types.data();
  std::vector<float> bias(s.heads * kTypes, 0.25f), scale(bias), grad_bias(bias), grad_scale(bias);
  bias[0] = -INFINITY;
  if (tables) {
    args.type_bias = bias.data();
    args.type_scale = scale.data();
    args.grad_type_bias = grad_bias.data();
    args.grad_type_scale = grad_scale.data();
  }
  const int64_t b = s.batch, lq = s.len_q, lk = s.len_k, f32 = avar::kFloat32;
  Buffer q = make(b, lq, s.heads, s.dim, dtype, false), dq = make(b, lq, s.heads, s.dim, f32, true);
  Buffer k = make(b, lk, s.kv_heads, s.dim, dtype, false), dk = make(b, lk, s.kv_heads, s.dim, dtype, true);
  Buffer v = make(b, lk, s.kv_heads, s.value_dim, dtype, false), dv = make(b, lk, s.kv_heads, s.value_dim, dtype, true);
  Buffer out = make(b, lq, s.heads, s.value_dim, dtype, true), grad_out = make(b, lq, s.heads, s.value_dim, dtype, false);
  Buffer mass = make(b, lq, s.heads, kTypes, f32, true), grad_mass = make(b, lq, s.heads, kTypes, f32, false);
  Buffer lse = make(b, lq, s.heads, 1, f32, true), grad_lse = make(b, lq, s.heads, 1, f32, false);
  args.q = q.tensor;
  args.k = k.tensor;
  args.v = v.tensor;
  args.out = out.tensor;
  args.mass = mass.tensor;
  args.lse = lse.tensor;
  args.grad_out = grad_out.tensor;
  args.grad_mass = grad_mass.tensor;
  args.grad_lse = grad_lse.tensor;
  args.dq = dq.tensor;
  args.dk = dk.tensor;
  args.dv = dv.tensor;
  avar::forward(args);
  avar::backward(args);
  return finite(out, dtype) && finite(mass, f32) && finite(dq, f32) && finite(dk, dtype) &&
         finite(dv, dtype);
}

int main() {
  int64_t calls = 0;
  for (int64_t isa = 0; avar::isa_name(isa); ++isa) {
    if (!avar::isa_runs(isa)) continue;
    for (int64_t dtype = 0; dtype < 3; ++dtype)
      for (const Shape& shape : kShapes)
        for (int mode = 0; mode < 6; ++mode, ++calls)
          if (!run(isa, dtype, shape, mode >= 2, mode >= 4, mode & 1)) {
            std::printf("not finite: %s, dtype %d, %d keys\n", avar::isa_name(isa), int(dtype),
                        int(shape.len_k));
            return 1;
          }
  }
  std::printf("%d calls\n", int(calls));
}
