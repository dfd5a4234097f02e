#include "base/utf8.h"

#include <algorithm>
#include <cstring>

namespace tandem::utf8 {
namespace {

// How a first byte goes on: the number of bytes, and the range of the second one (which is what
// excludes overlong forms, surrogates and code points that are too large; Unicode table 3-7).
struct Lead {
  uint8_t length;
  uint8_t second_min;
  uint8_t second_max;
};

Lead lead_of(uint8_t byte) {
  if (byte < 0x80) return {1, 0, 0};
  if (byte < 0xC2) return {0, 0, 0};
  if (byte < 0xE0) return {2, 0x80, 0xBF};
  if (byte == 0xE0) return {3, 0xA0, 0xBF};
  if (byte == 0xED) return {3, 0x80, 0x9F};
  if (byte < 0xF0) return {3, 0x80, 0xBF};
  if (byte == 0xF0) return {4, 0x90, 0xBF};
  if (byte < 0xF4) return {4, 0x80, 0xBF};
  if (byte == 0xF4) return {4, 0x80, 0x8F};
  return {0, 0, 0};
}

size_t ascii_length(std::string_view text) {
  size_t at = 0;
  for (; at + 8 <= text.size(); at += 8) {
    uint64_t word = 0;
    std::memcpy(&word, text.data() + at, 8);
    if (word & 0x8080808080808080ull) break;
  }
  while (at < text.size() && static_cast<uint8_t>(text[at]) < 0x80) ++at;
  return at;
}

}  // namespace

Character decode(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  const Lead lead = lead_of(byte(0));
  if (lead.length == 0) return {Character::State::kInvalid, 1, 0};
  if (lead.length == 1) return {Character::State::kWhole, 1, byte(0)};
  char32_t code_point = byte(0) & (0x7Fu >> lead.length);
  for (uint8_t i = 1; i < lead.length; ++i) {
    if (i == text.size()) return {Character::State::kCutOff, i, 0};
    const uint8_t low = i == 1 ? lead.second_min : 0x80;
    const uint8_t high = i == 1 ? lead.second_max : 0xBF;
    if (byte(i) < low || byte(i) > high) return {Character::State::kInvalid, i, 0};
    code_point = (code_point << 6) | (byte(i) & 0x3Fu);
  }
  return {Character::State::kWhole, lead.length, code_point};
}

bool is_valid(std::string_view text) {
  while (true) {
    text.remove_prefix(ascii_length(text));
    if (text.empty()) return true;
    const Character character = decode(text);
    if (character.state != Character::State::kWhole) return false;
    text.remove_prefix(character.length);
  }
}

size_t complete_length(std::string_view text) {
  const size_t n = text.size();
  for (size_t back = 1; back <= std::min<size_t>(3, n); ++back) {
    const auto byte = static_cast<uint8_t>(text[n - back]);
    if ((byte & 0xC0) == 0x80) continue;  // a continuation: its first byte is further left
    const Character last = decode(text.substr(n - back));
    const bool cut = last.state == Character::State::kCutOff && last.length == back;
    return cut ? n - back : n;
  }
  return n;
}

void append(char32_t code_point, std::string& out) {
  const auto put = [&](uint32_t byte) { out.push_back(static_cast<char>(byte)); };
  const uint32_t c = code_point;
  if (c < 0x80) return put(c);
  if (c < 0x800) {
    put(0xC0 | (c >> 6));
  } else if (c < 0x10000) {
    put(0xE0 | (c >> 12));
    put(0x80 | ((c >> 6) & 0x3F));
  } else {
    put(0xF0 | (c >> 18));
    put(0x80 | ((c >> 12) & 0x3F));
    put(0x80 | ((c >> 6) & 0x3F));
  }
  put(0x80 | (c & 0x3F));
}

void Utf8Stream::push(std::string_view bytes, std::string& out) {
  size_t at = 0;
  // Finish what is held back, one byte at a time; it is never more than three bytes.
  while (n_held_ > 0 && at < bytes.size()) {
    held_[n_held_++] = bytes[at++];
    const Character first = decode({held_.data(), n_held_});
    if (first.state == Character::State::kCutOff) continue;
    if (first.state == Character::State::kWhole) {
      out.append(held_.data(), n_held_);
    } else {
      out += kReplacement;
      // The byte that broke the sequence is read again, as the first of the next one.
      if (first.length < n_held_) --at;
    }
    n_held_ = 0;
  }
  while (at < bytes.size()) {
    const std::string_view rest = bytes.substr(at);
    const size_t n_ascii = ascii_length(rest);
    if (n_ascii > 0) {
      out.append(rest.substr(0, n_ascii));
      at += n_ascii;
      continue;
    }
    const Character next = decode(rest);
    if (next.state == Character::State::kCutOff) {
      std::copy(rest.begin(), rest.end(), held_.begin());
      n_held_ = rest.size();
      return;
    }
    if (next.state == Character::State::kWhole) {
      out.append(rest.substr(0, next.length));
    } else {
      out += kReplacement;
    }
    at += next.length;
  }
}

void Utf8Stream::finish(std::string& out) {
  if (n_held_ > 0) out += kReplacement;
  n_held_ = 0;
}

}  // namespace tandem::utf8
