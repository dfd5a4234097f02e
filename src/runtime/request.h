// What a caller asks of a session.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "runtime/sampler.h"
#include "text/template/chat_template.h"
#include "text/tokenizer.h"

namespace tandem {

struct Request {
  enum class Kind { kMessages, kText, kTokens };
  Kind kind = Kind::kTokens;
  std::vector<ChatMessage> messages;  // the whole conversation so far
  std::string text;                   // appended, without a template
  std::vector<TokenId> tokens;        // appended as they are
  bool parse_special = false;
  bool no_bos = false;
  bool ignore_end = false;
  uint32_t max_tokens = 0;  // 0: no limit
  SamplingParameters sampling;
  std::vector<std::string> stop;
};

}  // namespace tandem
