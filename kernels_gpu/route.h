// kRoute: in[0] [T,X] logits; out [T,U] expert ids, out2 [T,U] weights.  Overwrites both.
// Softmax over all experts in float32, one partial sum per thread, halves added to halves; then the U most probable,
// most probable first, of equals the lower id; weights divided by their sum.  Logits without a softmax: ids 0..U-1, weights NaN.
// Error of a probability: 2^-22 + (X/128 + 10) u of itself.  Ids equal the CPU's unless two probabilities are closer than that.
#pragma once

#include <cmath>

#include "kernels_gpu/arguments.h"
#include "kernels_gpu/exp.h"

namespace tandem::gpu {

struct RouteKernel {
  static constexpr int kThreads = 128;
  struct Shared {
    float value[kThreads];
    int32_t id[kThreads];
    float largest, sum, last_p, chosen;
    int32_t last_id;
  };

  // Whether (p, id) comes before (q, other) in the order of the choice.
  TANDEM_DEVICE static bool before(float p, int32_t id, float q, int32_t other) {
    return p > q || (p == q && id < other);
  }

  // value[0], id[0] become the first in the order; id < 0 stands for none.
  TANDEM_DEVICE static void find_first(const Block<kThreads>& block, Shared& shared) {
    for (int width = kThreads / 2; width > 0; width /= 2) {
      block.phase([&](int thread) {
        if (thread >= width) return;
        const int other = thread + width;
        if (shared.id[other] < 0) return;
        if (shared.id[thread] >= 0 &&
            !before(shared.value[other], shared.id[other], shared.value[thread], shared.id[thread]))
          return;
        shared.value[thread] = shared.value[other];
        shared.id[thread] = shared.id[other];
      });
    }
  }

  // shared.largest and shared.sum of the softmax.
  TANDEM_DEVICE static void softmax(const Block<kThreads>& block, Shared& shared,
                                    const float* logits, int64_t X) {
    block.phase([&](int thread) {
      float largest = logits[0];
      for (int64_t i = thread; i < X; i += kThreads)
        if (logits[i] > largest) largest = logits[i];
      shared.value[thread] = largest;
    });
    for (int width = kThreads / 2; width > 0; width /= 2) {
      block.phase([&](int thread) {
        if (thread < width && shared.value[thread + width] > shared.value[thread])
          shared.value[thread] = shared.value[thread + width];
      });
    }
    block.phase([&](int thread) {
      if (thread == 0) shared.largest = shared.value[0];
    });
    block.phase([&](int thread) {
      float sum = 0;
      for (int64_t i = thread; i < X; i += kThreads) sum += exp_f32(logits[i] - shared.largest);
      shared.value[thread] = sum;
    });
    sum_partials(block, shared.value);
    block.phase([&](int thread) {
      if (thread == 0) shared.sum = shared.value[0];
    });
  }

  TANDEM_DEVICE static void route(const Block<kThreads>& block, Shared& shared, const float* logits,
                                  int64_t X, int64_t U, int32_t* ids, float* weights) {
    softmax(block, shared, logits, X);
    block.phase([&](int thread) {
      if (thread != 0) return;
      shared.chosen = 0;
      shared.last_p = INFINITY;
      shared.last_id = -1;
    });
    for (int64_t u = 0; u < U; ++u) {
      block.phase([&](int thread) {
        shared.id[thread] = -1;
        for (int64_t i = thread; i < X; i += kThreads) {
          const auto id = static_cast<int32_t>(i);
          const float p = exp_f32(logits[i] - shared.largest) / shared.sum;
          if (!before(shared.last_p, shared.last_id, p, id)) continue;  // chosen already
          if (shared.id[thread] >= 0 && !before(p, id, shared.value[thread], shared.id[thread]))
            continue;
          shared.value[thread] = p;
          shared.id[thread] = id;
        }
      });
      find_first(block, shared);
      block.phase([&](int thread) {
        if (thread != 0) return;
        const bool defined = shared.sum > 0;
        ids[u] = defined ? shared.id[0] : static_cast<int32_t>(u);
        weights[u] = defined ? shared.value[0] : shared.sum;
        shared.chosen += shared.value[0];
        shared.last_p = shared.value[0];
        shared.last_id = shared.id[0];
      });
    }
    block.phase([&](int thread) {
      if (!(shared.sum > 0)) return;
      for (int64_t u = thread; u < U; u += kThreads) weights[u] /= shared.chosen;
    });
  }

  TANDEM_DEVICE static void run(const Block<kThreads>& block, Shared& shared, const Arguments& a) {
    for (int64_t row = block.x(), n = n_rows(a); row < n; row += block.n_x())
      route(block, shared, row_of<const float>(a.op.in[0], row), a.c.n_experts, a.c.n_experts_used,
            row_of<int32_t>(a.op.out, row), row_of<float>(a.op.out2, row));
  }
};

}  // namespace tandem::gpu
