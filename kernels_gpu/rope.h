// kRope: turns the first n_rot of every head's E values of out by the angles in in[1], in place.
// float32, products and sums rounded apart: bit-identical to the CPU for the same angles.
#pragma once

#include "kernels_gpu/arguments.h"

namespace tandem::gpu {

struct RopeKernel {
  static constexpr int kThreads = 128;
  using Shared = NoShared;

  TANDEM_DEVICE static void run(const Block<kThreads>& block, Shared&, const Arguments& a) {
    const int64_t half = a.c.n_rot / 2, heads = a.op.width / a.c.head_width;
    const bool neox = a.c.rope == RopeStyle::kNeox;
    for_each(block, n_rows(a) * heads * half, [&](int64_t item) {
      const int64_t i = item % half, head = item / half % heads, row = item / half / heads;
      const float* angles = row_of<const float>(a.op.in[1], row);
      const float cosine = angles[i], sine = angles[half + i];
      float* x = row_of<float>(a.op.out, row) + head * a.c.head_width;
      float& first = x[neox ? i : 2 * i];
      float& second = x[neox ? i + half : 2 * i + 1];
      const float p = first, q = second;
      first = p * cosine - q * sine;
      second = p * sine + q * cosine;
    });
  }
};

}  // namespace tandem::gpu
