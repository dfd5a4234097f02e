#include "runtime/answer_text.h"

#include <gtest/gtest.h>

namespace tandem {
namespace {

// All that is given out, piece by piece, joined with '|'.
std::string pieces(AnswerText& answer, const std::vector<std::string>& tokens,
                   bool* stopped = nullptr) {
  std::string joined;
  bool stop = false;
  for (const std::string& token : tokens) {
    std::string out;
    stop = answer.push(token, out);
    joined += out + "|";
    if (stop) break;
  }
  if (!stop) answer.finish(joined);
  if (stopped != nullptr) *stopped = stop;
  return joined;
}

TEST(AnswerText, GivesCharactersOnlyWhole) {
  AnswerText answer({});
  EXPECT_EQ("a||\xC3\xA9|||\xE2\x82\xAC|",
            pieces(answer, {"a", "\xC3", "\xA9", "\xE2", "\x82", "\xAC"}));
}

TEST(AnswerText, ReplacesWhatCannotBecomeACharacter) {
  AnswerText answer({});
  EXPECT_EQ("a|\xEF\xBF\xBD|b|", pieces(answer, {"a", "\xFF", "b"}));
  AnswerText cut({});
  EXPECT_EQ("a||\xEF\xBF\xBD", pieces(cut, {"a", "\xE2\x82"}));
}

TEST(AnswerText, WithholdsTheBeginningOfAStopText) {
  AnswerText answer({"stop"});
  bool stopped = false;
  EXPECT_EQ("a|||stx|", pieces(answer, {"a", "s", "t", "x"}, &stopped));
  EXPECT_FALSE(stopped);
}

TEST(AnswerText, CutsBeforeAStopTextAcrossTokens) {
  AnswerText answer({"stop"});
  bool stopped = false;
  EXPECT_EQ("a ||", pieces(answer, {"a s", "top and more"}, &stopped));
  EXPECT_TRUE(stopped);
}

TEST(AnswerText, CutsBeforeTheFirstOfSeveral) {
  AnswerText answer({"yes", "no"});
  EXPECT_EQ("a |", pieces(answer, {"a no yes"}));
}

TEST(AnswerText, FindsAStopTextThatBeginsInsideAFalseStart) {
  AnswerText answer({"aab"});
  bool stopped = false;
  EXPECT_EQ("||a|", pieces(answer, {"a", "a", "ab"}, &stopped));
  EXPECT_TRUE(stopped);
}

TEST(AnswerText, GivesAFalseStartInTheEnd) {
  AnswerText answer({"stop"});
  EXPECT_EQ("a |sto", pieces(answer, {"a sto"}));
}

TEST(AnswerText, AStopTextOfHalfCharactersBordersIsFound) {
  AnswerText answer({"\xC3\xA9"});
  bool stopped = false;
  EXPECT_EQ("caf||", pieces(answer, {"caf\xC3", "\xA9"}, &stopped));
  EXPECT_TRUE(stopped);
}

}  // namespace
}  // namespace tandem
