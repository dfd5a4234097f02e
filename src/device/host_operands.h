// How host code reaches what an operation refers to.  Private to the files of host_compute.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "device/operation.h"

namespace tandem::host {

template <typename T>
T* row_of(const Operand& operand, int64_t row) {
  return reinterpret_cast<T*>(operand.data + static_cast<size_t>(row) * operand.row_bytes);
}

// An address found in the processor's memory.
template <typename T>
T* follow(const Operation& operation, T* address) {
  using Bytes = std::conditional_t<std::is_const_v<T>, const std::byte, std::byte>;
  return reinterpret_cast<T*>(reinterpret_cast<Bytes*>(address) + operation.shift);
}

// Does the processor have this page?
inline bool has_page(const Operation& op, int64_t page) {
  return follow(op, op.step->pages)[page] != nullptr;
}

// The layer's keys of a page, [G,64,E]; its values stand kv_page_bytes() behind them.
inline std::byte* keys_of_page(const Operation& op, int64_t page) {
  std::byte* group = follow(op, op.step->pages)[page];
  return follow(op, group) + static_cast<size_t>(op.kv_slot) * 2 * op.constants->kv_page_bytes();
}

}  // namespace tandem::host
