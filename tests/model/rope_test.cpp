#include "model/rope.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "status_matchers.h"

namespace tandem {
namespace {

ModelShape shape_with(RopeScaling::Kind kind, float factor) {
  ModelShape shape;
  shape.n_rot = 64;
  shape.rope_base = 10000;
  shape.rope_scaling.kind = kind;
  shape.rope_scaling.factor = factor;
  shape.rope_scaling.original_context = 4096;
  return shape;
}

TEST(RopeFrequencies, FallByTheBaseOverThePairs) {
  const auto rope = rope_frequencies(shape_with(RopeScaling::Kind::kNone, 1), {});
  ASSERT_EQ(rope.frequency.size(), 32u);
  EXPECT_DOUBLE_EQ(rope.frequency[0], 1.0);
  EXPECT_NEAR(rope.frequency[16], 0.01, 1e-15);
  EXPECT_DOUBLE_EQ(rope.magnitude, 1.0);
}

TEST(RopeFrequencies, LinearScalingSlowsEveryPairAlike) {
  const auto plain = rope_frequencies(shape_with(RopeScaling::Kind::kNone, 1), {});
  const auto scaled = rope_frequencies(shape_with(RopeScaling::Kind::kLinear, 4), {});
  for (size_t i = 0; i < 32; ++i)
    EXPECT_DOUBLE_EQ(scaled.frequency[i], plain.frequency[i] / 4) << i;
}

TEST(RopeFrequencies, FactorsDivideTheirPairs) {
  std::vector<float> factors(32, 1.0f);
  factors[5] = 8.0f;
  const auto plain = rope_frequencies(shape_with(RopeScaling::Kind::kNone, 1), {});
  const auto scaled = rope_frequencies(shape_with(RopeScaling::Kind::kNone, 1), factors);
  EXPECT_DOUBLE_EQ(scaled.frequency[4], plain.frequency[4]);
  EXPECT_DOUBLE_EQ(scaled.frequency[5], plain.frequency[5] / 8);
}

TEST(RopeFrequencies, FactorsThatAreNotPositiveNumbersAreRefused) {
  for (const float bad : {0.0f, -1.0f, std::numeric_limits<float>::infinity(),
                          std::numeric_limits<float>::quiet_NaN()}) {
    std::vector<float> factors(32, 1.0f);
    factors[7] = bad;
    EXPECT_THAT(check_rope_factors(factors),
                testing::fails_with(Code::kCorrupt, ::testing::HasSubstr("element 7")));
  }
  EXPECT_THAT(check_rope_factors(std::vector<float>(32, 1.0f)), testing::is_ok());
}

TEST(RopeFrequencies, YarnWithoutARampStillSwitchesAtOnePair) {
  ModelShape shape = shape_with(RopeScaling::Kind::kYarn, 4);
  shape.rope_scaling.beta_fast = shape.rope_scaling.beta_slow = 1000;  // low = high
  const auto plain = rope_frequencies(shape_with(RopeScaling::Kind::kNone, 1), {});
  const auto yarn = rope_frequencies(shape, {});
  for (size_t i = 0; i < 32; ++i) {
    ASSERT_TRUE(std::isfinite(yarn.frequency[i]));
    EXPECT_TRUE(yarn.frequency[i] == plain.frequency[i] ||
                yarn.frequency[i] == plain.frequency[i] / 4)
        << i;
  }
  EXPECT_DOUBLE_EQ(yarn.frequency[31], plain.frequency[31] / 4);
}

TEST(RopeFrequencies, YarnKeepsFastPairsStretchesSlowOnesAndRampsBetween) {
  const auto plain = rope_frequencies(shape_with(RopeScaling::Kind::kNone, 1), {});
  const auto yarn = rope_frequencies(shape_with(RopeScaling::Kind::kYarn, 4), {});
  EXPECT_DOUBLE_EQ(yarn.frequency[0], plain.frequency[0]);
  EXPECT_DOUBLE_EQ(yarn.frequency[31], plain.frequency[31] / 4);
  for (size_t i = 0; i < 32; ++i) {
    EXPECT_LE(yarn.frequency[i], plain.frequency[i]) << i;
    EXPECT_GE(yarn.frequency[i], plain.frequency[i] / 4) << i;
  }
  EXPECT_NEAR(yarn.magnitude, 0.1 * std::log(4.0) + 1.0, 1e-12);
}

}  // namespace
}  // namespace tandem
