// The tokens of a model after they were checked: what each stands for, and which text each is found
// by.
//
// Threading: immutable; const methods may be called from any thread at once.
// Ownership: owns all text; views it returns die with it.
// Errors: create() gives kCorrupt naming the field, the token and what was expected.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "text/hash_tables.h"
#include "text/vocabulary.h"

namespace tandem {

class TokenTable {
 public:
  // Longer tokens are refused: looking a text up costs its length, and no model comes near.
  static constexpr size_t kMaxTokenBytes = 65536;

  static Result<TokenTable> create(const VocabularyData& data);

  TokenTable(TokenTable&&) = default;
  TokenTable& operator=(TokenTable&&) = default;

  size_t size() const { return kinds_.size(); }
  bool contains(int64_t id) const { return id >= 0 && static_cast<size_t>(id) < size(); }
  // -1 without an id, and for one that is not in the table.
  TokenId id_or_none(std::optional<int64_t> id) const {
    return id && contains(*id) ? static_cast<TokenId>(*id) : -1;
  }
  // Of an id that is not in the table: kUnknown, and empty texts.
  TokenKind kind(TokenId id) const;
  std::string_view written(TokenId id) const;  // as in the file
  std::string_view bytes(TokenId id) const;    // what it stands for in text

  // The token written so, of any kind; -1: none.  Of equal ones the last, as other GGUF readers do.
  TokenId find_written(std::string_view written) const { return all_.find(written); }
  // The same among the tokens that merging may make of text: normal ones, and user-defined ones
  // that stand for the same text either way.
  TokenId find_text_written(std::string_view written) const { return text_.find(written); }
  // By what it stands for; BPE only.
  TokenId find_text_bytes(std::string_view bytes) const { return text_by_bytes_.find(bytes); }

  // Tokens whose kind in the file was not control although they begin or end turns; here it is.
  size_t n_retyped() const { return n_retyped_; }

  size_t longest_text_written() const { return longest_text_written_; }

 private:
  TokenTable() = default;
  Status add(const VocabularyData& data, size_t id);

  std::vector<TokenKind> kinds_;           // [V]
  std::vector<std::string> written_text_;  // [V]
  std::vector<std::string> byte_text_;     // [V]
  TextIndex all_, text_, text_by_bytes_;   // of views into the two above
  size_t longest_text_written_ = 0;
  size_t n_retyped_ = 0;
};

// The byte that "<0x0A>" names: exactly two hexadecimal digits; -1 for anything else.
int byte_of_token(std::string_view written);

}  // namespace tandem
