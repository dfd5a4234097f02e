// Vocabularies for tests: from the fixtures, from a shared data folder, and made by hand.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "formats/byte_alphabet.h"
#include "formats/gguf/gguf.h"
#include "text/tokenizer.h"
#include "text/vocabulary_gguf.h"

namespace tandem::testing {

// Length of long texts.  A sanitizer slows everything ten to fifty times; a tenth of the text still
// shows quadratic time and a stack that grows with it.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr size_t kLongText = 100000;
#else
inline constexpr size_t kLongText = 1000000;
#endif

// Where large data that is not in the repository may lie; empty when it is not there.
inline std::filesystem::path shared_data() {
  namespace fs = std::filesystem;
  const char* named = std::getenv("TANDEM_TEST_DATA");
  const fs::path path = named ? fs::path(named) : fs::path(TANDEM_SOURCE_DIR) / "../shared/data";
  return fs::is_directory(path) ? path : fs::path();
}

inline std::string read_text_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

inline Result<VocabularyData> load_vocabulary(const std::filesystem::path& path) {
  TANDEM_ASSIGN_OR_RETURN(const GgufFile file, GgufFile::open(path));
  return vocabulary_from_gguf(file);
}

inline Result<std::unique_ptr<const Tokenizer>> load_tokenizer(const std::filesystem::path& path) {
  TANDEM_ASSIGN_OR_RETURN(VocabularyData data, load_vocabulary(path));
  return Tokenizer::create(std::move(data));
}

// All 256 bytes (ids 0 to 255), then the named merges with their tokens, then two control tokens.
inline VocabularyData byte_vocabulary(const std::vector<std::string>& merges = {},
                                      std::string pre_tokenizer = "gpt-2") {
  VocabularyData data;
  data.pre_tokenizer = std::move(pre_tokenizer);
  for (int byte = 0; byte < 256; ++byte) {
    const char value = static_cast<char>(byte);
    data.tokens.push_back(byte_alphabet::written({&value, 1}));
  }
  for (const std::string& merge : merges) {
    std::string both = merge;
    both.erase(both.find(' ', 1), 1);
    data.tokens.push_back(both);
    data.merges.push_back(merge);
  }
  data.kinds.assign(data.tokens.size(), TokenKind::kNormal);
  for (const char* name : {"<|bos|>", "<|im_end|>"}) {
    data.tokens.push_back(name);
    data.kinds.push_back(TokenKind::kControl);
  }
  data.bos = static_cast<int64_t>(data.tokens.size()) - 2;
  data.eos = *data.bos + 1;
  return data;
}

// <unk>, <s>, </s>, 256 byte tokens from id 3 on, then the pieces, earlier ones scoring higher.
inline VocabularyData piece_vocabulary(const std::vector<std::string>& pieces) {
  VocabularyData data;
  data.model = VocabularyData::Model::kSentencePiece;
  const auto add = [&](std::string text, TokenKind kind, float score) {
    data.tokens.push_back(std::move(text));
    data.kinds.push_back(kind);
    data.scores.push_back(score);
  };
  add("<unk>", TokenKind::kUnknown, 0);
  add("<s>", TokenKind::kControl, 0);
  add("</s>", TokenKind::kControl, 0);
  for (int byte = 0; byte < 256; ++byte) {
    char text[8];
    std::snprintf(text, sizeof text, "<0x%02X>", static_cast<unsigned>(byte));
    add(text, TokenKind::kByte, 0);
  }
  for (const std::string& piece : pieces) {
    add(piece, TokenKind::kNormal, -static_cast<float>(data.tokens.size()));
  }
  data.unknown = 0;
  data.bos = 1;
  data.eos = 2;
  data.add_bos = true;
  data.add_space_prefix = true;
  return data;
}

// One of the repository's own vocabularies.
inline std::unique_ptr<const Tokenizer> fixture_tokenizer(const std::string& name) {
  auto loaded = load_tokenizer(std::filesystem::path(TANDEM_FIXTURES) / "text" / (name + ".gguf"));
  if (loaded.ok()) return std::move(*loaded);
  ADD_FAILURE() << loaded.status().to_string();
  return nullptr;
}

}  // namespace tandem::testing
