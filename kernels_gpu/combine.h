// kCombine: out [T,D] = sum over u, in order, of in[2][t,u] * row of pair (t,u) of in[0]; lists in[1].  Pairs that are
// not in these lists are taken from other_rows by other_lists.  Overwrites out.
// float32, products and sums rounded apart: bit-identical to the CPU's scalar set, whatever computed the rows.
#pragma once

#include "kernels_gpu/arguments.h"

namespace tandem::gpu {

struct CombineKernel {
  static constexpr int kThreads = 256;
  using Shared = NoShared;

  TANDEM_DEVICE static void run(const Block<kThreads>& block, Shared&, const Arguments& a) {
    const ExpertLists own = lists_over(a, a.op.in[1]);
    const ExpertLists other =
        a.op.other_lists.data == nullptr ? own : lists_over(a, a.op.other_lists);
    const int64_t width = a.op.width, U = a.c.n_experts_used;
    for_each(block, n_rows(a) * width, [&](int64_t i) {
      const int64_t row = i / width, column = i % width;
      const float* shares = row_of<const float>(a.op.in[2], row);
      float sum = 0;
      for (int64_t u = 0; u < U; ++u) {
        const int32_t here = own.row_of[row * U + u];
        const float* computed =
            here >= 0 ? row_of<const float>(a.op.in[0], here)
                      : row_of<const float>(a.op.other_rows, other.row_of[row * U + u]);
        sum += shares[u] * computed[column];
      }
      row_of<float>(a.op.out, row)[column] = sum;
    });
  }
};

}  // namespace tandem::gpu
