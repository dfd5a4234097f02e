#include "device/mirror/mirror_options.h"

#include <string>

#include "status_matchers.h"

namespace tandem::mirror {
namespace {

using testing::fails_with;
using ::testing::HasSubstr;
using testing::is_ok;

struct BadOption {
  const char *text, *said;
};
class MirrorOptionErrors : public ::testing::TestWithParam<BadOption> {};

TEST_P(MirrorOptionErrors, QuoteTheFieldAndWhatIsExpected) {
  EXPECT_THAT(parse_mirror_options(GetParam().text),
              fails_with(Code::kInvalidArgument, HasSubstr(GetParam().said)));
}

INSTANTIATE_TEST_SUITE_P(
    Texts, MirrorOptionErrors,
    ::testing::Values(
        BadOption{"vram=", "vram is ''"}, BadOption{"vram", "vram is ''"},
        BadOption{"vram=-1", "vram is '-1'"}, BadOption{"vram=4XB", "4GiB"},
        BadOption{"vram=0", "vram is '0'"}, BadOption{"link=fast", "12GB/s"},
        BadOption{"link=-1GB/s", "link is"}, BadOption{"link=12GB/s/s", "link is '12GB/s/s'"},
        BadOption{"link=nanGB/s", "link is 'nanGB/s'"}, BadOption{"latency=1e99us", "latency"},
        BadOption{"latency=10ms", "latency is '10ms', expected a time like 10us"},
        BadOption{"timed=", "timed is '', expected a profile's file"},
        BadOption{"order=mad", "random:SEED"}, BadOption{"order=random", "random:SEED"},
        BadOption{"order=random:", "whole number"}, BadOption{"order=random:x", "SEED"},
        BadOption{"order=random:1.5", "order is 'random:1.5', expected random:SEED with a whole"},
        BadOption{"order=random:1e3", "order is 'random:1e3'"},
        BadOption{"order=random:-1", "order is 'random:-1'"},
        BadOption{"order=random:+1", "order is 'random:+1'"},
        BadOption{"order=random: 1", "order is 'random: 1'"},
        BadOption{"order=random:18446744073709551616", "at most 64 bits"},
        BadOption{"poison=1", "poison is 'poison=1', expected the word alone"},
        BadOption{"poison=", "poison is 'poison=', expected the word alone"},
        BadOption{"speed=3", "'speed' is no option, expected vram"},
        BadOption{" vram=1GiB", "' vram' is no option"}, BadOption{"=1", "'' is no option"},
        BadOption{"fail-copy=0", "fail-copy is '0', expected a whole number from 1 on"},
        BadOption{"fail-allocation=1.5", "fail-allocation is '1.5'"},
        BadOption{"fail-operation=", "fail-operation is ''"},
        BadOption{"lost-after=-3", "lost-after is '-3'"}));

INSTANTIATE_TEST_SUITE_P(
    Commas, MirrorOptionErrors,
    ::testing::Values(BadOption{",", "'' is no option, expected one before and behind each comma"},
                      BadOption{"vram=1GiB,", "'' is no option"},
                      BadOption{",vram=1GiB", "'' is no option"},
                      BadOption{"vram=1GiB,,poison", "'' is no option"},
                      BadOption{"vram=1GiB,,", "'' is no option"}));

INSTANTIATE_TEST_SUITE_P(
    Twice, MirrorOptionErrors,
    ::testing::Values(BadOption{"vram=1GiB,vram=2GiB",
                                "'vram=1GiB' and 'vram=2GiB' are both given"},
                      BadOption{"vram=1GiB,vram=1GiB", "expected vram once"},
                      BadOption{"poison,link=1,poison", "'poison' and 'poison' are both given"},
                      BadOption{"order=lazy,order=random:1", "expected order once"},
                      BadOption{"fail-copy=1,fail-copy=2", "expected fail-copy once"}));

TEST(MirrorOptions, AreReadWithTheirUnits) {
  const auto options =
      parse_mirror_options("vram=2GiB,link=12.5GB/s,latency=10us,order=random:9,poison");
  ASSERT_THAT(options, is_ok());
  EXPECT_EQ(uint64_t{2} << 30, options->memory_bytes);
  EXPECT_DOUBLE_EQ(12.5, options->link_gb_per_s);
  EXPECT_DOUBLE_EQ(10, options->latency_us);
  EXPECT_EQ(Order::kRandom, options->order);
  EXPECT_EQ(9u, options->seed);
  EXPECT_TRUE(options->poison);
}

TEST(MirrorOptions, SayWhichFaultsAreInjected) {
  const auto options =
      parse_mirror_options("fail-allocation=1,fail-copy=2,fail-operation=3,lost-after=4");
  ASSERT_THAT(options, is_ok());
  EXPECT_EQ(1u, options->faults.allocation);
  EXPECT_EQ(2u, options->faults.copy);
  EXPECT_EQ(3u, options->faults.operation);
  EXPECT_EQ(4u, options->faults.lost_after_commands);
}

TEST(MirrorOptions, MayAllBeLeftOut) {
  const auto options = parse_mirror_options("");
  ASSERT_THAT(options, is_ok());
  EXPECT_EQ(uint64_t{4} << 30, options->memory_bytes);
  EXPECT_EQ(Order::kThreads, options->order);
  EXPECT_EQ(0u, options->faults.allocation);
}

TEST(MirrorOptions, SeedsHave64Bits) {
  const auto options = parse_mirror_options("order=random:18446744073709551615");
  ASSERT_THAT(options, is_ok());
  EXPECT_EQ(UINT64_MAX, options->seed);
}

TEST(MirrorOptions, QuoteNoMoreThanTheBeginningOfWhatIsLong) {
  const Status status = parse_mirror_options("vram=" + std::string(100000, '9')).status();
  EXPECT_EQ(Code::kInvalidArgument, status.code());
  EXPECT_LT(status.message().size(), 200u);
}

TEST(MirrorProfile, NamesWhatIsWrongInIt) {
  EXPECT_THAT(read_profile("[1]"), fails_with(Code::kCorrupt, HasSubstr("object")));
  EXPECT_THAT(read_profile("{\"version\": 2, \"operations\": {}}"),
              fails_with(Code::kCorrupt, HasSubstr("version")));
  EXPECT_THAT(read_profile("{\"version\": 1}"),
              fails_with(Code::kCorrupt, HasSubstr("operations")));
  EXPECT_THAT(read_profile("{\"version\": 1, \"operations\": {\"fly\": {}}}"),
              fails_with(Code::kCorrupt, HasSubstr("'fly' is no operation")));
  EXPECT_THAT(read_profile("{\"version\": 1, \"operations\": {\"matmul\": {\"gb_per_s\": -1}}}"),
              fails_with(Code::kCorrupt, HasSubstr("matmul.gb_per_s is -1")));
  EXPECT_THAT(read_profile("{\"version\": 1, \"operations\": {\"matmul\": {\"speed\": 1}}}"),
              fails_with(Code::kCorrupt, HasSubstr("matmul.speed")));
  const std::string deep = std::string(100000, '[') + std::string(100000, ']');
  EXPECT_THAT(
      read_profile("{\"version\": 1, \"operations\": {\"matmul\": {\"fixed_us\": " + deep + "}}}"),
      fails_with(Code::kCorrupt, HasSubstr("matmul.fixed_us is array")));
  EXPECT_THAT(read_profile("{\"version\": 1, \"operations\": {\"matmul\": {\"gb_per_s\": 400}}}"),
              is_ok());
}

}  // namespace
}  // namespace tandem::mirror
