// Where keys and values lie: see StepInput::pages.
#pragma once

#include "kernels_gpu/arguments.h"
#include "kernels_gpu/number_formats.h"

namespace tandem::gpu {

// Of one position, one key-value head.
TANDEM_DEVICE size_t kv_row_bytes(const OperationConstants& c) {
  const auto width = static_cast<size_t>(c.head_width);
  if (c.kv_type == KvType::kQ8_0) return width / 32 * sizeof(BlockQ8_0);
  return width * (c.kv_type == KvType::kF16 ? 2 : 4);
}

// One key-value head of a page, [64,E].
TANDEM_DEVICE size_t kv_head_bytes(const OperationConstants& c) {
  return static_cast<size_t>(kPageTokens) * kv_row_bytes(c);
}

TANDEM_DEVICE size_t kv_page_bytes(const OperationConstants& c) {
  return static_cast<size_t>(c.n_kv_heads) * kv_head_bytes(c);
}

TANDEM_DEVICE bool has_page(const Arguments& a, int64_t page) {
  return a.op.step->pages[page] != nullptr;
}

// The layer's keys of a page, [G,64,E]; its values stand kv_page_bytes() behind them.
TANDEM_DEVICE std::byte* keys_of_page(const Arguments& a, int64_t page) {
  return a.op.step->pages[page] + static_cast<size_t>(a.op.kv_slot) * 2 * kv_page_bytes(a.c);
}

// The i-th element of the rows of a head.
TANDEM_DEVICE float kv_value(const std::byte* head, int64_t i, KvType type) {
  if (type == KvType::kQ8_0) {
    const BlockQ8_0& block = reinterpret_cast<const BlockQ8_0*>(head)[i / 32];
    return half_to_float(block.d) * static_cast<float>(block.qs[i % 32]);
  }
  return type == KvType::kF16 ? half_to_float(reinterpret_cast<const Half*>(head)[i])
                              : reinterpret_cast<const float*>(head)[i];
}

}  // namespace tandem::gpu
