// Makes a vocabulary of the input's first bytes and encodes the rest with it.  With
// -DTANDEM_LIBFUZZER and clang's -fsanitize=fuzzer this file is a libFuzzer target by itself.
#include "fuzz/fuzz_tokenizer.h"

#include <algorithm>
#include <cstdlib>
#include <string>

#include "formats/byte_alphabet.h"
#include "text/tokenizer.h"

namespace {

using tandem::TokenId;
using tandem::TokenKind;
using tandem::VocabularyData;

void require(bool condition) {
  if (!condition) std::abort();
}

struct Input {
  const uint8_t* data;
  size_t left;

  uint8_t byte() {
    if (left == 0) return 0;
    --left;
    return *data++;
  }
  size_t below(size_t n) { return byte() % n; }
  std::string text(size_t n) {
    std::string out;
    while (out.size() < n && left > 0) out.push_back(static_cast<char>(byte()));
    return out;
  }
};

std::string token(Input& input, const VocabularyData& so_far) {
  static constexpr char kHex[] = "0123456789ABCDEF";
  switch (input.below(6)) {
    case 0:
      return input.text(input.below(8));
    case 1: {
      const uint8_t byte = input.byte();
      return {'<', '0', 'x', kHex[byte >> 4], kHex[byte & 15], '>'};
    }
    case 2:
      return "\xE2\x96\x81" + input.text(input.below(3));
    case 3:
    case 4:  // what a merge would make
      if (!so_far.tokens.empty()) {
        const size_t n = so_far.tokens.size();
        return so_far.tokens[input.below(n)] + so_far.tokens[input.below(n)];
      }
      [[fallthrough]];
    default:
      return tandem::byte_alphabet::written(input.text(1));
  }
}

TokenKind kind(Input& input) {
  const size_t choice = input.below(24);
  return choice < 6 ? static_cast<TokenKind>(choice) : TokenKind::kNormal;
}

std::optional<int64_t> id(Input& input, size_t n) {
  const size_t choice = input.below(32);
  if (choice == 0) return static_cast<int8_t>(input.byte());
  return choice < 16 && n > 0 ? std::optional<int64_t>(input.below(n)) : std::nullopt;
}

VocabularyData vocabulary(Input& input) {
  static constexpr const char* kPreTokenizers[] = {"", "gpt-2", "llama-bpe", "qwen2"};
  VocabularyData data;
  const uint8_t flags = input.byte();
  data.model = flags & 1 ? VocabularyData::Model::kBpe : VocabularyData::Model::kSentencePiece;
  data.pre_tokenizer = kPreTokenizers[(flags >> 1) & 3];
  data.add_bos = flags & 8;
  data.add_eos = flags & 16;
  data.add_space_prefix = flags & 32;
  const size_t n = input.byte();
  for (size_t i = 0; i < n; ++i) {
    data.tokens.push_back(token(input, data));
    // Hostile kinds and scores would have nearly every vocabulary refused if they were frequent.
    const TokenKind wanted = kind(input);
    const bool names_byte = tandem::byte_of_token(data.tokens.back()) >= 0;
    data.kinds.push_back(wanted == TokenKind::kByte && !names_byte ? TokenKind::kNormal : wanted);
    data.scores.push_back(static_cast<float>(static_cast<int8_t>(input.byte())));
  }
  if (n > 0 && data.model == VocabularyData::Model::kBpe) {
    const size_t n_merges = input.byte();
    for (size_t i = 0; i < n_merges; ++i) {
      const std::string left = data.tokens[input.below(n)], right = data.tokens[input.below(n)];
      const std::string both = left + right;
      const bool known =
          std::find(data.tokens.begin(), data.tokens.end(), both) != data.tokens.end();
      if (known || input.below(64) == 0) data.merges.push_back(left + " " + right);
    }
  }
  data.unknown = id(input, n);
  data.bos = id(input, n);
  data.eos = id(input, n);
  if (input.below(32) == 0) data.kinds.resize(input.byte());
  return data;
}

void check(const tandem::Tokenizer& tokenizer, const VocabularyData& data, std::string_view text) {
  const auto ids = tokenizer.encode(text, {});
  if (!ids.ok()) {
    require(ids.status().code() == tandem::Code::kInvalidArgument);
    return;
  }
  bool has_unknown = false;
  for (const TokenId id : *ids) {
    require(id >= 0 && static_cast<size_t>(id) < tokenizer.size());
    const bool stands_for_unknown = tokenizer.unknown() == id;
    require(stands_for_unknown || tokenizer.kind(id) != TokenKind::kControl);
    has_unknown |= stands_for_unknown;
  }
  const std::string back = tokenizer.decode(*ids, false);
  if (data.model == VocabularyData::Model::kBpe && !has_unknown) require(back == text);
  const tandem::Tokenizer::Piece halves[] = {{text.substr(0, text.size() / 2), false},
                                             {text.substr(text.size() / 2), false}};
  const auto again = tokenizer.encode_pieces(halves, false);
  require(again.ok() && *again == *ids);
  (void)tokenizer.encode(text, {.add_bos = true, .add_eos = true, .parse_special = true});
}

}  // namespace

int fuzz_tokenizer(const uint8_t* bytes, size_t n_bytes) {
  Input input = {bytes, n_bytes};
  const VocabularyData data = vocabulary(input);
  const auto tokenizer = tandem::Tokenizer::create(data);
  if (!tokenizer.ok()) {
    require(!tokenizer.status().message().empty());
    return 0;
  }
  std::string text;
  while (input.left > 0) {
    // Half raw bytes, half what the vocabulary can express.
    text += input.below(2) == 0
                ? input.text(3)
                : std::string((*tokenizer)->token_text(static_cast<TokenId>(input.byte()), true));
    if (text.size() > 4096) break;
  }
  check(**tokenizer, data, text);
  return 0;
}

#ifdef TANDEM_LIBFUZZER
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t bytes) {
  return fuzz_tokenizer(data, bytes);
}
#endif
