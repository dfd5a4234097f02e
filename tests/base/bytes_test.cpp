#include "base/bytes.h"

#include "status_matchers.h"

namespace tandem {
namespace {

using testing::fails_with;
using ::testing::HasSubstr;

TEST(ParseBytes, TakesBinaryAndDecimalUnits) {
  EXPECT_EQ(*parse_bytes("8G"), 8 * kGiB);
  EXPECT_EQ(*parse_bytes("8GiB"), 8 * kGiB);
  EXPECT_EQ(*parse_bytes("8GB"), 8000000000u);
  EXPECT_EQ(*parse_bytes("1.5 MiB"), kMiB * 3 / 2);
  EXPECT_EQ(*parse_bytes("4096"), 4096u);
  EXPECT_EQ(*parse_bytes("0"), 0u);
}

TEST(ParseBytes, RefusesWhatIsNotASizeAndQuotesIt) {
  for (const char* text : {"", "G", "8X", "8Gx", "-1", "nan", "1e30G", "99999999999P", "8 G 1"}) {
    EXPECT_THAT(parse_bytes(text), fails_with(Code::kInvalidArgument, HasSubstr(text))) << text;
  }
}

TEST(FormatBytes, UsesTheUnitsDrivesAreSoldIn) {
  EXPECT_EQ(format_bytes(0), "0 B");
  EXPECT_EQ(format_bytes(999), "999 B");
  EXPECT_EQ(format_bytes(11'000'000), "11.0 MB");
  EXPECT_EQ(format_bytes(17'379'000'320), "17.4 GB");
  EXPECT_EQ(format_bytes(UINT64_MAX), "18447 PB");
}

}  // namespace
}  // namespace tandem
