#include "text/vocabulary_gguf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "formats/gguf/gguf_bytes.h"
#include "status_matchers.h"
#include "text/tokenizer.h"

namespace tandem {
namespace {

using ::testing::AllOf;
using testing::array_entry;
using testing::Bytes;
using ::testing::ElementsAre;
using testing::entry;
using testing::fails_with;
using ::testing::HasSubstr;
using testing::is_ok;
using testing::string_array_entry;
using testing::string_entry;

Result<VocabularyData> read(const std::vector<Bytes>& entries) {
  auto file = testing::parse_exact(testing::gguf(entries, {}, 0));
  EXPECT_THAT(file, is_ok());
  return vocabulary_from_gguf(*file);
}

std::vector<Bytes> bpe_entries() {
  return {string_entry("tokenizer.ggml.model", "gpt2"),
          string_entry("tokenizer.ggml.pre", "llama-bpe"),
          string_array_entry("tokenizer.ggml.tokens", {"a", "b", "ab", "<end>"}),
          array_entry<int32_t>("tokenizer.ggml.token_type", 5, {1, 1, 1, 3}),
          string_array_entry("tokenizer.ggml.merges", {"a b"}),
          entry<uint32_t>("tokenizer.ggml.eos_token_id", 4, 3)};
}

TEST(VocabularyGguf, ReadsBytePairVocabulary) {
  auto data = read(bpe_entries());
  ASSERT_THAT(data, is_ok());
  EXPECT_EQ(data->model, VocabularyData::Model::kBpe);
  EXPECT_EQ(data->pre_tokenizer, "llama-bpe");
  EXPECT_THAT(data->tokens, ElementsAre("a", "b", "ab", "<end>"));
  EXPECT_EQ(data->kinds[3], TokenKind::kControl);
  EXPECT_THAT(data->merges, ElementsAre("a b"));
  EXPECT_EQ(data->eos, 3);
  EXPECT_FALSE(data->bos.has_value());
  EXPECT_TRUE(data->add_bos) << "the habit of Llama 3 when the file does not say";
  EXPECT_FALSE(data->add_space_prefix);
}

TEST(VocabularyGguf, FlagsInTheFileWinOverHabits) {
  auto entries = bpe_entries();
  entries.push_back(entry<uint8_t>("tokenizer.ggml.add_bos_token", 7, 0));
  entries.push_back(entry<uint8_t>("tokenizer.ggml.add_eos_token", 7, 1));
  auto data = read(entries);
  ASSERT_THAT(data, is_ok());
  EXPECT_FALSE(data->add_bos);
  EXPECT_TRUE(data->add_eos);
}

TEST(VocabularyGguf, ReadsSentencePieceVocabulary) {
  auto data = read({string_entry("tokenizer.ggml.model", "llama"),
                    string_array_entry("tokenizer.ggml.tokens", {"a", "b"}),
                    array_entry<float>("tokenizer.ggml.scores", 6, {-1.0f, -2.0f})});
  ASSERT_THAT(data, is_ok());
  EXPECT_EQ(data->model, VocabularyData::Model::kSentencePiece);
  EXPECT_THAT(data->scores, ElementsAre(-1.0f, -2.0f));
  EXPECT_TRUE(data->add_bos);
  EXPECT_TRUE(data->add_space_prefix);
}

TEST(VocabularyGguf, RefusesAnUnknownModelAndListsTheKnown) {
  auto entries = bpe_entries();
  entries[0] = string_entry("tokenizer.ggml.model", "rwkv");
  EXPECT_THAT(read(entries),
              fails_with(Code::kUnsupported,
                         AllOf(HasSubstr("rwkv"), HasSubstr("gpt2"), HasSubstr("llama"))));
}

TEST(VocabularyGguf, NamesWhatIsMissing) {
  const auto entries = bpe_entries();
  for (const size_t i : {0, 2}) {
    auto fewer = entries;
    fewer.erase(fewer.begin() + static_cast<std::ptrdiff_t>(i));
    EXPECT_THAT(read(fewer), fails_with(Code::kNotFound, HasSubstr("tokenizer.ggml.")));
  }
}

// Writers leave an empty array out; every byte then stays a token of its own.
TEST(VocabularyGguf, MissingMergesAreNone) {
  auto entries = bpe_entries();
  entries.erase(entries.begin() + 4);
  const auto data = read(entries);
  ASSERT_THAT(data, is_ok());
  EXPECT_TRUE(data->merges.empty());
}

TEST(VocabularyGguf, RefusesValuesOfTheWrongKind) {
  auto entries = bpe_entries();
  entries[2] = array_entry<int32_t>("tokenizer.ggml.tokens", 5, {1, 2});
  EXPECT_THAT(read(entries), fails_with(Code::kCorrupt, HasSubstr("tokenizer.ggml.tokens")));
  entries = bpe_entries();
  entries[5] = string_entry("tokenizer.ggml.eos_token_id", "3");
  EXPECT_THAT(read(entries), fails_with(Code::kCorrupt, HasSubstr("tokenizer.ggml.eos_token_id")));
}

TEST(VocabularyGguf, RefusesAnUnknownKindOfToken) {
  auto entries = bpe_entries();
  for (const int32_t kind : {-1, 7, INT32_MAX}) {
    entries[3] = array_entry<int32_t>("tokenizer.ggml.token_type", 5, {1, kind, 1, 3});
    EXPECT_THAT(read(entries),
                fails_with(Code::kCorrupt, HasSubstr("tokenizer.ggml.token_type[1]")));
  }
}

TEST(VocabularyGguf, IdsBeyondTheVocabularyReachTheTokenizerAndAreReportedThere) {
  auto entries = bpe_entries();
  entries[5] = entry<uint32_t>("tokenizer.ggml.eos_token_id", 4, UINT32_MAX);
  auto data = read(entries);
  ASSERT_THAT(data, is_ok());
  const auto tokenizer = Tokenizer::create(*data);
  ASSERT_THAT(tokenizer, is_ok());
  EXPECT_FALSE((*tokenizer)->eos().has_value());
  EXPECT_THAT((*tokenizer)->warnings(),
              ElementsAre(HasSubstr("tokenizer.ggml.eos_token_id: 4294967295")));
}

}  // namespace
}  // namespace tandem
