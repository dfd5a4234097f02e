// kQuantize: out (BlockQ8A [T,K/32]) = in[0] [T,K] float32.  Overwrites out.  Requires: K % 32 == 0.
// Bit-identical to the CPU.  Moves 4*T*K in, 1.25*T*K out.
#pragma once

#include <cmath>

#include "base/blocks.h"
#include "kernels_gpu/arguments.h"

namespace tandem::gpu {

struct QuantizeKernel {
  static constexpr int kThreads = 64;
  using Shared = NoShared;

  TANDEM_DEVICE static void quantize_block(const float* x, BlockQ8A& block) {
    // Magnitudes compare as integers, with every NaN above infinity.
    uint32_t largest = 0;
    for (int i = 0; i < 32; ++i) largest = larger(largest, bits_as<uint32_t>(x[i]) & 0x7fffffffu);
    const bool zero = largest < (127u - 118u) << 23;  // below 2^-118 the inverse is not finite
    const bool broken = largest >= 0x7f800000u;
    const float max = bits_as<float>(largest);
    const float inverse = zero || broken ? 0.0f : 127.0f / max;
    block.d = zero ? 0.0f : broken ? bits_as<float>(0x7fc00000u) : max / 127.0f;
    int sums[2] = {0, 0};
    for (int i = 0; i < 32; ++i) {
      const int q = zero || broken ? 0 : static_cast<int>(rintf(x[i] * inverse));
      block.qs[i] = static_cast<int8_t>(q);
      sums[i / 16] += q;
    }
    for (int half = 0; half < 2; ++half) block.sums[half] = static_cast<int16_t>(sums[half]);
    block.d_sum = block.d * static_cast<float>(sums[0] + sums[1]);
  }

  TANDEM_DEVICE static void run(const Block<kThreads>& block, Shared&, const Arguments& a) {
    const int64_t per_row = a.op.width / 32;
    for_each(block, n_rows(a) * per_row, [&](int64_t i) {
      const int64_t row = i / per_row, b = i % per_row;
      quantize_block(row_of<const float>(a.op.in[0], row) + b * 32,
                     row_of<BlockQ8A>(a.op.out, row)[b]);
    });
  }
};

}  // namespace tandem::gpu
