// UTF-8: checking, decoding, and a stream that only ever hands on whole characters.
//
// Threading: functions are pure; a Utf8Stream belongs to one caller.
// Ownership: views in, bytes appended to the caller's string.
// Errors: none; bytes that are not UTF-8 are an answer.  Surrogates, overlong forms and code points
// above 10FFFF are not UTF-8.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace tandem::utf8 {

inline constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

struct Character {
  enum class State : uint8_t {
    kWhole,    // length bytes are one character
    kInvalid,  // length bytes (1 to 3) can never become one, whatever follows
    kCutOff,   // the text ends inside what may still become one; length is what is there, 1 to 3
  };
  State state = State::kInvalid;
  uint8_t length = 0;
  char32_t code_point = 0;  // only when whole
};

// The character that starts at text[0].  Requires: text is not empty.  An invalid sequence is as long
// as the Unicode standard's "maximal subpart": the longest start of a character, at least one byte.
Character decode(std::string_view text);

bool is_valid(std::string_view text);

// Where the last whole (or invalid) character ends: text.size() less the 0 to 3 bytes at the end
// that are the start of a character.
size_t complete_length(std::string_view text);

// Requires: code_point <= 10FFFF and not a surrogate.
void append(char32_t code_point, std::string& out);

// Tokens may end inside a character; what a person sees may not.
class Utf8Stream {
 public:
  // Appends to `out` every character that is whole by now; holds back at most three bytes.  Bytes
  // that cannot be part of a character become U+FFFD, one per maximal subpart.
  void push(std::string_view bytes, std::string& out);
  // Nothing more comes: what is held back becomes one U+FFFD.
  void finish(std::string& out);
  size_t held_bytes() const { return n_held_; }

 private:
  std::array<char, 4> held_{};
  size_t n_held_ = 0;
};

}  // namespace tandem::utf8
