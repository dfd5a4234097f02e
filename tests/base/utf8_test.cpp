#include "base/utf8.h"

#include <gtest/gtest.h>

#include <random>

namespace tandem::utf8 {
namespace {

using namespace std::string_literals;

std::string streamed(std::string_view bytes, size_t step) {
  Utf8Stream stream;
  std::string out;
  for (size_t at = 0; at < bytes.size(); at += step) {
    stream.push(bytes.substr(at, step), out);
    EXPECT_TRUE(is_valid(out)) << "a part of a character was handed on";
    EXPECT_LE(stream.held_bytes(), 3u);
  }
  stream.finish(out);
  return out;
}

TEST(Utf8, AcceptsEveryCodePointAndGivesItBack) {
  for (char32_t c = 0; c <= 0x10FFFF; ++c) {
    if (c >= 0xD800 && c <= 0xDFFF) continue;
    std::string text;
    append(c, text);
    const Character character = decode(text);
    ASSERT_EQ(character.state, Character::State::kWhole) << static_cast<uint32_t>(c);
    ASSERT_TRUE(character.code_point == c) << static_cast<uint32_t>(c);
    ASSERT_EQ(character.length, text.size());
  }
}

TEST(Utf8, RefusesWhatTheStandardRefuses) {
  EXPECT_FALSE(is_valid("\x80"));              // a continuation alone
  EXPECT_FALSE(is_valid("\xC0\x80"));          // overlong NUL
  EXPECT_FALSE(is_valid("\xE0\x9F\xBF"));      // overlong
  EXPECT_FALSE(is_valid("\xF0\x8F\xBF\xBF"));  // overlong
  EXPECT_FALSE(is_valid("\xED\xA0\x80"));      // a surrogate
  EXPECT_FALSE(is_valid("\xF4\x90\x80\x80"));  // above 10FFFF
  EXPECT_FALSE(is_valid("\xF5\x80\x80\x80"));
  EXPECT_FALSE(is_valid("abcdefgh\xFF"));
  EXPECT_FALSE(is_valid("\xE2\x82"));  // cut off
  EXPECT_TRUE(is_valid("a\0b\x7F\xC2\x80\xF4\x8F\xBF\xBF"s));
  EXPECT_TRUE(is_valid(""));
}

TEST(Utf8, CompleteLengthStopsBeforeACutOffCharacter) {
  EXPECT_EQ(complete_length(""), 0u);
  EXPECT_EQ(complete_length("ab"), 2u);
  EXPECT_EQ(complete_length("a\xE2\x82"), 1u);
  EXPECT_EQ(complete_length("a\xE2\x82\xAC"), 4u);
  EXPECT_EQ(complete_length("\xF0\x9F\xA6"), 0u);
  EXPECT_EQ(complete_length("a\x80\x80\x80\x80"), 5u) << "invalid bytes wait for nothing";
  EXPECT_EQ(complete_length("a\xED\xA0"), 3u) << "a surrogate cannot be completed";
}

TEST(Utf8Stream, GivesWholeCharactersWhateverTheCuts) {
  const std::string text = "a\xC3\xBC\xE2\x82\xAC\xF0\x9F\xA6\x99z\0!"s;
  for (size_t step = 1; step <= text.size(); ++step) EXPECT_EQ(streamed(text, step), text);
}

TEST(Utf8Stream, ReplacesEachMaximalSubpartOnce) {
  const std::string r(kReplacement);
  for (size_t step = 1; step <= 8; ++step) {
    EXPECT_EQ(streamed("a\xFFz", step), "a" + r + "z");
    EXPECT_EQ(streamed("\xE2\x82z", step), r + "z");
    EXPECT_EQ(streamed("\xED\xA0\x80", step), r + r + r);
    EXPECT_EQ(streamed("\xF0\x9F\xA6\xF0\x9F\xA6\x99", step), r + "\xF0\x9F\xA6\x99");
    EXPECT_EQ(streamed("a\xF0\x9F", step), "a" + r);
  }
}

TEST(Utf8Stream, TakesRandomBytesTheSameInAnyCuts) {
  std::mt19937 random(7);
  const std::string pool = "a\x80\xBF\xC2\xE0\xA0\xED\xF0\x90\xF4\x8F\xFF"s;
  for (int round = 0; round < 3000; ++round) {
    std::string bytes;
    for (size_t i = 0, n = random() % 12; i < n; ++i) bytes.push_back(pool[random() % pool.size()]);
    const std::string whole = streamed(bytes, 100);
    for (size_t step = 1; step < 5; ++step) ASSERT_EQ(streamed(bytes, step), whole);
  }
}

}  // namespace
}  // namespace tandem::utf8
