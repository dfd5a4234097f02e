// Copies of rows.  Overwrite out.  Requires: rows of whole float32.  Nothing is rounded.
//   kGatherPairs    out [pairs,..] = rows of in[0] in the order of the lists in[1]
//   kGatherOutputs  out [R,D] = rows of in[0] whose logits are wanted
#pragma once

#include "kernels_gpu/arguments.h"

namespace tandem::gpu {

// source_of(row): the row of in[0] that becomes row `row` of out.
template <int kThreads, typename F>
TANDEM_DEVICE void copy_rows(const Block<kThreads>& block, const Arguments& a, int64_t n,
                             F&& source_of) {
  const auto words = static_cast<int64_t>(a.op.out.row_bytes / 4);
  for_each(block, n * words, [&](int64_t i) {
    const int64_t row = i / words, word = i % words;
    row_of<uint32_t>(a.op.out, row)[word] =
        row_of<const uint32_t>(a.op.in[0], source_of(row))[word];
  });
}

struct GatherPairsKernel {
  static constexpr int kThreads = 256;
  using Shared = NoShared;

  TANDEM_DEVICE static void run(const Block<kThreads>& block, Shared&, const Arguments& a) {
    const ExpertLists lists = lists_over(a, a.op.in[1]);
    copy_rows(block, a, n_rows(a),
              [&](int64_t row) { return lists.pair_at[row] / a.c.n_experts_used; });
  }
};

struct GatherOutputsKernel {
  static constexpr int kThreads = 256;
  using Shared = NoShared;

  TANDEM_DEVICE static void run(const Block<kThreads>& block, Shared&, const Arguments& a) {
    copy_rows(block, a, n_rows(a), [&](int64_t row) { return a.op.step->first_output + row; });
  }
};

}  // namespace tandem::gpu
