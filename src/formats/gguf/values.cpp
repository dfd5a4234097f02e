#include "formats/gguf/values.h"

#include <array>
#include <cmath>
#include <cstdio>

#include "formats/gguf/header_reader.h"

namespace tandem {
namespace {

struct TypeRow {
  std::string_view name;
  uint64_t bytes;
};

constexpr std::array<TypeRow, 13> kTypes = {{{"u8", 1},
                                             {"i8", 1},
                                             {"u16", 2},
                                             {"i16", 2},
                                             {"u32", 4},
                                             {"i32", 4},
                                             {"f32", 4},
                                             {"bool", 1},
                                             {"string", 0},
                                             {"array", 0},
                                             {"u64", 8},
                                             {"i64", 8},
                                             {"f64", 8}}};

std::string number_text(double value) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.9g", value);
  return text;
}

std::string scalar_text(MetadataType type, const std::byte* value) {
  if (type == MetadataType::kBool) return load_le<uint8_t>(value) != 0 ? "true" : "false";
  if (type == MetadataType::kU64) return std::to_string(load_le<uint64_t>(value));
  if (is_integer(type)) return std::to_string(*load_int(type, value));
  return number_text(load_float(type, value));
}

// Printable text of UTF-8 stays; control characters and quotes' escapes become visible.
std::string string_text(std::string_view text, size_t max_bytes) {
  size_t end = std::min(text.size(), max_bytes);
  // Not in the middle of a UTF-8 sequence.
  while (end > 0 && end < text.size() && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80) {
    --end;
  }
  std::string out;
  for (char c : text.substr(0, end)) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '\n') {
      out += "\\n";
    } else if (byte < 0x20 || byte == 0x7f) {
      char escape[8];
      std::snprintf(escape, sizeof(escape), "\\x%02x", static_cast<unsigned>(byte));
      out += escape;
    } else {
      out += c;
    }
  }
  return end < text.size() ? out + "..." : out;
}

std::string array_text(const MetadataEntry& entry, size_t max_bytes) {
  std::string out = "[";
  const std::byte* cursor = entry.bytes.data();
  for (uint64_t i = 0; i < entry.array_length; ++i) {
    if (i > 0) out += ", ";
    if (out.size() >= max_bytes) return out + "...]";
    if (entry.element_type == MetadataType::kArray) return out + "...]";
    if (entry.element_type == MetadataType::kString) {
      const auto bytes = load_le<uint64_t>(cursor);
      out += string_text({reinterpret_cast<const char*>(cursor) + 8, bytes}, max_bytes);
      cursor += 8 + bytes;
    } else {
      out += scalar_text(entry.element_type, cursor);
      cursor += metadata_type_bytes(entry.element_type);
    }
  }
  return out + "]";
}

}  // namespace

std::optional<MetadataType> metadata_type(uint32_t id) {
  if (id >= kTypes.size()) return std::nullopt;
  return static_cast<MetadataType>(id);
}

std::string_view metadata_type_name(MetadataType type) {
  return kTypes[static_cast<size_t>(type)].name;
}

uint64_t metadata_type_bytes(MetadataType type) { return kTypes[static_cast<size_t>(type)].bytes; }

bool is_integer(MetadataType type) {
  const auto id = static_cast<uint32_t>(type);
  return id <= 5 || type == MetadataType::kU64 || type == MetadataType::kI64;
}

bool is_number(MetadataType type) {
  return is_integer(type) || type == MetadataType::kF32 || type == MetadataType::kF64;
}

std::optional<int64_t> load_int(MetadataType type, const std::byte* value) {
  switch (type) {
    case MetadataType::kU8:
      return load_le<uint8_t>(value);
    case MetadataType::kI8:
      return load_le<int8_t>(value);
    case MetadataType::kU16:
      return load_le<uint16_t>(value);
    case MetadataType::kI16:
      return load_le<int16_t>(value);
    case MetadataType::kU32:
      return load_le<uint32_t>(value);
    case MetadataType::kI32:
      return load_le<int32_t>(value);
    case MetadataType::kI64:
      return load_le<int64_t>(value);
    case MetadataType::kU64: {
      const auto unsigned_value = load_le<uint64_t>(value);
      if (unsigned_value > static_cast<uint64_t>(INT64_MAX)) return std::nullopt;
      return static_cast<int64_t>(unsigned_value);
    }
    default:
      return std::nullopt;
  }
}

std::optional<uint64_t> load_uint(MetadataType type, const std::byte* value) {
  if (type == MetadataType::kU64) return load_le<uint64_t>(value);
  const auto signed_value = load_int(type, value);
  if (!signed_value || *signed_value < 0) return std::nullopt;
  return static_cast<uint64_t>(*signed_value);
}

double load_float(MetadataType type, const std::byte* value) {
  if (type == MetadataType::kF32) return load_le<float>(value);
  if (type == MetadataType::kF64) return load_le<double>(value);
  if (type == MetadataType::kU64) return static_cast<double>(load_le<uint64_t>(value));
  return static_cast<double>(load_int(type, value).value_or(0));
}

std::string MetadataEntry::type_text() const {
  if (type != MetadataType::kArray) return std::string(metadata_type_name(type));
  return "array of " + std::to_string(array_length) + " " +
         std::string(metadata_type_name(element_type));
}

std::string MetadataEntry::printable(size_t max_bytes) const {
  if (type == MetadataType::kArray) return array_text(*this, max_bytes);
  if (type == MetadataType::kString) {
    return string_text({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, max_bytes);
  }
  return scalar_text(type, bytes.data());
}

}  // namespace tandem
