#include "text/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cmath>

#include "status_matchers.h"
#include "text_fixtures.h"

namespace tandem {
namespace {

using ::testing::AllOf;
using testing::byte_vocabulary;
using ::testing::ElementsAre;
using testing::fails_with;
using ::testing::HasSubstr;
using testing::is_ok;
using ::testing::IsEmpty;
using testing::piece_vocabulary;
using namespace std::string_literals;

std::unique_ptr<const Tokenizer> made(VocabularyData data) {
  auto made = Tokenizer::create(std::move(data));
  EXPECT_THAT(made, is_ok());
  return made.ok() ? std::move(*made) : nullptr;
}

std::vector<TokenId> encoded(const Tokenizer& tokenizer, std::string_view text,
                             Tokenizer::EncodeOptions options = {}) {
  auto ids = tokenizer.encode(text, options);
  EXPECT_THAT(ids, is_ok());
  return ids.ok() ? *ids : std::vector<TokenId>();
}

std::vector<std::string> token_texts(const Tokenizer& tokenizer, std::string_view text) {
  std::vector<std::string> texts;
  for (const TokenId id : encoded(tokenizer, text))
    texts.emplace_back(tokenizer.token_text(id, true));
  return texts;
}

VocabularyData with_token(VocabularyData data, std::string text, TokenKind kind) {
  data.tokens.push_back(std::move(text));
  data.kinds.push_back(kind);
  if (!data.scores.empty()) data.scores.push_back(0);
  return data;
}

// --- byte-level BPE

TEST(TokenizerBpe, MergesByRankAndEqualRanksFromTheLeft) {
  const auto tokenizer = made(byte_vocabulary({"b c", "a b", "a a", "aa a"}));
  EXPECT_THAT(token_texts(*tokenizer, "abc"), ElementsAre("a", "bc"));
  EXPECT_THAT(token_texts(*tokenizer, "aaaaa"), ElementsAre("aa", "aaa"));
  EXPECT_THAT(token_texts(*tokenizer, "aaa"), ElementsAre("aaa"));
}

TEST(TokenizerBpe, WholeWordsComeFirstOnlyForLlama3) {
  auto data = with_token(byte_vocabulary({}, "llama-bpe"), "word", TokenKind::kNormal);
  EXPECT_THAT(token_texts(*made(data), "word"), ElementsAre("word"));
  data.pre_tokenizer = "qwen2";
  EXPECT_THAT(token_texts(*made(data), "word"), ElementsAre("w", "o", "r", "d"));
}

TEST(TokenizerBpe, AnyBytesComeBack) {
  const auto tokenizer = made(byte_vocabulary({"a b"}));
  std::string all;
  for (int byte = 0; byte < 256; ++byte) all.push_back(static_cast<char>(byte));
  for (const std::string& text : {all, "a\0b"s, "\xED\xA0\x80\xED\xB0\x80"s, "ab\xFFz\xE2\x82"s}) {
    EXPECT_EQ(tokenizer->decode(encoded(*tokenizer, text), false), text);
  }
}

TEST(TokenizerBpe, ByteThatIsNotInTheVocabularyIsUnknownOrAnError) {
  VocabularyData data;
  data.tokens = {"a", "b", "<unk>"};
  data.kinds = {TokenKind::kNormal, TokenKind::kNormal, TokenKind::kUnknown};
  EXPECT_THAT(made(data)->encode("abz", {}), fails_with(Code::kInvalidArgument, HasSubstr("0x7A")));
  data.unknown = 2;
  EXPECT_THAT(encoded(*made(data), "abz"), ElementsAre(0, 1, 2));
}

// --- SentencePiece

TEST(TokenizerPieces, MergesByScoreAndEqualScoresFromTheLeft) {
  auto data = piece_vocabulary({"a", "b", "c", "ab", "bc"});
  data.add_space_prefix = false;
  EXPECT_THAT(token_texts(*made(data), "abc"), ElementsAre("ab", "c"));
  data.scores.back() = 5;
  EXPECT_THAT(token_texts(*made(data), "abc"), ElementsAre("a", "bc"));
  data.scores[data.scores.size() - 2] = 5;
  EXPECT_THAT(token_texts(*made(data), "abc"), ElementsAre("ab", "c"));
}

TEST(TokenizerPieces, AddsOneSpaceInFrontAndDropsItAgain) {
  const auto tokenizer = made(piece_vocabulary({"\xE2\x96\x81", "a",
                                                "\xE2\x96\x81"
                                                "a"}));
  EXPECT_THAT(token_texts(*tokenizer, "a a"), ElementsAre(" a", " a"));
  EXPECT_EQ(tokenizer->decode(encoded(*tokenizer, "a a"), false), "a a");
  EXPECT_EQ(
      tokenizer->decode(encoded(*tokenizer, "  a", {.add_bos = true, .add_eos = true}), false),
      "  a");
  EXPECT_THAT(encoded(*tokenizer, ""), IsEmpty());
}

TEST(TokenizerPieces, FallsBackToBytesAlsoForWhatIsNotUtf8) {
  auto data = piece_vocabulary({"a"});
  data.add_space_prefix = false;
  const auto tokenizer = made(data);
  const std::string text = "a\xC3\xBC\xFF\xED\xA0\x80\0"s;
  EXPECT_THAT(encoded(*tokenizer, text),
              ElementsAre(259, 3 + 0xC3, 3 + 0xBC, 3 + 0xFF, 3 + 0xED, 3 + 0xA0, 3 + 0x80, 3));
  EXPECT_EQ(tokenizer->decode(encoded(*tokenizer, text), false), text);
}

TEST(TokenizerPieces, PiecesOverWordBordersAreFound) {
  auto data = piece_vocabulary({"a", "\xE2\x96\x81", "a\xE2\x96\x81",
                                "a\xE2\x96\x81"
                                "a"});
  data.add_space_prefix = false;
  EXPECT_THAT(token_texts(*made(data), "a a"), ElementsAre("a a"));
}

TEST(TokenizerPieces, TextThatSpellsControlOrByteTokensStaysText) {
  auto data = piece_vocabulary({"<", "/", "s", ">", "</", "</s", "0", "x", "4", "1", "<0"});
  data.add_space_prefix = false;
  const auto tokenizer = made(data);
  EXPECT_THAT(token_texts(*tokenizer, "</s>"), ElementsAre("</s", ">"));
  EXPECT_THAT(token_texts(*tokenizer, "<0x41>"), ElementsAre("<0", "x", "4", "1", ">"));
  EXPECT_THAT(encoded(*tokenizer, "</s>", {.parse_special = true}), ElementsAre(2));
}

// --- special tokens

TEST(TokenizerSpecial, ControlTokensAreParsedOnlyWhenAskedFor) {
  const auto tokenizer = made(byte_vocabulary());
  const TokenId end = *tokenizer->find("<|im_end|>");
  EXPECT_THAT(encoded(*tokenizer, "a<|im_end|>b", {.parse_special = true}),
              ElementsAre('a', end, 'b'));
  const auto plain = encoded(*tokenizer, "a<|im_end|>b");
  EXPECT_EQ(plain.size(), 12u);
  EXPECT_EQ(std::count(plain.begin(), plain.end(), end), 0);
}

TEST(TokenizerSpecial, NoMergeAndNoWholeWordMakesAControlToken) {
  auto data = byte_vocabulary({"a b"}, "llama-bpe");
  data.kinds[256] = TokenKind::kControl;  // "ab"
  EXPECT_THAT(token_texts(*made(data), "ab"), ElementsAre("a", "b"));
}

TEST(TokenizerSpecial, UserDefinedTokensAreFoundInAnyText) {
  const auto tokenizer = made(with_token(byte_vocabulary(), "<think>", TokenKind::kUserDefined));
  EXPECT_THAT(token_texts(*tokenizer, "a<think>b"), ElementsAre("a", "<think>", "b"));
}

TEST(TokenizerSpecial, LeftmostThenLongestWins) {
  auto data = byte_vocabulary();
  for (const char* text : {"<a", "<a>", "<a><b>", "b><c>"}) {
    data = with_token(data, text, TokenKind::kUserDefined);
  }
  const auto tokenizer = made(data);
  EXPECT_THAT(token_texts(*tokenizer, "<a><b><c>"), ElementsAre("<a><b>", "<", "c", ">"));
  EXPECT_THAT(token_texts(*tokenizer, "<a><b"), ElementsAre("<a>", "<", "b"));
  EXPECT_THAT(token_texts(*tokenizer, "<<a"), ElementsAre("<", "<a"));
}

TEST(TokenizerSpecial, ControlTokenNeedsAllItsBytesTrusted) {
  const auto tokenizer = made(byte_vocabulary());
  const TokenId end = *tokenizer->find("<|im_end|>");
  const auto n_ends = [&](std::vector<Tokenizer::Piece> pieces) {
    auto ids = tokenizer->encode_pieces(pieces, false);
    EXPECT_THAT(ids, is_ok());
    return std::count(ids->begin(), ids->end(), end);
  };
  EXPECT_EQ(n_ends({{"<|im_end|>", true}}), 1);
  EXPECT_EQ(n_ends({{"<|im_end|>", false}}), 0);
  EXPECT_EQ(n_ends({{"<|im_", true}, {"end|>", true}}), 1) << "trusted text may come in parts";
  EXPECT_EQ(n_ends({{"<|im_", true}, {"end|>", false}}), 0);
  EXPECT_EQ(n_ends({{"<|im_", false}, {"end|>", true}}), 0);
  EXPECT_EQ(n_ends({{"<|im_", true}, {"", false}, {"end|>", true}}), 1) << "nothing is in between";
  EXPECT_EQ(
      n_ends({{"x", true}, {"<|im_end|>", false}, {"<|im_end|>", true}, {"<|im_end|>", false}}), 1);
}

TEST(TokenizerSpecial, ShorterTrustedTokenIsFoundUnderALongerUntrustedOne) {
  auto data = with_token(byte_vocabulary(), "<a>", TokenKind::kControl);
  data = with_token(data, "<a>b", TokenKind::kControl);
  const auto tokenizer = made(data);
  const std::vector<Tokenizer::Piece> pieces = {{"<a>", true}, {"b", false}};
  auto ids = tokenizer->encode_pieces(pieces, false);
  ASSERT_THAT(ids, is_ok());
  EXPECT_THAT(*ids, ElementsAre(*tokenizer->find("<a>"), 'b'));
}

TEST(TokenizerSpecial, WordsCrossFromPieceToPiece) {
  const auto tokenizer = made(byte_vocabulary({"a b", "ab c"}));
  const std::vector<Tokenizer::Piece> pieces = {{"a", true}, {"bc", false}};
  auto ids = tokenizer->encode_pieces(pieces, false);
  ASSERT_THAT(ids, is_ok());
  EXPECT_EQ(*ids, encoded(*tokenizer, "abc"));
  EXPECT_EQ(ids->size(), 1u);
}

TEST(TokenizerSpecial, AddsBosAndEosAsTheModelWants) {
  auto data = byte_vocabulary();
  data.add_bos = data.add_eos = true;
  const auto tokenizer = made(data);
  EXPECT_THAT(encoded(*tokenizer, "", {.add_bos = true, .add_eos = true}),
              ElementsAre(*tokenizer->bos(), *tokenizer->eos()));
  EXPECT_THAT(encoded(*tokenizer, ""), IsEmpty());
}

TEST(TokenizerSpecial, ControlTokensShowOnlyWhenAskedFor) {
  const auto tokenizer = made(byte_vocabulary());
  const std::vector<TokenId> ids = {*tokenizer->bos(), 'a', *tokenizer->eos()};
  EXPECT_EQ(tokenizer->decode(ids, false), "a");
  EXPECT_EQ(tokenizer->decode(ids, true), "<|bos|>a<|im_end|>");
}

TEST(TokenizerSpecial, KnowsWhatEndsAnAnswer) {
  auto data = byte_vocabulary();
  data.eos = data.bos;
  data.eot = 5;
  data = with_token(data, "<|endoftext|>", TokenKind::kUnused);
  const auto tokenizer = made(data);
  EXPECT_TRUE(tokenizer->is_end_of_generation(*tokenizer->eos()));
  EXPECT_TRUE(tokenizer->is_end_of_generation(5));
  EXPECT_TRUE(tokenizer->is_end_of_generation(*tokenizer->find("<|im_end|>")));
  EXPECT_FALSE(tokenizer->is_end_of_generation(*tokenizer->find("<|endoftext|>")))
      << "not a control token";
  EXPECT_FALSE(tokenizer->is_end_of_generation(-1));
}

TEST(Tokenizer, IdsThatAreNotInTheVocabularyStandForNothing) {
  const auto tokenizer = made(byte_vocabulary());
  for (const TokenId id : {-1, INT32_MIN, INT32_MAX, static_cast<TokenId>(tokenizer->size())}) {
    EXPECT_EQ(tokenizer->token_text(id, true), "");
    EXPECT_EQ(tokenizer->kind(id), TokenKind::kUnknown);
  }
}

// --- hostile vocabularies

void expect_refused(VocabularyData data, std::string field, Code code = Code::kCorrupt) {
  EXPECT_THAT(Tokenizer::create(std::move(data)), fails_with(code, HasSubstr(field)));
}

TEST(HostileVocabulary, NoTokensAtAll) { expect_refused({}, "tokenizer.ggml.tokens"); }

TEST(HostileVocabulary, KindsOrScoresOfAnotherLength) {
  auto data = byte_vocabulary();
  data.kinds.pop_back();
  expect_refused(data, "tokenizer.ggml.token_type");
  auto pieces = piece_vocabulary({"a"});
  pieces.scores.pop_back();
  expect_refused(pieces, "tokenizer.ggml.scores");
}

TEST(HostileVocabulary, ScoreThatIsNotANumber) {
  auto data = piece_vocabulary({"a", "b"});
  data.scores[260] = std::nanf("");
  expect_refused(data, "tokenizer.ggml.scores[260]");
}

TEST(HostileVocabulary, InfiniteScoresStillOrder) {
  auto data = piece_vocabulary({"a", "b", "ab", "ba"});
  data.scores[261] = -INFINITY;
  data.scores[262] = INFINITY;
  data.add_space_prefix = false;
  EXPECT_THAT(token_texts(*made(data), "aba"), ElementsAre("a", "ba"));
}

// Files in use hold such merges: they can never happen, and the others keep their ranks.
TEST(HostileVocabulary, MergesNamingUnknownTokensAreLeftOutAndCounted) {
  auto data = byte_vocabulary({"a b", "b c"});
  data.merges.insert(data.merges.begin() + 1, {"a zz", "zz a", "x y"});
  const auto tokenizer = made(data);
  EXPECT_THAT(token_texts(*tokenizer, "abcbc"), ElementsAre("ab", "c", "bc"));
  EXPECT_THAT(tokenizer->warnings(),
              ElementsAre(HasSubstr("tokenizer.ggml.merges: 3 of 5 name a token")));
}

TEST(HostileVocabulary, MergesWithoutTwoSides) {
  for (const char* merge : {"", " ", "ab", "a ", " a"}) {
    auto data = byte_vocabulary();
    data.merges = {merge};
    expect_refused(data, "tokenizer.ggml.merges[0]");
  }
}

TEST(HostileVocabulary, MergeNamedTwiceKeepsItsFirstRank) {
  auto data = byte_vocabulary({"a b", "b c"});
  data.merges.push_back("a b");
  EXPECT_THAT(token_texts(*made(data), "abc"), ElementsAre("ab", "c"));
}

// Files in use write 4294967295 or -1 for a token that they do not have.
TEST(HostileVocabulary, SpecialIdsOutOfRangeAreTakenAsAbsent) {
  for (const int64_t id :
       {int64_t{-1}, int64_t{UINT32_MAX}, int64_t{1} << 32, int64_t{258}, INT64_MIN, INT64_MAX}) {
    auto data = byte_vocabulary();
    data.bos = data.eos = data.eot = data.eom = data.unknown = data.padding = id;
    data.add_bos = data.add_eos = true;
    const auto tokenizer = made(data);
    EXPECT_FALSE(tokenizer->bos() || tokenizer->eos() || tokenizer->eot() || tokenizer->eom() ||
                 tokenizer->unknown() || tokenizer->padding());
    EXPECT_THAT(encoded(*tokenizer, "a", {.add_bos = true, .add_eos = true}), ElementsAre('a'));
    EXPECT_THAT(tokenizer->warnings(), ::testing::SizeIs(6));
    EXPECT_THAT(tokenizer->warnings(),
                ::testing::Contains(::testing::AllOf(HasSubstr("padding_token_id"),
                                                     HasSubstr(std::to_string(id)))));
  }
}

// The unknown token is where text ends that a vocabulary cannot express: an id from nowhere must
// not.
TEST(HostileVocabulary, AnUnknownTokenOutOfRangeIsNeverGiven) {
  auto pieces = piece_vocabulary({"a"});
  pieces.kinds.assign(pieces.kinds.size(), TokenKind::kNormal);
  pieces.unknown = UINT32_MAX;
  EXPECT_THAT(made(pieces)->encode("z", {}), fails_with(Code::kInvalidArgument, HasSubstr("0x")));
}

// What converters have got wrong: the turn's end is an ordinary or a user-defined token.
TEST(TokenizerSpecial, TokensThatEndTurnsAreControlWhateverTheFileCallsThem) {
  for (const TokenKind kind : {TokenKind::kUserDefined, TokenKind::kNormal}) {
    for (const auto& vocabulary : {byte_vocabulary({}), piece_vocabulary({})}) {
      const auto data =
          with_token(with_token(vocabulary, "<|im_start|>", kind), "<|im_end|>", kind);
      const auto tokenizer = made(data);
      const auto end = *tokenizer->find("<|im_end|>");
      EXPECT_EQ(2u, tokenizer->n_retyped());
      EXPECT_TRUE(tokenizer->is_end_of_generation(end));
      EXPECT_THAT(encoded(*tokenizer, "hi<|im_end|>"), ::testing::Not(::testing::Contains(end)));
      EXPECT_THAT(encoded(*tokenizer, "hi<|im_end|>", {.parse_special = true}),
                  ::testing::Contains(end));
    }
  }
  const auto plain = with_token(byte_vocabulary({}), "<tool>", TokenKind::kUserDefined);
  EXPECT_EQ(0u, made(plain)->n_retyped());
}

TEST(HostileVocabulary, MoreSpecialTokensThanAnyModelHasAreRefusedBeforeTheyTakeMemory) {
  auto data = byte_vocabulary({});
  for (int i = 0; i < 20; ++i)
    data = with_token(data, std::string(65000, static_cast<char>('a' + i)), TokenKind::kControl);
  expect_refused(data, "at most 1048576 are searched for", Code::kUnsupported);
}

TEST(HostileVocabulary, NestedControlTokensAreSearchedInLinearTime) {
  auto data = byte_vocabulary({});
  for (size_t n = 2; n < 1400; ++n)
    data = with_token(std::move(data), std::string(n, 'a'), TokenKind::kControl);
  data =
      with_token(data, "b", TokenKind::kUserDefined);  // so that untrusted text is searched at all
  const auto tokenizer = made(data);
  const std::string text(300'000, 'a');
  const auto start = std::chrono::steady_clock::now();
  encoded(*tokenizer, text);
  EXPECT_LT(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(), 1.0);
}

TEST(HostileVocabulary, ByteTokensThatNameNoByte) {
  for (const char* text : {"<0x-1>", "<0x1FF>", "<0x1>", "<0x+1>", "<0x 1>", "<0xGG>", "<0x00",
                           "0x00", "<0X00>", ""}) {
    expect_refused(with_token(piece_vocabulary({}), text, TokenKind::kByte),
                   "tokenizer.ggml.tokens[259]");
  }
}

TEST(HostileVocabulary, TokenTooLong) {
  expect_refused(with_token(byte_vocabulary(), std::string(1 << 20, 'a'), TokenKind::kNormal),
                 "tokenizer.ggml.tokens[258]");
}

TEST(HostileVocabulary, UnknownPreTokenizer) {
  expect_refused(byte_vocabulary({}, "gpt-9"), "gpt-9", Code::kUnsupported);
}

TEST(HostileVocabulary, EmptyAndRepeatedTokensAreHarmless) {
  auto data = byte_vocabulary();
  for (int i = 0; i < 3; ++i) data = with_token(data, "", TokenKind::kControl);
  for (int i = 0; i < 3; ++i) data = with_token(data, "<dup>", TokenKind::kUserDefined);
  const auto tokenizer = made(data);
  EXPECT_EQ(tokenizer->decode(encoded(*tokenizer, "a<dup>b"), false), "a<dup>b");
}

}  // namespace
}  // namespace tandem
