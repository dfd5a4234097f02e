// Template source to tokens, with Jinja's white-space rules as Hugging Face sets them: trim_blocks
// and lstrip_blocks on, one newline at the end of the file dropped.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace tandem::jinja {

enum class TokenKind : uint8_t {
  kData,  // text outside of any tag
  kBlockBegin,
  kBlockEnd,
  kVariableBegin,
  kVariableEnd,
  kName,
  kString,
  kInteger,
  kFloat,
  kOperator,
  kEnd,
};

struct Token {
  TokenKind kind = TokenKind::kEnd;
  uint32_t line = 1;
  uint32_t offset = 0;  // byte in the source
  std::string text;     // data, name, operator, or the string with its escapes resolved
  int64_t integer = 0;
  double number = 0;
};

// Errors: kCorrupt that names the line and what is not closed or not understood.
Result<std::vector<Token>> tokenize(std::string_view source);

// The one shape of every message about a template: "chat template, line 3: ...", and its place.
Status template_error(Code code, uint32_t line, uint32_t offset, const std::string& what);

}  // namespace tandem::jinja
