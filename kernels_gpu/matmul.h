// kMatmul: out [T,N] float32 = in[0] [T,K] x weight [N,K].  Overwrites out.
// kExpertMatmul: the same for each expert's rows of the pairs, with the expert's own weight, as the lists
// in in[1] group them.
//
// in[0] is float32 beside F32, F16, BF16 and BlockQ8A beside Q4_0, Q8_0, Q4_K, Q6_K.
// 32 lanes share a row of weights: lane l takes elements (groups of 32 for quantised weights) l, l+32, ..., and the
// lanes' sums are added in order, in double, rounded once.  Within a lane: fused multiply-adds in float32 for
// float weights, double over exact integer sums for quantised ones.  The result of one (row, token) does not depend on the
// other rows and tokens.  Moves N*K weights once per 8 tokens.
#pragma once

#include <cmath>

#include "kernels_gpu/arguments.h"
#include "kernels_gpu/number_formats.h"

namespace tandem::gpu {

inline constexpr int kProductLanes = 32, kProductRows = 4, kProductTokens = 8;
inline constexpr int kProductThreads = kProductLanes * kProductRows;

struct ProductShared {
  double partial[kProductTokens][kProductThreads];
};

// Lane's share of a row of float weights, for n_tokens rows of x.
template <typename Format>
struct FloatRows {
  using X = float;
  using Sum = float;
  TANDEM_DEVICE static void add(const std::byte* row, const std::byte* x, size_t x_row_bytes,
                                int64_t K, int lane, int n_tokens, Sum* sums) {
    for (int64_t k = lane; k < K; k += kProductLanes) {
      const float w = Format::value(row, k);
      TANDEM_UNROLL for (int t = 0; t < kProductTokens; ++t) {
        if (t >= n_tokens) continue;
        const auto* x_row =
            reinterpret_cast<const float*>(x + static_cast<size_t>(t) * x_row_bytes);
        sums[t] = fmaf(w, x_row[k], sums[t]);
      }
    }
  }
};

template <typename Format>
struct QuantisedRows {
  using X = BlockQ8A;
  using Sum = double;
  TANDEM_DEVICE static void add(const std::byte* row, const std::byte* x, size_t x_row_bytes,
                                int64_t K, int lane, int n_tokens, Sum* sums) {
    for (int64_t group = lane; group < K / 32; group += kProductLanes) {
      Format weights;
      weights.load(row, group);
      TANDEM_UNROLL for (int t = 0; t < kProductTokens; ++t) {
        if (t >= n_tokens) continue;
        const auto* x_row =
            reinterpret_cast<const BlockQ8A*>(x + static_cast<size_t>(t) * x_row_bytes);
        sums[t] += weights.dot(x_row[group]);
      }
    }
  }
};

// kProductRows rows of the weight, from first_row on, times n rows of in[0] from `first` on.
template <typename Rows>
TANDEM_DEVICE void product(const Block<kProductThreads>& block, ProductShared& shared,
                           const Arguments& a, const std::byte* weight, int64_t first_row,
                           int64_t first, int64_t n) {
  const int64_t N = a.op.weight_rows;
  for (int64_t tile = 0; tile < n; tile += kProductTokens) {
    const int n_tokens = static_cast<int>(smaller<int64_t>(kProductTokens, n - tile));
    block.phase([&](int thread) {
      const int64_t row = first_row + thread / kProductLanes;
      if (row >= N) return;
      typename Rows::Sum sums[kProductTokens] = {};
      Rows::add(weight + static_cast<size_t>(row) * a.op.weight_row_bytes,
                row_of<const std::byte>(a.op.in[0], first + tile), a.op.in[0].row_bytes,
                a.op.weight_cols, thread % kProductLanes, n_tokens, sums);
      TANDEM_UNROLL for (int t = 0; t < kProductTokens; ++t) shared.partial[t][thread] =
          double{sums[t]};
    });
    block.phase([&](int thread) {
      const int row = thread % kProductRows, t = thread / kProductRows;
      if (first_row + row >= N || t >= n_tokens) return;
      double sum = 0;
      for (int lane = 0; lane < kProductLanes; ++lane)
        sum += shared.partial[t][row * kProductLanes + lane];
      row_of<float>(a.op.out, first + tile + t)[first_row + row] = static_cast<float>(sum);
    });
  }
}

template <typename Rows>
struct MatmulKernel {
  static constexpr int kThreads = kProductThreads;
  using Shared = ProductShared;

  TANDEM_DEVICE static void run(const Block<kThreads>& block, Shared& shared, const Arguments& a) {
    product<Rows>(block, shared, a, a.op.weight, block.x() * kProductRows, 0, n_rows(a));
  }
};

template <typename Rows>
struct ExpertMatmulKernel {
  static constexpr int kThreads = kProductThreads;
  using Shared = ProductShared;

  TANDEM_DEVICE static void run(const Block<kThreads>& block, Shared& shared, const Arguments& a) {
    const ExpertLists lists = lists_over(a, a.op.in[1]);
    for (int64_t i = block.y(), n = *lists.n_active; i < n; i += block.n_y()) {
      const int32_t expert = lists.active[i];
      const int64_t first = lists.begin[expert];
      product<Rows>(block, shared, a, a.op.experts[expert], block.x() * kProductRows, first,
                    lists.begin[expert + 1] - first);
    }
  }
};

}  // namespace tandem::gpu
