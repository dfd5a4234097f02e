// A vocabulary as plain data: what a model file says about its tokens, nothing interpreted yet.
//
// Threading and ownership: a value.
// Errors: none; Tokenizer::create() judges the content.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace tandem {

using TokenId = int32_t;

// In the order of GGUF's token_type 1 to 6.
enum class TokenKind : uint8_t {
  kNormal,
  kUnknown,      // stands for what the vocabulary cannot express
  kControl,      // structure of a conversation: never made from a person's text
  kUserDefined,  // found in any text before it is cut into words
  kUnused,
  kByte,  // <0x00> to <0xFF>: one byte of a character that has no token
};

struct VocabularyData {
  enum class Model { kBpe, kSentencePiece };

  Model model = Model::kBpe;
  std::string pre_tokenizer;        // BPE only; empty means "default"
  std::vector<std::string> tokens;  // [V] as in the file: BPE in the byte-to-letter alphabet
  std::vector<float> scores;        // [V], SentencePiece only: higher merges first
  std::vector<TokenKind> kinds;     // [V], or empty: all normal
  std::vector<std::string> merges;  // BPE only: "left right", most wanted first

  std::optional<int64_t> bos, eos, eot, eom, unknown, padding;  // unchecked, as in the file

  bool add_bos = false;           // encode(add_bos) starts with bos
  bool add_eos = false;           // encode(add_eos) ends with eos
  bool add_space_prefix = false;  // SentencePiece: text starts with a space that decode() drops
};

}  // namespace tandem
