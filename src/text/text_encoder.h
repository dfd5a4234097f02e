// Text without special tokens -> tokens, by one of the two kinds of vocabulary.
//
// Threading: immutable; encode() may be called from any thread at once.
// Ownership: keeps a reference to the TokenTable, which outlives it.
// Errors: create functions give kCorrupt or kUnsupported naming the field; encode() gives
// kInvalidArgument for a byte that the vocabulary cannot express when it has no unknown token.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/progress.h"
#include "base/result.h"
#include "text/token_table.h"
#include "text/vocabulary.h"

namespace tandem {

class TextEncoder {
 public:
  virtual ~TextEncoder() = default;

  // Appends the tokens of `text`, any bytes, shorter than 4 GiB.  after_special: the text stands at
  // the start or right after a special token.  kCancelled within 50 ms of
  // `cancel`, however long a word is.
  virtual Status encode(std::string_view text, bool after_special, const CancelFlag& cancel,
                        std::vector<TokenId>& out) const = 0;
};

Result<std::unique_ptr<TextEncoder>> create_bpe_encoder(const VocabularyData& data,
                                                        const TokenTable& tokens,
                                                        std::vector<std::string>& warnings);
Result<std::unique_ptr<TextEncoder>> create_sentence_piece_encoder(const VocabularyData& data,
                                                                   const TokenTable& tokens);

// What both say when they are cancelled.
Status encoding_cancelled();

// What both say when there is neither a token for a byte nor an unknown token.
Status no_token_for_byte(uint8_t byte);

}  // namespace tandem
