// kNorm: out [T,D] = x / sqrt(mean(x^2) + eps) * weight.  Overwrites out, which may be in[0].
// kHeadNorm: the same for each head of E values, in place.
// Sum of squares in double, one partial sum per thread, halves added to halves; the factor in double, rounded; two
// float32 products.  Within 4 u of the exact value, as on the CPU.
#pragma once

#include <cmath>

#include "kernels_gpu/arguments.h"

namespace tandem::gpu {

template <int kThreads>
struct NormShared {
  double partial[kThreads];
};

// One row of n values by one block.  y may be x.
template <int kThreads>
TANDEM_DEVICE void norm_row(const Block<kThreads>& block, NormShared<kThreads>& shared,
                            const float* x, const float* weight, float epsilon, float* y,
                            int64_t n) {
  block.phase([&](int thread) {
    double squares = 0;
    for (int64_t i = thread; i < n; i += kThreads) squares += double{x[i]} * double{x[i]};
    shared.partial[thread] = squares;
  });
  sum_partials(block, shared.partial);
  block.phase([&](int thread) {
    const float scale = static_cast<float>(
        1.0 / sqrt(shared.partial[0] / static_cast<double>(n) + double{epsilon}));
    for (int64_t i = thread; i < n; i += kThreads) y[i] = x[i] * scale * weight[i];
  });
}

struct NormKernel {
  static constexpr int kThreads = 256;
  using Shared = NormShared<kThreads>;

  TANDEM_DEVICE static void run(const Block<kThreads>& block, Shared& shared, const Arguments& a) {
    for (int64_t row = block.x(), n = n_rows(a); row < n; row += block.n_x()) {
      norm_row(block, shared, row_of<const float>(a.op.in[0], row),
               reinterpret_cast<const float*>(a.op.weight), a.c.norm_epsilon,
               row_of<float>(a.op.out, row), a.op.width);
    }
  }
};

struct HeadNormKernel {
  static constexpr int kThreads = 64;
  using Shared = NormShared<kThreads>;

  TANDEM_DEVICE static void run(const Block<kThreads>& block, Shared& shared, const Arguments& a) {
    const int64_t width = a.c.head_width, heads = a.op.width / width;
    for (int64_t item = block.x(), n = n_rows(a) * heads; item < n; item += block.n_x()) {
      float* head = row_of<float>(a.op.out, item / heads) + item % heads * width;
      norm_row(block, shared, head, reinterpret_cast<const float*>(a.op.weight), a.c.norm_epsilon,
               head, width);
    }
  }
};

}  // namespace tandem::gpu
