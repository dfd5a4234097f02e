#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "tests/kernels_cpu/tables.h"

namespace tandem::cpu {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

class RouteTest : public testing::KernelTest {
 protected:
  void route(const std::vector<float>& logits, int64_t U, bool renormalise) {
    ids.assign(static_cast<size_t>(U), -1);
    weights.assign(static_cast<size_t>(U), -1.0f);
    kernels().route(logits.data(), static_cast<int64_t>(logits.size()), U, renormalise, ids.data(),
                    weights.data());
  }
  std::vector<int32_t> ids;
  std::vector<float> weights;
};

TEST_P(RouteTest, TakesTheMostProbableInOrder) {
  route({0, 3, 1, 2}, 3, false);
  EXPECT_EQ(ids, (std::vector<int32_t>{1, 3, 2}));
  const float sum = 1 + std::exp(1.0f) + std::exp(2.0f) + std::exp(3.0f);
  EXPECT_NEAR(weights[0], std::exp(3.0f) / sum, 1e-6);
  EXPECT_NEAR(weights[2], std::exp(1.0f) / sum, 1e-6);
}

TEST_P(RouteTest, RenormalisedWeightsAddUpToOne) {
  route({0, 3, 1, 2}, 2, true);
  EXPECT_NEAR(weights[0] + weights[1], 1.0f, 1e-6);
  EXPECT_NEAR(weights[0] / weights[1], std::exp(1.0f), 1e-5);
}

TEST_P(RouteTest, OfEqualsTheLowerIdWins) {
  route({1, 2, 2, 1, 2, 1}, 4, false);
  EXPECT_EQ(ids, (std::vector<int32_t>{1, 2, 4, 0}));
}

TEST_P(RouteTest, AllExpertsCanBeUsed) {
  route({1, 2, 3}, 3, true);
  EXPECT_EQ(ids, (std::vector<int32_t>{2, 1, 0}));
}

TEST_P(RouteTest, LargeLogitsDoNotOverflow) {
  route({3e38f, -3e38f, -kInfinity}, 2, false);
  EXPECT_EQ(ids, (std::vector<int32_t>{0, 1}));
  EXPECT_EQ(weights, (std::vector<float>{1, 0}));
}

TEST_P(RouteTest, WithoutASoftmaxIdsAreValidAndWeightsNan) {
  for (const std::vector<float>& logits : {std::vector<float>{1, std::nanf(""), 2},
                                           {kInfinity, 1, 2},
                                           {-kInfinity, -kInfinity, -kInfinity},
                                           {std::nanf(""), 1, 2}}) {
    route(logits, 2, true);
    EXPECT_EQ(ids, (std::vector<int32_t>{0, 1}));
    EXPECT_TRUE(std::isnan(weights[0]));
  }
}

TANDEM_FOR_EVERY_ISA(RouteTest);

}  // namespace
}  // namespace tandem::cpu
