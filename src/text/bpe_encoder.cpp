// Byte-level BPE: words are cut out by a PreTokenizer, then bytes are joined by the ranks of a list
// of merges.  Bytes are bytes: text that is not UTF-8 comes back unchanged when it is decoded.
#include <algorithm>
#include <array>
#include <iterator>
#include <string>

#include "formats/byte_alphabet.h"
#include "text/merge.h"
#include "text/pre_tokenizer.h"
#include "text/text_encoder.h"

namespace tandem {
namespace {

// Every merge as (left token, right token) -> (rank, joined token).
// Files in use name tokens that their vocabulary has lost: such a merge can never happen and is
// counted.
Result<PairTable> read_merges(const std::vector<std::string>& merges, const TokenTable& tokens,
                              size_t& n_unknown) {
  PairTable table(merges.size());
  if (merges.size() >= Joined::kNever)
    return corrupt("tokenizer.ggml.merges: more than 2^32 merges");
  for (size_t rank = 0; rank < merges.size(); ++rank) {
    const std::string_view merge = merges[rank];
    const auto wrong = [&](std::string_view what) {
      return corrupt("tokenizer.ggml.merges[" + std::to_string(rank) + "]: \"" +
                     std::string(merge.substr(0, 64)) + "\": " + std::string(what));
    };
    // The left side may itself be a space in odd vocabularies, so it has at least one byte.
    const size_t space = merge.find(' ', 1);
    if (space == std::string_view::npos || space + 1 == merge.size()) {
      return wrong("expected two tokens with a space between them");
    }
    const std::string_view left = merge.substr(0, space), right = merge.substr(space + 1);
    const std::string both = std::string(left) + std::string(right);
    const std::string_view parts[] = {left, right, both};
    if (std::any_of(std::begin(parts), std::end(parts),
                    [&](std::string_view part) { return tokens.find_written(part) < 0; })) {
      ++n_unknown;
      continue;
    }
    const TokenId a = tokens.find_text_written(left), b = tokens.find_text_written(right);
    const TokenId joined = tokens.find_text_written(both);
    // A merge with a control token, say, is never used: text does not become one.  Nor is one with a token that the
    // vocabulary lacks, as converters leave behind that cut vocabularies short.
    if (a < 0 || b < 0 || joined < 0) continue;
    // Named twice: the first, better rank counts.
    table.insert(static_cast<uint32_t>(a), static_cast<uint32_t>(b),
                 {static_cast<uint32_t>(rank), joined});
  }
  return table;
}

// How often the cancel flag is looked at: every millisecond or so.
constexpr size_t kWordsBetweenLooks = 1024;
constexpr size_t kSymbolsBetweenLooks = size_t{1} << 18;

class BpeEncoder final : public TextEncoder {
 public:
  BpeEncoder(const TokenTable& tokens, PreTokenizer pre_tokenizer, PairTable merges,
             bool whole_words_first, TokenId unknown)
      : tokens_(tokens),
        pre_tokenizer_(std::move(pre_tokenizer)),
        merges_(std::move(merges)),
        whole_words_first_(whole_words_first),
        unknown_(unknown) {
    for (uint32_t byte = 0; byte < 256; ++byte) {
      const char value = static_cast<char>(byte);
      byte_tokens_[byte] = tokens.find_text_written(byte_alphabet::written({&value, 1}));
    }
  }

  Status encode(std::string_view text, bool, const CancelFlag& cancel,
                std::vector<TokenId>& out) const override {
    std::vector<uint32_t> word_ends;
    TANDEM_RETURN_IF_ERROR(pre_tokenizer_.split(text, cancel, word_ends));
    std::vector<Symbol> symbols;
    Merger merger(cancel);
    size_t begin = 0, n_words = 0;
    for (const uint32_t end : word_ends) {
      if (++n_words % kWordsBetweenLooks == 0 && cancel.cancelled()) return encoding_cancelled();
      const std::string_view word = text.substr(begin, end - begin);
      TANDEM_RETURN_IF_ERROR(encode_word(word, symbols, merger, cancel, out));
      begin = end;
    }
    return ok_status();
  }

