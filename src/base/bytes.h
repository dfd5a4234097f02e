// Byte counts as people read and type them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

namespace tandem {

inline constexpr uint64_t kKiB = uint64_t{1} << 10;
inline constexpr uint64_t kMiB = uint64_t{1} << 20;
inline constexpr uint64_t kGiB = uint64_t{1} << 30;

// Decimal units, as drives and downloads are sold: "17.4 GB", "11 MB", "512 B".
std::string format_bytes(uint64_t bytes);

// "8G", "8GiB", "512M", "4096": binary units, with or without "iB"; "8GB" is decimal.
// Errors: kInvalidArgument that quotes the text.
Result<uint64_t> parse_bytes(std::string_view text);

}  // namespace tandem
