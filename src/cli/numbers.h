// Numbers as people read and type them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace tandem::cli {

// Decimal units: "17.4 GB", "11 MB", "512 B".
std::string format_bytes(uint64_t bytes);
// "8.03 B", "9.1 M", "812": parameters.
std::string format_count(uint64_t count);
// Three digits that matter: "0.0123", "4.56", "78.9", "1234".
std::string format_rate(double value);
// "0:07", "12:34", "1:02:03"
std::string format_time(double seconds);
// Fixed digits after the point.
std::string format_fixed(double value, int digits);

// A whole number within the type; nothing else on either side.
std::optional<int64_t> parse_integer(std::string_view text);
std::optional<uint64_t> parse_unsigned(std::string_view text);
std::optional<double> parse_real(std::string_view text);
// "8G", "8GiB", "512M", "4096": binary units; "8GB" is decimal. Also "4k" for a context.
std::optional<uint64_t> parse_size(std::string_view text);
// "1,2,3" or "1 2 3"
std::optional<std::vector<int32_t>> parse_ids(std::string_view text);

struct Spread {
  double median = 0, min = 0, max = 0;
};
// Requires: values is not empty.
Spread spread_of(std::vector<double> values);

}  // namespace tandem::cli
