// kEmbed: out [T,D] float32 = row ids[t] of the weight [V,D].  Overwrites out.
// Bit-identical to the CPU's dequantisation.  Moves T rows of weights in, 4*T*D out.
#pragma once

#include "kernels_gpu/arguments.h"
#include "kernels_gpu/number_formats.h"

namespace tandem::gpu {

struct EmbedKernel {
  static constexpr int kThreads = 256;
  using Shared = NoShared;

  TANDEM_DEVICE static float value(DType type, const void* row, int64_t i) {
    switch (type) {
      case DType::kF32:
        return F32::value(row, i);
      case DType::kF16:
        return F16::value(row, i);
      case DType::kBF16:
        return BF16::value(row, i);
      case DType::kQ4_0:
        return Q4_0::value(row, i);
      case DType::kQ8_0:
        return Q8_0::value(row, i);
      case DType::kQ4_K:
        return Q4_K::value(row, i);
      case DType::kQ6_K:
        return Q6_K::value(row, i);
    }
    return 0;
  }

  TANDEM_DEVICE static void run(const Block<kThreads>& block, Shared&, const Arguments& a) {
    const int64_t width = a.op.width;
    for_each(block, n_rows(a) * width, [&](int64_t i) {
      const int64_t row = i / width, column = i % width;
      const std::byte* weights =
          a.op.weight + static_cast<size_t>(a.op.step->ids[row]) * a.op.weight_row_bytes;
      row_of<float>(a.op.out, row)[column] = value(a.op.weight_type, weights, column);
    });
  }
};

}  // namespace tandem::gpu
