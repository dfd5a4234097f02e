// Values of metadata as they lie in the file.
#pragma once

#include <cstdint>
#include <cstring>
#include <optional>

#include "formats/gguf/gguf.h"

namespace tandem {

// Nothing for a number that is not a type.
std::optional<MetadataType> metadata_type(uint32_t id);

// Bytes of one value; 0 for strings and arrays, whose sizes differ.
uint64_t metadata_type_bytes(MetadataType type);

bool is_integer(MetadataType type);
bool is_number(MetadataType type);

// Nothing when the value is not an integer, or not in the range of the result.
std::optional<uint64_t> load_uint(MetadataType type, const std::byte* value);
std::optional<int64_t> load_int(MetadataType type, const std::byte* value);
// Requires: is_number(type).
double load_float(MetadataType type, const std::byte* value);

template <typename T>
T load_le(const std::byte* bytes) {
  T value;
  std::memcpy(&value, bytes, sizeof(T));
  return value;
}

}  // namespace tandem