 private:
  Status encode_word(std::string_view word, std::vector<Symbol>& symbols, Merger& merger,
                     const CancelFlag& cancel, std::vector<TokenId>& out) const {
    if (whole_words_first_ && word.size() <= TokenTable::kMaxTokenBytes) {
      if (const TokenId whole = tokens_.find_text_bytes(word); whole >= 0) {
        out.push_back(whole);
        return ok_status();
      }
    }
    symbols.clear();
    symbols.reserve(word.size());
    for (size_t i = 0; i < word.size(); ++i) {
      if ((i + 1) % kSymbolsBetweenLooks == 0 && cancel.cancelled()) return encoding_cancelled();
      const TokenId id = byte_tokens_[static_cast<uint8_t>(word[i])];
      symbols.push_back({static_cast<uint32_t>(i), 1, id});
    }
    const bool merged =
        merger.merge(symbols, [this](const Symbol& left, const Symbol& right) -> Joined {
          if (left.id < 0 || right.id < 0) return {};
          const PairTable::Value* found =
              merges_.find(static_cast<uint32_t>(left.id), static_cast<uint32_t>(right.id));
          return found ? Joined{found->first, found->second} : Joined{};
        });
    if (!merged) return encoding_cancelled();
    for (size_t i = 0; i < symbols.size(); ++i) {
      if ((i + 1) % kSymbolsBetweenLooks == 0 && cancel.cancelled()) return encoding_cancelled();
      const Symbol& symbol = symbols[i];
      if (symbol.length == 0) continue;
      const TokenId id = symbol.id >= 0 ? symbol.id : unknown_;
      if (id < 0) return no_token_for_byte(static_cast<uint8_t>(word[symbol.begin]));
      out.push_back(id);
    }
    return ok_status();
  }

  const TokenTable& tokens_;
  PreTokenizer pre_tokenizer_;
  PairTable merges_;
  bool whole_words_first_;
  TokenId unknown_;
  std::array<TokenId, 256> byte_tokens_{};
};

// Llama 3's vocabulary has words that its merges cannot make; they are looked up whole first.
bool looks_whole_words_up(std::string_view pre_tokenizer) {
  return pre_tokenizer == "llama-bpe" || pre_tokenizer == "llama3" || pre_tokenizer == "llama-v3";
}

}  // namespace

Result<std::unique_ptr<TextEncoder>> create_bpe_encoder(const VocabularyData& data,
                                                        const TokenTable& tokens,
                                                        std::vector<std::string>& warnings) {
  TANDEM_ASSIGN_OR_RETURN(PreTokenizer pre_tokenizer, PreTokenizer::create(data.pre_tokenizer));
  size_t n_unknown = 0;
  TANDEM_ASSIGN_OR_RETURN(PairTable merges, read_merges(data.merges, tokens, n_unknown));
  if (n_unknown > 0) {
    warnings.push_back("tokenizer.ggml.merges: " + std::to_string(n_unknown) + " of " +
                       std::to_string(data.merges.size()) +
                       " name a token that is not in the vocabulary; they are left out");
  }
  const TokenId unknown = tokens.id_or_none(data.unknown);
  std::unique_ptr<TextEncoder> made =
      std::make_unique<BpeEncoder>(tokens, std::move(pre_tokenizer), std::move(merges),
                                   looks_whole_words_up(data.pre_tokenizer), unknown);
  return made;
}

Status encoding_cancelled() { return cancelled("cancelled while the text was made into tokens"); }

Status no_token_for_byte(uint8_t byte) {
  constexpr char kDigits[] = "0123456789ABCDEF";
  const char name[] = {'0', 'x', kDigits[byte >> 4], kDigits[byte & 15], '\0'};
  return invalid_argument(std::string("the vocabulary has no token for byte ") + name +
                          " and no unknown token");
}

}  // namespace tandem
