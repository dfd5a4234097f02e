// The tokenizer against ids that the reference libraries gave: see tests/fixtures/README.md, and the
// pairs of texts and ids that GGUF programs check themselves with (only where that data is there).
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include <sstream>

#include "status_matchers.h"
#include "text_fixtures.h"

namespace tandem {
namespace {

using nlohmann::json;
using testing::is_ok;
using testing::load_tokenizer;
using testing::load_vocabulary;
using testing::read_text_file;
using testing::shared_data;

std::vector<json> lines_of(const std::filesystem::path& path) {
  std::vector<json> lines;
  std::istringstream text(read_text_file(path));
  for (std::string line; std::getline(text, line);) lines.push_back(json::parse(line));
  return lines;
}

std::string from_hex(const std::string& hex) {
  std::string bytes;
  for (size_t i = 0; i + 1 < hex.size(); i += 2) {
    bytes.push_back(static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16)));
  }
  return bytes;
}

std::string test_name(const ::testing::TestParamInfo<const char*>& parameter) {
  std::string name = parameter.param;
  for (char& c : name) c = std::isalnum(static_cast<unsigned char>(c)) ? c : '_';
  return name;
}

class ReferenceCases : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::path(TANDEM_FIXTURES) / "text";
    auto loaded = load_tokenizer(folder_ / (std::string(GetParam()) + ".gguf"));
    ASSERT_THAT(loaded, is_ok());
    tokenizer_ = std::move(*loaded);
  }
  std::vector<json> cases(const char* what) const {
    return lines_of(folder_ / (std::string(GetParam()) + what));
  }

  std::filesystem::path folder_;
  std::unique_ptr<const Tokenizer> tokenizer_;
};

TEST_P(ReferenceCases, EncodesAsTheReferenceDoes) {
  const auto all = cases(".encode.jsonl");
  ASSERT_GT(all.size(), 100u);
  for (const json& one : all) {
    const auto text = one["text"].get<std::string>();
    auto ids = tokenizer_->encode(text, {.parse_special = one["special"].get<bool>()});
    ASSERT_THAT(ids, is_ok()) << one.dump();
    EXPECT_EQ(*ids, one["ids"].get<std::vector<TokenId>>()) << one.dump();
  }
}

TEST_P(ReferenceCases, DecodesAsTheReferenceDoes) {
  const auto all = cases(".decode.jsonl");
  ASSERT_GT(all.size(), 20u);
  for (const json& one : all) {
    const auto ids = one["ids"].get<std::vector<TokenId>>();
    const auto expected =
        one.contains("text") ? one["text"].get<std::string>() : from_hex(one["bytes_hex"]);
    EXPECT_EQ(tokenizer_->decode(ids, true), expected) << one.dump();
  }
}

TEST_P(ReferenceCases, DecodingUndoesEncoding) {
  const bool pieces = std::string(GetParam()).starts_with("spm");
  for (const json& one : cases(".encode.jsonl")) {
    const auto text = one["text"].get<std::string>();
    // To SentencePiece U+2581 is a space, so it comes back as one.
    if (pieces && text.find("\xE2\x96\x81") != std::string::npos) continue;
    auto ids = tokenizer_->encode(text, {});
    ASSERT_THAT(ids, is_ok());
    EXPECT_EQ(tokenizer_->decode(*ids, true), text) << one.dump();
  }
}

INSTANTIATE_TEST_SUITE_P(Fixtures, ReferenceCases,
                         ::testing::Values("gpt-2", "llama-bpe", "qwen2", "spm", "spm-no-prefix"),
                         test_name);

TEST(ReferenceCasesDefault, PreTokenizerOfFilesThatNameNone) {
  const auto folder = std::filesystem::path(TANDEM_FIXTURES) / "text";
  auto data = load_vocabulary(folder / "gpt-2.gguf");
  ASSERT_THAT(data, is_ok());
  data->pre_tokenizer.clear();
  auto tokenizer = Tokenizer::create(*data);
  ASSERT_THAT(tokenizer, is_ok());
  const auto all = lines_of(folder / "default.encode.jsonl");
  ASSERT_GT(all.size(), 100u);
  for (const json& one : all) {
    auto ids = (*tokenizer)->encode(one["text"].get<std::string>(), {});
    ASSERT_THAT(ids, is_ok());
    EXPECT_EQ(*ids, one["ids"].get<std::vector<TokenId>>()) << one.dump();
  }
}

