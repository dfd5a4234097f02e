// Number formats of tensors, numbered as in GGUF files.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace tandem {

enum class DType : uint32_t {
  kF32 = 0,
  kF16 = 1,
  kQ4_0 = 2,
  kQ8_0 = 8,
  kQ4_K = 12,
  kQ6_K = 14,
  kBF16 = 30,
};

struct DTypeInfo {
  uint32_t id = 0;             // number in the file
  std::string_view name;       // "q4_k"
  uint32_t block_weights = 0;  // weights per block; rows are whole blocks
  uint32_t block_bytes = 0;
  bool computed = false;  // false: recognised, refused by name when a model needs it
};

// Nothing for numbers that no version of the format gave a meaning, or that were retired.
std::optional<DTypeInfo> dtype_info(uint32_t id);
// Requires: a value of the enum.
const DTypeInfo& dtype_info(DType type);
// "Q4_K", "q4_k"; only computed types.
std::optional<DType> dtype_from_name(std::string_view name);

}  // namespace tandem
