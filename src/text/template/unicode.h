// Characters in UTF-8, the way Python counts them.  An invalid byte is one character.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace tandem::jinja {

// Bytes of the character at `at`.  Requires: at < text.size().
size_t character_bytes(std::string_view text, size_t at);
// The code point there; an invalid byte gives U+DC80..U+DCFF, as Python's surrogateescape does.
uint32_t character_at(std::string_view text, size_t at);
void append_character(std::string& text, uint32_t code_point);

size_t count_characters(std::string_view text);
// The byte where the n-th character starts; the text's size when there are fewer.
size_t byte_of_character(std::string_view text, size_t n);

// str.isspace() of one character.
bool is_space(uint32_t code_point);
// The text without leading or trailing white space, as begin and end in it.
struct Span {
  size_t begin = 0;
  size_t end = 0;
};
Span strip_space(std::string_view text, bool left, bool right);
// The same for any character in `set`.
Span strip_set(std::string_view text, std::string_view set, bool left, bool right);

// str.upper() and str.lower() of one character, appended.
void append_upper(std::string& text, uint32_t code_point);
void append_lower(std::string& text, uint32_t code_point);
bool is_upper(uint32_t code_point);
bool is_lower(uint32_t code_point);
// A letter that has another case.
bool is_cased(uint32_t code_point);

}  // namespace tandem::jinja
