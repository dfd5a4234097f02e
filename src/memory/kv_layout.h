// How large the keys and values of a model are.
//
// Threading and ownership: plain data.
#pragma once

#include <cstddef>
#include <cstdint>

#include "device/operation.h"

namespace tandem {

struct KvLayout {
  int64_t n_layers = 0;
  int64_t n_kv_heads = 0;
  int64_t head_width = 0;
  KvType type = KvType::kF16;

  size_t head_bytes() const {
    return static_cast<size_t>(kPageTokens) * kv_row_bytes(type, head_width);
  }
  size_t page_bytes() const { return static_cast<size_t>(n_kv_heads) * head_bytes(); }
  size_t group_bytes() const { return static_cast<size_t>(n_layers) * 2 * page_bytes(); }
  // For a context of n tokens, in whole pages.
  uint64_t bytes_for(int64_t n_tokens) const {
    return static_cast<uint64_t>((n_tokens + kPageTokens - 1) / kPageTokens) * group_bytes();
  }
  bool operator==(const KvLayout&) const = default;
};

}  // namespace tandem
