// Where keys and values lie: see StepInput::pages.
#pragma once

#include "kernels_gpu/arguments.h"
#include "kernels_gpu/number_formats.h"

namespace tandem::gpu {

TANDEM_DEVICE size_t kv_element_bytes(const OperationConstants& c) {
  return c.kv_type == KvType::kF16 ? 2 : 4;
}

// One key-value head of a page, [64,E].
TANDEM_DEVICE size_t kv_head_bytes(const OperationConstants& c) {
  return static_cast<size_t>(kPageTokens * c.head_width) * kv_element_bytes(c);
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

TANDEM_DEVICE float kv_value(const std::byte* head, int64_t i, bool f16) {
  return f16 ? half_to_float(reinterpret_cast<const Half*>(head)[i])
             : reinterpret_cast<const float*>(head)[i];
}

}  // namespace tandem::gpu