// Texts divided by a line "__ggml_vocab_test__", and a line of ids for each.
struct Pairs {
  std::vector<std::string> texts;
  std::vector<std::vector<TokenId>> ids;
};

Pairs read_pairs(const std::filesystem::path& stem) {
  Pairs pairs;
  const std::string separator = "\n__ggml_vocab_test__\n";
  std::string rest = read_text_file(stem.string() + ".inp");
  for (size_t end = rest.find(separator); end != std::string::npos; end = rest.find(separator)) {
    pairs.texts.push_back(rest.substr(0, end));
    rest.erase(0, end + separator.size());
  }
  std::istringstream lines(read_text_file(stem.string() + ".out"));
  for (std::string line; std::getline(lines, line) && pairs.ids.size() < pairs.texts.size();) {
    std::istringstream numbers(line);
    pairs.ids.emplace_back(std::istream_iterator<TokenId>(numbers),
                           std::istream_iterator<TokenId>());
  }
  return pairs;
}

void expect_pairs(const Tokenizer& tokenizer, const Pairs& pairs) {
  ASSERT_GT(pairs.texts.size(), 30u);
  ASSERT_EQ(pairs.texts.size(), pairs.ids.size());
  for (size_t i = 0; i < pairs.texts.size(); ++i) {
    auto ids = tokenizer.encode(pairs.texts[i], {});
    ASSERT_THAT(ids, is_ok());
    EXPECT_EQ(*ids, pairs.ids[i]) << "text " << i << ": " << pairs.texts[i];
    EXPECT_EQ(tokenizer.decode(*ids, true), pairs.texts[i]);
  }
}

class PublishedPairs : public ::testing::TestWithParam<const char*> {};

TEST_P(PublishedPairs, EncodeAsExpected) {
  const auto stem = shared_data() / "tokenizers" / GetParam();
  if (shared_data().empty()) GTEST_SKIP() << "no shared data folder (TANDEM_TEST_DATA)";
  auto tokenizer = load_tokenizer(stem);
  ASSERT_THAT(tokenizer, is_ok());
  expect_pairs(**tokenizer, read_pairs(stem));
}

INSTANTIATE_TEST_SUITE_P(Gguf, PublishedPairs,
                         ::testing::Values("ggml-vocab-gpt-2.gguf", "ggml-vocab-llama-spm.gguf",
                                           "ggml-vocab-phi-3.gguf"),
                         test_name);

Result<std::unique_ptr<const Tokenizer>> llama_3_tokenizer(const std::filesystem::path& folder) {
  VocabularyData data;
  data.pre_tokenizer = "llama-bpe";
  const json table = json::parse(read_text_file(folder / "llama-3.2.encoder.json"));
  data.tokens.resize(table.size());
  for (const auto& [text, id] : table.items()) data.tokens.at(id.get<size_t>()) = text;
  std::istringstream merges(read_text_file(folder / "llama-3.2.vocab.bpe"));
  for (std::string line; std::getline(merges, line);) {
    if (!line.empty() && !line.starts_with("#version")) data.merges.push_back(line);
  }
  return Tokenizer::create(std::move(data));
}

TEST(PublishedPairsLlama3, EncodeAsExpected) {
  if (shared_data().empty()) GTEST_SKIP() << "no shared data folder (TANDEM_TEST_DATA)";
  const auto folder = shared_data() / "tokenizers";
  auto tokenizer = llama_3_tokenizer(folder);
  ASSERT_THAT(tokenizer, is_ok());
  expect_pairs(**tokenizer, read_pairs(folder / "ggml-vocab-llama-bpe.gguf"));
}

}  // namespace
}  // namespace tandem
