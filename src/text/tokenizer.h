// Text to tokens and back, as the model was trained.
//
// Threading: immutable; all const methods may be called from any thread at once.
// Ownership: owns its vocabulary; every string_view it returns dies with it.
// Errors: create() gives kCorrupt or kUnsupported naming the field of the vocabulary; encoding
// gives kInvalidArgument for text of 1 GiB or more and for bytes that the vocabulary cannot
// express.
//
// Any bytes may be encoded, NUL and what is not UTF-8 included: such bytes are kept (one symbol
// each), and decode(encode(text)) is the text again when the vocabulary has all bytes.  One
// exception: SentencePiece writes a space as U+2581, so that character comes back as a space.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/progress.h"
#include "base/result.h"
#include "text/special_matcher.h"
#include "text/text_encoder.h"
#include "text/token_table.h"
#include "text/vocabulary.h"

namespace tandem {

class Tokenizer {
 public:
  static constexpr size_t kMaxTextBytes = (size_t{1} << 30) - 1;

  static Result<std::unique_ptr<const Tokenizer>> create(VocabularyData data);

  struct EncodeOptions {
    bool add_bos = false;                // if the model wants one
    bool add_eos = false;                // likewise; never for a prompt, which is to be continued
    bool parse_special = false;          // what looks like a control token in the text becomes one
    const CancelFlag* cancel = nullptr;  // looked at every few milliseconds; kCancelled when set
  };
  // User-defined tokens are found in any text, whatever the options say.
  Result<std::vector<TokenId>> encode(std::string_view text, EncodeOptions options) const;

  // A prompt made of a template's text, which is trusted, and of people's, which is not.
  struct Piece {
    std::string_view text;
    bool trusted = false;
  };
  // The tokens of all pieces as one string: words and user-defined tokens may cross from one piece
  // into the next.  Only control tokens look at trust: all their bytes have to be trusted.
  Result<std::vector<TokenId>> encode_pieces(std::span<const Piece> pieces, bool add_bos,
                                             const CancelFlag* cancel = nullptr) const;

  // The bytes a token stands for; maybe only a part of a character.  Control, unknown and unused
  // tokens, which stand for no text, give their written form with_special and nothing without.
  std::string_view token_text(TokenId id, bool with_special = false) const;
  void append_bytes(TokenId id, bool with_special, std::string& out) const;

  // Undoes encode(): the space that SentencePiece added before the first text is dropped.
  std::string decode(std::span<const TokenId> ids, bool with_special) const;

  // What in the vocabulary makes no sense and was left out, a line each; few, whatever the file
  // holds.
  const std::vector<std::string>& warnings() const { return warnings_; }

  size_t size() const { return tokens_.size(); }
  TokenKind kind(TokenId id) const { return tokens_.kind(id); }

  // eos, eot, eom, and control tokens with the names by which models are known to end an answer.
  bool is_end_of_generation(TokenId id) const;

  std::optional<TokenId> bos() const { return special_.bos; }
  std::optional<TokenId> eos() const { return special_.eos; }
  std::optional<TokenId> eot() const { return special_.eot; }
  std::optional<TokenId> eom() const { return special_.eom; }
  std::optional<TokenId> unknown() const { return special_.unknown; }
  std::optional<TokenId> padding() const { return special_.padding; }
  bool adds_bos() const { return add_bos_; }
  bool adds_eos() const { return add_eos_; }
  // Text at the start of an encode() gets a space in front: encoding a conversation in parts is not
  // the same.
  bool adds_space_prefix() const { return drops_first_space_; }

  // Bytes of the longest token: a text of n bytes has at least n over this many tokens.
  size_t longest_token_bytes() const { return longest_token_bytes_; }

  // Tokens that begin or end turns although the file calls them ordinary or user-defined: control tokens here.
  size_t n_retyped() const { return tokens_.n_retyped(); }

  // The token written exactly so in the vocabulary, of any kind.
  std::optional<TokenId> find(std::string_view written) const;

 private:
  struct SpecialIds {
    std::optional<TokenId> bos, eos, eot, eom, unknown, padding;
  };

  Tokenizer(const VocabularyData& data, TokenTable tokens, SpecialMatcher matcher,
            SpecialIds special);

  Result<std::vector<TokenId>> encode_trusting(std::string_view text,
                                               std::span<const SpecialMatcher::Range> trusted,
                                               EncodeOptions options) const;

  TokenTable tokens_;
  SpecialMatcher matcher_;
  SpecialIds special_;
  std::vector<TokenId> ends_;  // sorted
  std::vector<std::string> warnings_;
  bool add_bos_;
  bool add_eos_;
  bool drops_first_space_;
  size_t longest_token_bytes_ = 0;
  std::unique_ptr<TextEncoder> encoder_;  // refers to tokens_
};

}  // namespace tandem
