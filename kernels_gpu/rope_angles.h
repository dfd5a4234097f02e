// kRopeAngles: out [T,n_rot] = cosines, then sines, of the position's angles.  Overwrites out.
// Angles in double; the card's cos and sin are off by at most 2 ulp of double, so that after rounding to float32
// at most 1 ulp separates it from the CPU, and nearly always nothing does.
#pragma once

#include <cmath>

#include "kernels_gpu/arguments.h"

namespace tandem::gpu {

struct RopeAnglesKernel {
  static constexpr int kThreads = 64;
  using Shared = NoShared;

  TANDEM_DEVICE static void run(const Block<kThreads>& block, Shared&, const Arguments& a) {
    const auto* frequency = reinterpret_cast<const double*>(a.op.weight);
    const int64_t half = a.c.n_rot / 2;
    for_each(block, n_rows(a) * half, [&](int64_t item) {
      const int64_t row = item / half, i = item % half;
      const double angle = static_cast<double>(a.op.step->first_position + row) * frequency[i];
      float* out = row_of<float>(a.op.out, row);
      out[i] = static_cast<float>(cos(angle) * a.c.rope_magnitude);
      out[half + i] = static_cast<float>(sin(angle) * a.c.rope_magnitude);
    });
  }
};

}  // namespace tandem::gpu
