#include "terminal_text.h"

namespace tandem::cli {
namespace {

// U+0080 to U+009F, two bytes in UTF-8, are controls too: U+009B starts a sequence like ESC [.
bool is_upper_control(std::string_view text, size_t i) {
  return text[i] == '\xC2' && i + 1 < text.size() && static_cast<unsigned char>(text[i + 1]) >= 0x80 &&
         static_cast<unsigned char>(text[i + 1]) <= 0x9F;
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

}  // namespace tandem::cli
