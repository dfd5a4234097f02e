#include "text/pre_tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <string>

#include "status_matchers.h"
#include "text_fixtures.h"

namespace tandem {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using testing::fails_with;
using ::testing::HasSubstr;
using testing::is_ok;
using namespace std::string_literals;

PreTokenizer made(std::string_view name, bool allow_jit = true) {
  auto made = PreTokenizer::create(name, allow_jit);
  EXPECT_THAT(made, is_ok());
  return std::move(*made);
}

std::vector<std::string> words(const PreTokenizer& pre_tokenizer, std::string_view text) {
  std::vector<uint32_t> ends;
  EXPECT_THAT(pre_tokenizer.split(text, CancelFlag(), ends), is_ok());
  std::vector<std::string> parts;
  size_t begin = 0;
  for (const uint32_t end : ends) {
    parts.emplace_back(text.substr(begin, end - begin));
    begin = end;
  }
  EXPECT_EQ(begin, text.size());
  return parts;
}

std::vector<std::string> words(std::string_view name, std::string_view text) {
  return words(made(name), text);
}

TEST(PreTokenizer, RefusesAnUnknownNameAndListsTheKnown) {
  EXPECT_THAT(
      PreTokenizer::create("tekken-9"),
      fails_with(Code::kUnsupported, AllOf(HasSubstr("\"tekken-9\""), HasSubstr("llama-bpe"),
                                           HasSubstr("qwen2"), HasSubstr("gpt-2"))));
}

TEST(PreTokenizer, CutsLikeGpt2) {
  EXPECT_THAT(words("gpt-2", "I've 1234 cats!!  ok\n\n x"),
              ElementsAre("I", "'ve", " 1234", " cats", "!!", " ", " ok", "\n\n", " x"));
  EXPECT_THAT(words("gpt-2", "'RE"), ElementsAre("'", "RE")) << "only small letters contract";
}

TEST(PreTokenizer, CutsLikeLlama3) {
  EXPECT_THAT(words("llama-bpe", "I'VE 1234 cats!!\n  ok \n\n  x\t(y"),
              ElementsAre("I", "'VE", " ", "123", "4", " cats", "!!\n", " ", " ok", " \n\n", " ",
                          " x", "\t", "(y"));
  EXPECT_EQ(words("llama3", "a 12345"), words("llama-bpe", "a 12345"));
  EXPECT_EQ(words("llama-v3", "a 12345"), words("llama-bpe", "a 12345"));
}

TEST(PreTokenizer, CutsLikeQwen2WithDigitsApart) {
  EXPECT_THAT(words("qwen2", "a 123"), ElementsAre("a", " ", "1", "2", "3"));
}

TEST(PreTokenizer, DefaultSetsPunctuationApartAndDigitsByThree) {
  EXPECT_THAT(words("", "x=12345, y"), ElementsAre("x", "=", "123", "45", ",", " y"));
  EXPECT_EQ(words("", "a+ b"), words("default", "a+ b"));
}

TEST(PreTokenizer, NextLineAndIdeographicSpaceAreWhiteSpace) {
  EXPECT_THAT(words("gpt-2", "a\xC2\x85\xE3\x80\x80z"),
              ElementsAre("a", "\xC2\x85", "\xE3\x80\x80", "z"));
}

TEST(PreTokenizer, KeepsBytesThatAreNotUtf8AsSymbols) {
  EXPECT_THAT(words("gpt-2", "ab\xFF\xFE c\xED\xA0\x80"s),
              ElementsAre("ab", "\xFF\xFE", " c", "\xED\xA0\x80"));
  EXPECT_THAT(words("gpt-2", "a\0\0b"s), ElementsAre("a", "\0\0"s, "b"));
}

// Runs that made other implementations quadratic, overflow their stack or hit a limit.
std::vector<std::string> hard_texts(size_t n) {
  const auto repeated = [n](std::string unit) {
    std::string text;
    while (text.size() < n) text += unit;
    return text;
  };
  return {repeated(" "),
          repeated("\n"),
          repeated("a"),
          repeated("7"),
          repeated("!"),
          repeated("'"),
          repeated("\r\n"),
          repeated(" \n"),
          repeated("  a"),
          repeated("\xCC\x81"),  // combining acute accents alone
          repeated("e\xCC\x81"),
          repeated("\xE4\xB8\xAD"),
          repeated("\xFF"),
          repeated("\t \xC2\xA0"),
          repeated(" ") + "a",
          repeated(" ") + "\n",
          repeated("\n") + " a",
          repeated("'s"),
          repeated("a1 !\n"),
          repeated("\xF0\x9F\xA6\x99"),
          repeated(std::string(1, '\0'))};
}

double seconds_to_split(const PreTokenizer& pre_tokenizer, std::string_view text) {
  std::vector<uint32_t> ends;
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_THAT(pre_tokenizer.split(text, CancelFlag(), ends), is_ok());
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
  return took.count();
}

TEST(PreTokenizer, MillionCharactersOfOneKindTakeNeitherLongNorFail) {
  for (const char* name : {"gpt-2", "llama-bpe", "qwen2", "default"}) {
    for (const bool jit : {true, false}) {
      const PreTokenizer pre_tokenizer = made(name, jit);
      // Interpreted it is ten times slower, and a fifth of the text shows quadratic time as well.
      for (const std::string& text :
           hard_texts(jit ? testing::kLongText : testing::kLongText / 5)) {
        // Quadratic time would be minutes; the allowance is for sanitizers and busy machines.
        EXPECT_LT(seconds_to_split(pre_tokenizer, text), 20.0)
            << name << " jit " << jit << " " << text.substr(0, 8);
      }
    }
  }
}

TEST(PreTokenizer, InterpretedAndCompiledPatternsAgree) {
  for (const char* name : {"gpt-2", "llama-bpe", "qwen2", "default"}) {
    const PreTokenizer compiled = made(name), interpreted = made(name, false);
    EXPECT_FALSE(interpreted.compiled_to_machine_code());
    for (const std::string& text : hard_texts(300)) {
      EXPECT_EQ(words(compiled, text), words(interpreted, text)) << name;
    }
  }
}

}  // namespace
}  // namespace tandem
