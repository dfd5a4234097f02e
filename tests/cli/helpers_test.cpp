#include <gtest/gtest.h>

#include <vector>

#include "../../src/cli/numbers.h"
#include "../../src/cli/suggest.h"
#include "../../src/cli/terminal_text.h"

namespace tandem::cli {
namespace {

TEST(EditDistance, CountsEditsAndSwapsOfNeighbours) {
  EXPECT_EQ(edit_distance("", "abc"), 3u);
  EXPECT_EQ(edit_distance("chat", "chat"), 0u);
  EXPECT_EQ(edit_distance("chta", "chat"), 1u);
  EXPECT_EQ(edit_distance("kitten", "sitting"), 3u);
}

TEST(WithoutControls, TakesOutWhatSteersATerminalAndKeepsText) {
  EXPECT_EQ(without_controls("a\x1b]0;owned\x07z"), "a]0;ownedz");
  EXPECT_EQ(without_controls("line\n\tnext\r\x7f"), "line\n\tnext");
  EXPECT_EQ(without_controls("\xC2\x9B"
                             "31m"),
            "31m");
  EXPECT_EQ(without_steering("a\n\xE2\x80\xAE"
                             "b\xD8\x9C"
                             "c\xE2\x81\xA6\tx\xC2\x9B\xE2\x82\xAC"),
            "a bc x\xE2\x82\xAC");
  EXPECT_EQ(without_controls("\xC2\xA9 \xE2\x82\xAC"), "\xC2\xA9 \xE2\x82\xAC");
}

TEST(Nearest, TakesAnAbbreviationOfThreeLetters) {
  const std::vector<std::string> names = {"perplexity", "tokenize"};
  EXPECT_EQ(nearest("perp", names), "perplexity");
  EXPECT_EQ(nearest("to", names), "");
}

TEST(ParseSize, ReadsBinaryAndDecimalUnits) {
  EXPECT_EQ(parse_size("4096"), 4096u);
  EXPECT_EQ(parse_size("4k"), 4096u);
  EXPECT_EQ(parse_size("8G"), uint64_t{8} << 30);
  EXPECT_EQ(parse_size("8GiB"), uint64_t{8} << 30);
  EXPECT_EQ(parse_size("8GB"), 8000000000u);
  EXPECT_EQ(parse_size("1.5k"), 1536u);
  EXPECT_EQ(parse_size("1.1GB"), 1100000000u);
}

TEST(ParseSize, RefusesWhatIsNoSize) {
  for (const char* text :
       {"", "3.9", "0.3k", "G", "-1", "8X", "8Gx", "1e5", "99999999999T", "k4", "."}) {
    EXPECT_EQ(parse_size(text), std::nullopt) << text;
  }
}

TEST(ParseIds, ReadsCommasAndSpaces) {
  EXPECT_EQ(parse_ids("1,2, 3\n4"), (std::vector<int32_t>{1, 2, 3, 4}));
  EXPECT_EQ(parse_ids("1,-2"), std::nullopt);
  EXPECT_EQ(parse_ids("1 , 2"), (std::vector<int32_t>{1, 2}));
  EXPECT_EQ(parse_ids(" "), std::vector<int32_t>{});
  for (const char* text : {"1,x", "1,,2", ",1", "1,", "1, ,2"}) {
    EXPECT_EQ(parse_ids(text), std::nullopt) << text;
  }
  EXPECT_EQ(parse_ids("99999999999"), std::nullopt);
}

TEST(Numbers, AreShownWithTheDigitsThatMatter) {
  EXPECT_EQ(format_bytes(0), "0 B");
  EXPECT_EQ(format_bytes(11'040'000), "11 MB");
  EXPECT_EQ(format_bytes(17'382'161'728), "17.4 GB");
  EXPECT_EQ(format_count(10'900'000), "11 M");
  EXPECT_EQ(format_count(8'030'000'000), "8.0 B");
  EXPECT_EQ(format_rate(1234.5), "1234");
  EXPECT_EQ(format_rate(0.0123), "0.012");
  EXPECT_EQ(format_time(67.2), "1:08");
  EXPECT_EQ(format_time(3723), "1:02:03");
}

TEST(SpreadOf, GivesMedianAndEnds) {
  const Spread odd = spread_of({3, 1, 2});
  EXPECT_EQ(odd.median, 2);
  EXPECT_EQ(odd.min, 1);
  EXPECT_EQ(odd.max, 3);
  EXPECT_EQ(spread_of({4, 1, 2, 3}).median, 2.5);
}

}  // namespace
}  // namespace tandem::cli
