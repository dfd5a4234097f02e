// From bytes of tokens to text for people: whole UTF-8 characters, cut before the first stop text.
//
// Threading: one caller.  Ownership: owns its buffers, which are reused.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/utf8.h"

namespace tandem {

class AnswerText {
 public:
  // Requires: no empty stop text.
  explicit AnswerText(std::vector<std::string> stop_texts);

  // Takes the bytes of the next token and appends to `out` what is certain by now: whole characters that cannot be the
  // start of a stop text.  True when a stop text appeared; then nothing of it and nothing after it is given out.
  bool push(std::string_view bytes, std::string& out);
  // The answer ended otherwise: gives out what was withheld.
  void finish(std::string& out);

 private:
  bool cut_at_stop(std::string& out);
  size_t certain_length() const;

  std::vector<std::string> stop_texts_;
  utf8::Utf8Stream characters_;
  std::string withheld_;
};

}  // namespace tandem
