#include "base/bytes.h"

#include <array>
#include <charconv>
#include <cmath>
#include <cstdio>

namespace tandem {
namespace {

constexpr std::string_view kPrefixes = "KMGTP";

Status bad_size(std::string_view text) {
  return invalid_argument("'" + std::string(text) +
                          "' is not a size; write 8G, 8GiB, 512M or bytes");
}

// The factor of "G", "GiB", "GB", ""; 0 when the suffix is none of them.
uint64_t factor_of_suffix(std::string_view suffix) {
  if (suffix.empty() || suffix == "B" || suffix == "b") return 1;
  const char letter = static_cast<char>(suffix[0] & ~0x20);
  const size_t power = kPrefixes.find(letter);
  if (power == std::string_view::npos) return 0;
  const std::string_view rest = suffix.substr(1);
  const bool binary = rest.empty() || rest == "iB" || rest == "ib";
  if (!binary && rest != "B" && rest != "b") return 0;
  uint64_t factor = 1;
  for (size_t i = 0; i <= power; ++i) factor *= binary ? 1024 : 1000;
  return factor;
}

}  // namespace

std::string format_bytes(uint64_t bytes) {
  static constexpr std::array<const char*, 6> kUnits = {"B", "kB", "MB", "GB", "TB", "PB"};
  double value = static_cast<double>(bytes);
  size_t unit = 0;
  while (value >= 999.5 && unit + 1 < kUnits.size()) {
    value /= 1000.0;
    ++unit;
  }
  char text[32];
  const bool fraction = unit > 0 && value < 99.95;
  std::snprintf(text, sizeof(text), fraction ? "%.1f %s" : "%.0f %s", value, kUnits[unit]);
  return text;
}

Result<uint64_t> parse_bytes(std::string_view text) {
  double number = 0;
  const char* end = text.data() + text.size();
  const auto parsed = std::from_chars(text.data(), end, number, std::chars_format::fixed);
  if (parsed.ec != std::errc() || !std::isfinite(number) || number < 0) return bad_size(text);
  std::string_view suffix(parsed.ptr, static_cast<size_t>(end - parsed.ptr));
  while (!suffix.empty() && suffix.front() == ' ') suffix.remove_prefix(1);
  const uint64_t factor = factor_of_suffix(suffix);
  const double bytes = number * static_cast<double>(factor);
  if (factor == 0 || bytes >= 9.2e18) return bad_size(text);
  return static_cast<uint64_t>(bytes);
}

}  // namespace tandem
