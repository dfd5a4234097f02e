#include "numbers.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <limits>

namespace tandem::cli {
namespace {

std::string with_unit(double value, const char* unit) {
  char text[64];
  std::snprintf(text, sizeof text, value < 9.95 ? "%.1f %s" : "%.0f %s", value, unit);
  return text;
}

template <typename T>
std::optional<T> parse_whole(std::string_view text) {
  T value{};
  const char* end = text.data() + text.size();
  const auto [stopped, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc() || stopped != end || text.empty()) return std::nullopt;
  return value;
}

char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

// The factor of "", "k", "kb", "kib", ...; 0 for anything else.
uint64_t factor_of(std::string_view unit) {
  if (unit.empty() || (unit.size() == 1 && lower(unit[0]) == 'b')) return 1;
  const std::string_view letters = "kmgt";
  const size_t power = letters.find(lower(unit[0]));
  if (power == std::string_view::npos) return 0;
  std::string rest;
  for (const char c : unit.substr(1)) rest += lower(c);
  if (!rest.empty() && rest != "b" && rest != "ib") return 0;
  const uint64_t base = rest == "b" ? 1000 : 1024;
  uint64_t factor = 1;
  for (size_t i = 0; i <= power; ++i) factor *= base;
  return factor;
}

}  // namespace

std::string format_bytes(uint64_t bytes) {
  const auto value = static_cast<double>(bytes);
  if (bytes < 1000) return std::to_string(bytes) + " B";
  if (value < 999.5e3) return with_unit(value / 1e3, "kB");
  if (value < 999.5e6) return with_unit(value / 1e6, "MB");
  if (value < 99.95e9) return format_fixed(value / 1e9, 1) + " GB";
  return with_unit(value / 1e9, "GB");
}

std::string format_count(uint64_t count) {
  const auto value = static_cast<double>(count);
  if (count < 1000) return std::to_string(count);
  if (value < 999.5e3) return with_unit(value / 1e3, "k");
  if (value < 999.5e6) return with_unit(value / 1e6, "M");
  return with_unit(value / 1e9, "B");
}

std::string format_rate(double value) {
  if (!std::isfinite(value)) return "-";
  const double size = std::fabs(value);
  if (size >= 100) return format_fixed(value, 0);
  if (size >= 10) return format_fixed(value, 1);
  if (size >= 1) return format_fixed(value, 2);
  return format_fixed(value, 3);
}

std::string format_time(double seconds) {
  const auto whole = static_cast<uint64_t>(std::clamp(std::ceil(seconds), 0.0, 1e9));
  char text[32];
  if (whole < 3600) {
    std::snprintf(text, sizeof text, "%u:%02u", static_cast<unsigned>(whole / 60),
                  static_cast<unsigned>(whole % 60));
  } else {
    std::snprintf(text, sizeof text, "%u:%02u:%02u", static_cast<unsigned>(whole / 3600),
                  static_cast<unsigned>(whole / 60 % 60), static_cast<unsigned>(whole % 60));
  }
  return text;
}

std::string format_fixed(double value, int digits) {
  char text[64];
  std::snprintf(text, sizeof text, "%.*f", digits, value);
  return text;
}

std::optional<int64_t> parse_integer(std::string_view text) { return parse_whole<int64_t>(text); }
std::optional<uint64_t> parse_unsigned(std::string_view text) {
  return parse_whole<uint64_t>(text);
}

std::optional<double> parse_real(std::string_view text) {
  const auto value = parse_whole<double>(text);
  if (!value || !std::isfinite(*value)) return std::nullopt;
  return value;
}

std::optional<uint64_t> parse_size(std::string_view text) {
  size_t digits = 0;
  while (digits < text.size() &&
         ((text[digits] >= '0' && text[digits] <= '9') || text[digits] == '.'))
    ++digits;
  const uint64_t factor = factor_of(text.substr(digits));
  if (factor == 0) return std::nullopt;
  const std::string_view number = text.substr(0, digits);
  if (const auto whole = parse_unsigned(number)) {
    if (*whole > std::numeric_limits<uint64_t>::max() / factor) return std::nullopt;
    return *whole * factor;
  }
  const auto real = parse_real(number);
  if (!real) return std::nullopt;
  const double size = *real * static_cast<double>(factor), nearest = std::round(size);
  // 1.1GB is whole but for the rounding of 1.1; half a byte is a mistake.
  if (size >= 9e18 || std::fabs(size - nearest) > 1e-6 * size) return std::nullopt;
  return static_cast<uint64_t>(nearest);
}

std::optional<std::vector<int32_t>> parse_ids(std::string_view text) {
  constexpr std::string_view kSpaces = " \t\r\n", kEnds = ", \t\r\n";
  std::vector<int32_t> ids;
  bool after_comma = false;
  for (size_t at = 0; (at = text.find_first_not_of(kSpaces, at)) != std::string_view::npos;) {
    if (text[at] == ',') {
      if (after_comma || ids.empty()) return std::nullopt;
      after_comma = true;
      ++at;
      continue;
    }
    const size_t end = std::min(text.find_first_of(kEnds, at), text.size());
    const auto id = parse_whole<int32_t>(text.substr(at, end - at));
    if (!id || *id < 0) return std::nullopt;
    ids.push_back(*id);
    after_comma = false;
    at = end;
  }
  if (after_comma) return std::nullopt;
  return ids;
}

Spread spread_of(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t middle = values.size() / 2;
  const double median =
      values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
  return {median, values.front(), values.back()};
}

}  // namespace tandem::cli
