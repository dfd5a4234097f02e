// SentencePiece's BPE: characters are joined by the scores of the pieces they make; characters
// without a piece fall back to byte tokens.  Bytes that are not UTF-8 are characters of one byte,
// so they fall back to their byte token and come back unchanged.
#include <array>
#include <bit>
#include <cmath>
#include <string>

#include "base/utf8.h"
#include "text/merge.h"
#include "text/text_encoder.h"

namespace tandem {
namespace {

constexpr std::string_view kSpaceMark = "\xE2\x96\x81";  // U+2581

// How often the cancel flag is looked at: every few milliseconds.
constexpr size_t kBytesBetweenLooks = size_t{1} << 20;
constexpr size_t kSymbolsBetweenLooks = size_t{1} << 16;
constexpr size_t kWordsBetweenLooks = 1024;

// Higher scores first, as an order in which smaller is first.  Requires: not NaN.
uint32_t order_of(float score) {
  const uint32_t bits = std::bit_cast<uint32_t>(score + 0.0f);  // -0 and 0 are equal
  const uint32_t ascending = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
  return ~ascending;  // UINT32_MAX would need the bits of a NaN
}

class SentencePieceEncoder final : public TextEncoder {
 public:
  SentencePieceEncoder(const TokenTable& tokens, const std::vector<float>& scores,
                       bool add_space_prefix, TokenId unknown)
      : tokens_(tokens), add_space_prefix_(add_space_prefix), unknown_(unknown) {
    byte_tokens_.fill(-1);
    orders_.reserve(scores.size());
    for (const float score : scores) orders_.push_back(order_of(score));
    for (TokenId id = 0; id < static_cast<TokenId>(tokens.size()); ++id) {
      const std::string_view written = tokens.written(id);
      const TokenKind kind = tokens.kind(id);
      if (kind == TokenKind::kByte) byte_tokens_[static_cast<size_t>(byte_of_token(written))] = id;
      if (kind == TokenKind::kNormal || kind == TokenKind::kUserDefined) {
        joins_over_word_start_ |= has_inner_word_start(written);
      }
    }
  }

  Status encode(std::string_view text, bool after_special, const CancelFlag& cancel,
                std::vector<TokenId>& out) const override {
    std::string marked;
    marked.reserve(text.size() + text.size() / 4 + 3);
    if (after_special && add_space_prefix_) marked += kSpaceMark;
    while (!text.empty()) {
      if (cancel.cancelled()) return encoding_cancelled();
      append_marked(text.substr(0, kBytesBetweenLooks), marked);
      text.remove_prefix(std::min(kBytesBetweenLooks, text.size()));
    }
    if (marked.size() >= UINT32_MAX) return invalid_argument("text of 4 GiB or more");
    Merger merger(cancel);
    std::vector<Symbol> symbols;
    std::string_view rest = marked;
    for (size_t n_words = 1; !rest.empty(); ++n_words) {
      if (n_words % kWordsBetweenLooks == 0 && cancel.cancelled()) return encoding_cancelled();
      const size_t n = joins_over_word_start_ ? rest.size() : first_word_length(rest);
      TANDEM_RETURN_IF_ERROR(encode_word(rest.substr(0, n), symbols, merger, cancel, out));
      rest.remove_prefix(n);
    }
    return ok_status();
  }

 private:
  static void append_marked(std::string_view text, std::string& marked) {
    for (const char c : text) {
      if (c == ' ') {
        marked += kSpaceMark;
      } else {
        marked.push_back(c);
      }
    }
  }

  // Is there a space mark after something else than space marks?
  static bool has_inner_word_start(std::string_view written) {
    while (written.starts_with(kSpaceMark)) written.remove_prefix(kSpaceMark.size());
    return written.find(kSpaceMark) != std::string_view::npos;
  }

  // Up to the next space mark that follows something else.  No piece of a usual vocabulary reaches
  // over such a place, so the words merge on their own, in small memory.
  static size_t first_word_length(std::string_view text) {
    size_t at = 0;
    while (text.substr(at).starts_with(kSpaceMark)) at += kSpaceMark.size();
    return std::min(text.find(kSpaceMark, at), text.size());
  }

  Status encode_word(std::string_view word, std::vector<Symbol>& symbols, Merger& merger,
                     const CancelFlag& cancel, std::vector<TokenId>& out) const {
    symbols.clear();
    symbols.reserve(word.size());
    for (size_t at = 0; at < word.size();) {
      if ((symbols.size() + 1) % kSymbolsBetweenLooks == 0 && cancel.cancelled()) {
        return encoding_cancelled();
      }
      const utf8::Character character = utf8::decode(word.substr(at));
      const bool whole = character.state == utf8::Character::State::kWhole;
      const uint32_t length = whole ? character.length : 1;
      symbols.push_back(
          {static_cast<uint32_t>(at), length, tokens_.find_text_written(word.substr(at, length))});
      at += length;
    }
    const bool merged =
        merger.merge(symbols, [&](const Symbol& left, const Symbol& right) -> Joined {
          const size_t length = size_t{left.length} + right.length;
          if (length > tokens_.longest_text_written()) return {};
          const TokenId id = tokens_.find_text_written(word.substr(left.begin, length));
          return id < 0 ? Joined{} : Joined{orders_[static_cast<size_t>(id)], id};
        });
    if (!merged) return encoding_cancelled();
    for (size_t i = 0; i < symbols.size(); ++i) {
      if ((i + 1) % kSymbolsBetweenLooks == 0 && cancel.cancelled()) return encoding_cancelled();
      const Symbol& symbol = symbols[i];
      if (symbol.length == 0) continue;
      if (symbol.id >= 0) {
        out.push_back(symbol.id);
      } else {
        TANDEM_RETURN_IF_ERROR(encode_bytes(word.substr(symbol.begin, symbol.length), out));
      }
    }
    return ok_status();
  }

  // All bytes of a character by their byte tokens, or the unknown token once.
  Status encode_bytes(std::string_view character, std::vector<TokenId>& out) const {
    const size_t before = out.size();
    for (const char c : character) {
      const TokenId id = byte_tokens_[static_cast<uint8_t>(c)];
      if (id < 0) {
        out.resize(before);
        if (unknown_ < 0) return no_token_for_byte(static_cast<uint8_t>(c));
        out.push_back(unknown_);
        return ok_status();
      }
      out.push_back(id);
    }
    return ok_status();
  }

  const TokenTable& tokens_;
  std::vector<uint32_t> orders_;  // [V]
  std::array<TokenId, 256> byte_tokens_{};
  bool add_space_prefix_;
  bool joins_over_word_start_ = false;
  TokenId unknown_;
};

}  // namespace

Result<std::unique_ptr<TextEncoder>> create_sentence_piece_encoder(const VocabularyData& data,
                                                                   const TokenTable& tokens) {
  if (data.scores.size() != tokens.size()) {
    return corrupt("tokenizer.ggml.scores: " + std::to_string(data.scores.size()) +
                   " entries for " + std::to_string(tokens.size()) + " tokens");
  }
  for (size_t i = 0; i < data.scores.size(); ++i) {
    if (std::isnan(data.scores[i])) {
      return corrupt("tokenizer.ggml.scores[" + std::to_string(i) + "]: not a number");
    }
  }
  const TokenId unknown = tokens.id_or_none(data.unknown);
  std::unique_ptr<TextEncoder> made =
      std::make_unique<SentencePieceEncoder>(tokens, data.scores, data.add_space_prefix, unknown);
  return made;
}

}  // namespace tandem
