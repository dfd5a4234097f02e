#include "tests/kernels_cpu/compare.h"

#include <limits>

namespace tandem::cpu::testing {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

TEST(CompareTest, AcceptsWhatIsWithinTheBound) {
  EXPECT_TRUE(within(0.5, 1.0f, 1.5f));
  EXPECT_TRUE(within(0.0, -2.0f, -2.0f));
}

TEST(CompareTest, RefusesWhatIsOutsideTheBoundOnEitherSide) {
  EXPECT_FALSE(within(0.4, 1.0f, 1.5f));
  EXPECT_FALSE(within(0.4, 1.5f, 1.0f));
  EXPECT_FALSE(within(0.4, -1.0f, -1.5f));
  EXPECT_FALSE(within(0.4, -1.5f, -1.0f));
  EXPECT_FALSE(within(1.9, -1.0f, 1.0f));
}

TEST(CompareTest, RefusesNanBesideANumber) {
  EXPECT_FALSE(within(kInfinity, kNan, 1.0f));
  EXPECT_FALSE(within(kInfinity, 1.0f, kNan));
  EXPECT_TRUE(within(0.0, kNan, kNan));
}

TEST(CompareTest, RefusesInfinityBesideAnythingElse) {
  EXPECT_FALSE(within(kInfinity, kInfinity, 1.0f));
  EXPECT_FALSE(within(kInfinity, kInfinity, -kInfinity));
  EXPECT_FALSE(within(kInfinity, kInfinity, kNan));
  EXPECT_TRUE(within(0.0, -kInfinity, -kInfinity));
}

TEST(CompareTest, RefusesABoundThatIsNone) {
  EXPECT_FALSE(within(static_cast<double>(kNan), 1.0f, 1.0f));
  EXPECT_FALSE(within(-1.0, 1.0f, 1.0f));
}

TEST(CompareTest, BitsTellZerosApart) {
  EXPECT_FALSE(same_bits(0.0f, -0.0f));
  EXPECT_TRUE(same_bits(kNan, kNan));
}

}  // namespace
}  // namespace tandem::cpu::testing
