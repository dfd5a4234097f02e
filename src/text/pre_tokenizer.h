// Cuts text into the words that byte-pair merging never crosses, by regular expressions (PCRE2).
//
// Threading: const methods may be called from any thread at once; all match state is per call.
// Ownership: owns its compiled patterns.
// Errors: kUnsupported naming an unknown pre-tokenizer and listing the known ones; kInternal when
// PCRE2 gives up (out of memory, or its limits: the patterns never backtrack over more than one
// character, so input cannot reach them); kCancelled within 50 ms of the flag, however long a word
// is.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "base/progress.h"
#include "base/result.h"

namespace tandem {

class PreTokenizer {
 public:
  // `name` as in tokenizer.ggml.pre; empty means "default".  Where the system forbids code made at
  // run time, and with allow_jit false, the same patterns are interpreted.
  static Result<PreTokenizer> create(std::string_view name, bool allow_jit = true);

  PreTokenizer(PreTokenizer&&) noexcept;
  PreTokenizer& operator=(PreTokenizer&&) noexcept;
  ~PreTokenizer();

  // Appends where each word of `text` ends: ascending, the last one text.size().  A byte that is
  // not UTF-8 is treated as a symbol (neither letter, digit, punctuation nor space), like U+FFFD.
  // Requires: text shorter than 4 GiB.
  Status split(std::string_view text, const CancelFlag& cancel,
               std::vector<uint32_t>& word_ends) const;

  bool compiled_to_machine_code() const;

 private:
  class Pattern;
  PreTokenizer();

  std::vector<Pattern>
      patterns_;  // applied one after the other, each within the pieces of the last
};

}  // namespace tandem
