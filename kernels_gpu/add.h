// kBias: out [T,N] += weight [N].  kAdd: out [T,D] += in[1] [T,D].  Bit-identical to the CPU.
#pragma once

#include "kernels_gpu/arguments.h"

namespace tandem::gpu {

struct BiasKernel {
  static constexpr int kThreads = 256;
  using Shared = NoShared;

  TANDEM_DEVICE static void run(const Block<kThreads>& block, Shared&, const Arguments& a) {
    const auto* bias = reinterpret_cast<const float*>(a.op.weight);
    const int64_t width = a.op.width;
    for_each(block, n_rows(a) * width,
             [&](int64_t i) { row_of<float>(a.op.out, i / width)[i % width] += bias[i % width]; });
  }
};

struct AddKernel {
  static constexpr int kThreads = 256;
  using Shared = NoShared;

  TANDEM_DEVICE static void run(const Block<kThreads>& block, Shared&, const Arguments& a) {
    const int64_t width = a.op.width;
    for_each(block, n_rows(a) * width, [&](int64_t i) {
      const int64_t row = i / width, column = i % width;
      row_of<float>(a.op.out, row)[column] += row_of<const float>(a.op.in[1], row)[column];
    });
  }
};

}  // namespace tandem::gpu
