// kListPairs: in[0] [T,U] expert ids, contiguous; out: the lists of ExpertLists, of the experts that have an
// address.  Overwrites out.
// One block; each thread counts and lists its own experts, so that pairs of one expert keep the order of the tokens without
// atomics.  Reads the ids 2*X/256 times.  Identical to the CPU.
#pragma once

#include "kernels_gpu/arguments.h"

namespace tandem::gpu {

struct ListPairsKernel {
  static constexpr int kThreads = 256;
  using Shared = NoShared;

  TANDEM_DEVICE static void run(const Block<kThreads>& block, Shared&, const Arguments& a) {
    const int64_t X = a.c.n_experts, n_pairs = a.op.step->n_tokens * a.c.n_experts_used;
    const auto* expert_of = reinterpret_cast<const int32_t*>(a.op.in[0].data);
    const ExpertLists lists = lists_over(a, a.op.out);
    block.phase([&](int thread) {
      for (int64_t e = thread; e < X; e += kThreads) {
        int32_t count = 0;
        for (int64_t p = 0; p < n_pairs && a.op.experts[e] != nullptr; ++p)
          count += expert_of[p] == e ? 1 : 0;
        lists.begin[e + 1] = count;
      }
    });
    block.phase([&](int thread) {
      if (thread != 0) return;
      int32_t n_active = 0, begin = 0;
      lists.begin[0] = 0;
      for (int64_t e = 0; e < X; ++e) {
        const int32_t count = lists.begin[e + 1];
        if (count > 0) lists.active[n_active++] = static_cast<int32_t>(e);
        begin += count;
        lists.begin[e + 1] = begin;
      }
      *lists.n_active = n_active;
    });
    block.phase([&](int thread) {
      for (int64_t e = thread; e < X; e += kThreads) {
        int32_t row = lists.begin[e];
        for (int64_t p = 0; p < n_pairs; ++p) {
          if (expert_of[p] != e) continue;
          if (a.op.experts[e] == nullptr) {
            lists.row_of[p] = -1;
            continue;
          }
          lists.pair_at[row] = static_cast<int32_t>(p);
          lists.row_of[p] = row++;
        }
      }
    });
  }
};

}  // namespace tandem::gpu
