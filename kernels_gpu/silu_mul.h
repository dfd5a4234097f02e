// kSiluMul: out [T,F] = in[0] / (1 + exp(-in[0])) * in[1].  Overwrites out, which may be either.
// float32, each step rounded; exp as in exp.h: within 2^-22 + 4 u of the result, plus 2^-126.
#pragma once

#include "kernels_gpu/arguments.h"
#include "kernels_gpu/exp.h"

namespace tandem::gpu {

struct SiluMulKernel {
  static constexpr int kThreads = 256;
  using Shared = NoShared;

  TANDEM_DEVICE static void run(const Block<kThreads>& block, Shared&, const Arguments& a) {
    const int64_t width = a.op.width;
    for_each(block, n_rows(a) * width, [&](int64_t i) {
      const int64_t row = i / width, column = i % width;
      const float gate = row_of<const float>(a.op.in[0], row)[column];
      const float up = row_of<const float>(a.op.in[1], row)[column];
      row_of<float>(a.op.out, row)[column] = gate / (1.0f + exp_f32(-gate)) * up;
    });
  }
};

}  // namespace tandem::gpu
