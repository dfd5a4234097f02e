#include "text/template/unicode.h"

#include <algorithm>
#include <iterator>

#include "text/template/unicode_case.h"

namespace tandem::jinja {
namespace {

bool is_continuation(unsigned char byte) { return (byte & 0xC0) == 0x80; }

// Length of the well-formed sequence at the start, 0 when it is none.
size_t sequence_bytes(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = byte(0);
  if (lead < 0x80) return 1;
  const size_t length = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
  if (lead < 0xC2 || lead > 0xF4 || text.size() < length) return 0;
  for (size_t i = 1; i < length; ++i) {
    if (!is_continuation(byte(i))) return 0;
  }
  if (lead == 0xE0 && byte(1) < 0xA0) return 0;  // overlong
  if (lead == 0xED && byte(1) > 0x9F) return 0;  // surrogate
  if (lead == 0xF0 && byte(1) < 0x90) return 0;  // overlong
  if (lead == 0xF4 && byte(1) > 0x8F) return 0;  // past U+10FFFF
  return length;
}

uint32_t mapped(const CaseRange* begin, const CaseRange* end, uint32_t code_point) {
  const CaseRange* range = std::upper_bound(
      begin, end, code_point, [](uint32_t c, const CaseRange& r) { return c < r.first; });
  if (range == begin) return code_point;
  --range;
  if (code_point > range->last || (code_point - range->first) % range->step != 0) return code_point;
  return static_cast<uint32_t>(static_cast<int32_t>(code_point) + range->distance);
}

uint32_t upper_of(uint32_t c) {
  if (c < 0x80) return c >= 'a' && c <= 'z' ? c - 32 : c;
  return mapped(std::begin(kUpperRanges), std::end(kUpperRanges), c);
}

uint32_t lower_of(uint32_t c) {
  if (c < 0x80) return c >= 'A' && c <= 'Z' ? c + 32 : c;
  return mapped(std::begin(kLowerRanges), std::end(kLowerRanges), c);
}

template <typename Matches>
Span strip_if(std::string_view text, bool left, bool right, Matches matches) {
  Span span{0, text.size()};
  while (left && span.begin < span.end && matches(character_at(text, span.begin))) {
    span.begin += character_bytes(text, span.begin);
  }
  while (right && span.end > span.begin) {
    size_t start = span.end - 1;
    while (start > span.begin && span.end - start < 4 &&
           is_continuation(static_cast<unsigned char>(text[start]))) {
      --start;
    }
    if (start + character_bytes(text, start) != span.end) start = span.end - 1;
    if (!matches(character_at(text, start))) break;
    span.end = start;
  }
  return span;
}

}  // namespace

size_t character_bytes(std::string_view text, size_t at) {
  return std::max<size_t>(sequence_bytes(text.substr(at)), 1);
}

uint32_t character_at(std::string_view text, size_t at) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[at + i]); };
  const auto low = [&](size_t i) { return uint32_t{byte(i)} & 0x3F; };
  switch (sequence_bytes(text.substr(at))) {
    case 1:
      return byte(0);
    case 2:
      return (uint32_t{byte(0)} & 0x1F) << 6 | low(1);
    case 3:
      return (uint32_t{byte(0)} & 0x0F) << 12 | low(1) << 6 | low(2);
    case 4:
      return (uint32_t{byte(0)} & 0x07) << 18 | low(1) << 12 | low(2) << 6 | low(3);
    default:
      return 0xDC00 + byte(0);
  }
}

void append_character(std::string& text, uint32_t c) {
  const auto put = [&](uint32_t byte) { text.push_back(static_cast<char>(byte)); };
  if (c < 0x80) {
    put(c);
  } else if (c >= 0xDC80 && c <= 0xDCFF) {
    put(c - 0xDC00);  // the invalid byte it stood for
  } else if (c < 0x800) {
    put(0xC0 | c >> 6);
    put(0x80 | (c & 0x3F));
  } else if (c < 0x10000) {
    put(0xE0 | c >> 12);
    put(0x80 | (c >> 6 & 0x3F));
    put(0x80 | (c & 0x3F));
  } else {
    put(0xF0 | c >> 18);
    put(0x80 | (c >> 12 & 0x3F));
    put(0x80 | (c >> 6 & 0x3F));
    put(0x80 | (c & 0x3F));
  }
}

size_t count_characters(std::string_view text) {
  size_t count = 0;
  for (size_t at = 0; at < text.size(); ++count) {
    at += static_cast<unsigned char>(text[at]) < 0x80 ? 1 : character_bytes(text, at);
  }
  return count;
}

size_t byte_of_character(std::string_view text, size_t n) {
  size_t at = 0;
  for (; n > 0 && at < text.size(); --n) {
    at += static_cast<unsigned char>(text[at]) < 0x80 ? 1 : character_bytes(text, at);
  }
  return at;
}

bool is_space(uint32_t c) {
  return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 ||
         c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F ||
         c == 0x205F || c == 0x3000;
}

Span strip_space(std::string_view text, bool left, bool right) {
  return strip_if(text, left, right, is_space);
}

Span strip_set(std::string_view text, std::string_view set, bool left, bool right) {
  return strip_if(text, left, right, [&](uint32_t c) {
    for (size_t at = 0; at < set.size(); at += character_bytes(set, at)) {
      if (character_at(set, at) == c) return true;
    }
    return false;
  });
}

void append_upper(std::string& text, uint32_t c) {
  if (c == 0xDF) {
    text += "SS";
  } else {
    append_character(text, upper_of(c));
  }
}

void append_lower(std::string& text, uint32_t c) { append_character(text, lower_of(c)); }

bool is_upper(uint32_t c) { return lower_of(c) != c; }
bool is_lower(uint32_t c) { return upper_of(c) != c || c == 0xDF; }
bool is_cased(uint32_t c) { return is_upper(c) || is_lower(c); }

}  // namespace tandem::jinja
