// kStoreKv: appends keys in[0] and values in[1], [T,G*E] float32, to those of the layer's pages that are here.
// float16 to nearest even, BlockQ8_0 as activations are quantised: bit-identical to the CPU.
#pragma once

#include "kernels_gpu/pages.h"
#include "kernels_gpu/quantize.h"

namespace tandem::gpu {

struct StoreKvKernel {
  static constexpr int kThreads = 128;
  using Shared = NoShared;

  TANDEM_DEVICE static void run(const Block<kThreads>& block, Shared&, const Arguments& a) {
    const int64_t at_once = a.c.kv_type == KvType::kQ8_0 ? 32 : 1;
    const int64_t width = a.c.n_kv_heads * a.c.head_width / at_once;
    for_each(block, n_rows(a) * 2 * width, [&](int64_t item) {
      const int64_t column = item % width * at_once, which = item / width % 2,
                    row = item / width / 2;
      const int64_t position = a.op.step->first_position + row;
      if (!has_page(a, position / kPageTokens)) return;
      const int64_t head = column / a.c.head_width, element = column % a.c.head_width;
      std::byte* place = keys_of_page(a, position / kPageTokens) +
                         static_cast<size_t>(which) * kv_page_bytes(a.c) +
                         static_cast<size_t>(head) * kv_head_bytes(a.c);
      const int64_t i = position % kPageTokens * a.c.head_width + element;
      const float* const values = row_of<const float>(a.op.in[which], row) + column;
      if (a.c.kv_type == KvType::kQ8_0) {
        BlockQ8A rounded;
        QuantizeKernel::quantize_block(values, rounded);
        BlockQ8_0& stored = reinterpret_cast<BlockQ8_0*>(place)[i / 32];
        stored.d = float_to_half(rounded.d);
        for (int k = 0; k < 32; ++k) stored.qs[k] = rounded.qs[k];
      } else if (a.c.kv_type == KvType::kF16) {
        reinterpret_cast<Half*>(place)[i] = float_to_half(*values);
      } else {
        reinterpret_cast<float*>(place)[i] = *values;
      }
    });
  }
};

}  // namespace tandem::gpu
