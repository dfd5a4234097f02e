#include "terminal_text.h"

#include <algorithm>

namespace tandem::cli {
namespace {

// U+0080 to U+009F, two bytes in UTF-8, are controls too: U+009B starts a sequence like ESC [.
bool is_upper_control(std::string_view text, size_t i) {
  return text[i] == '\xC2' && i + 1 < text.size() &&
         static_cast<unsigned char>(text[i + 1]) >= 0x80 &&
         static_cast<unsigned char>(text[i + 1]) <= 0x9F;
}

// U+061C, U+200E, U+200F, U+202A to U+202E, U+2066 to U+2069: the length in bytes of one that begins at i, else 0.
size_t direction_mark(std::string_view text, size_t i) {
  const std::string_view rest = text.substr(i);
  if (rest.starts_with("\xD8\x9C")) return 2;
  if (rest.size() < 3 || rest[0] != '\xE2') return 0;
  const auto last = static_cast<unsigned char>(rest[2]);
  const bool general =
      rest[1] == '\x80' && (last == 0x8E || last == 0x8F || (last >= 0xAA && last <= 0xAE));
  const bool isolate = rest[1] == '\x81' && last >= 0xA6 && last <= 0xA9;
  return general || isolate ? 3 : 0;
}

}  // namespace

std::string without_controls(std::string_view text) {
  std::string result;
  result.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    if (is_upper_control(text, i)) {
      ++i;
    } else if ((c >= 0x20 && c != 0x7F) || c == '\n' || c == '\t') {
      result += text[i];
    }
  }
  return result;
}

std::string without_steering(std::string_view text) {
  const std::string plain = without_controls(text);
  std::string result;
  for (size_t i = 0; i < plain.size();) {
    const size_t n_mark = direction_mark(plain, i);
    if (n_mark == 0) result += plain[i] == '\n' || plain[i] == '\t' ? ' ' : plain[i];
    i += std::max<size_t>(n_mark, 1);
  }
  return result;
}

}  // namespace tandem::cli
