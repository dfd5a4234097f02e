#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "tests/kernels_cpu/tables.h"

namespace tandem::cpu {
namespace {

class QuantizeTest : public testing::KernelTest {
 protected:
  std::vector<BlockQ8A> quantize(const std::vector<float>& x) const {
    std::vector<BlockQ8A> q(x.size() / 32);
    kernels().quantize_q8a(x.data(), q.data(), static_cast<int64_t>(x.size()));
    return q;
  }
  BlockQ8A quantize_one(std::initializer_list<float> first) const {
    std::vector<float> x(first);
    x.resize(32);
    return quantize(x)[0];
  }
};

TEST_P(QuantizeTest, HasTheBitsOfScalar) {
  std::mt19937 random(1);
  std::vector<float> x(32 * 4000);
  for (size_t b = 0; b < x.size() / 32; ++b) {
    const float scale = std::ldexp(1.0f, static_cast<int>(random() % 240) - 126);
    for (size_t i = 0; i < 32; ++i) {
      std::normal_distribution<float> normal;
      x[b * 32 + i] = normal(random) * scale;
      if (random() % 2000 == 0) x[b * 32 + i] = std::numeric_limits<float>::infinity();
      if (random() % 2000 == 0) x[b * 32 + i] = std::nanf("");
    }
  }
  const std::vector<BlockQ8A> actual = quantize(x);
  std::vector<BlockQ8A> expected(actual.size());
  table_for(Isa::kScalar)->quantize_q8a(x.data(), expected.data(), static_cast<int64_t>(x.size()));
  for (size_t b = 0; b < actual.size(); ++b)
    ASSERT_EQ(0, std::memcmp(&actual[b], &expected[b], sizeof actual[b])) << "block " << b;
}

TEST_P(QuantizeTest, StaysWithinHalfAStep) {
  std::mt19937 random(2);
  std::normal_distribution<float> normal;
  std::vector<float> x(32 * 500);
  for (float& value : x) value = normal(random);
  const std::vector<BlockQ8A> q = quantize(x);
  for (size_t i = 0; i < x.size(); ++i) {
    const BlockQ8A& block = q[i / 32];
    ASSERT_LE(std::abs(x[i] - block.d * static_cast<float>(block.qs[i % 32])), block.d * 0.50002f);
  }
}

TEST_P(QuantizeTest, SumIsTheSumOfTheIntegers) {
  const BlockQ8A block = quantize_one({127, -3, 5, -127, 100});
  EXPECT_EQ(block.d, 1.0f);
  EXPECT_EQ(block.sums[0] + block.sums[1], 127 - 3 + 5 - 127 + 100);
}

TEST_P(QuantizeTest, RoundsTiesToEven) {
  const BlockQ8A block = quantize_one({127, 0.5f, 1.5f, 2.5f, -0.5f, -1.5f, -2.5f});
  const int expected[7] = {127, 0, 2, 2, 0, -2, -2};
  for (int i = 0; i < 7; ++i) EXPECT_EQ(block.qs[i], expected[i]) << i;
}

TEST_P(QuantizeTest, LargestFloatFits) {
  const float max = std::numeric_limits<float>::max();
  const BlockQ8A block = quantize_one({max, -max, max / 2});
  EXPECT_EQ(block.qs[0], 127);
  EXPECT_EQ(block.qs[1], -127);
  EXPECT_TRUE(std::isfinite(block.d));
}

TEST_P(QuantizeTest, ZeroAndTheVerySmallBecomeZero) {
  for (const float x : {0.0f, -0.0f, 1e-45f, 0x1p-126f, 0x1.fffffep-119f}) {
    const BlockQ8A block = quantize_one({x});
    EXPECT_EQ(block.d, 0.0f);
    EXPECT_EQ(block.qs[0], 0);
  }
  EXPECT_EQ(quantize_one({0x1p-118f}).qs[0], 127);
}

TEST_P(QuantizeTest, NanAndInfinityMakeTheScaleNan) {
  for (const float x : {std::numeric_limits<float>::infinity(),
                        -std::numeric_limits<float>::infinity(), std::nanf("")}) {
    const BlockQ8A block = quantize_one({1.0f, x, 2.0f});
    EXPECT_TRUE(std::isnan(block.d));
    EXPECT_EQ(block.sums[0] + block.sums[1], 0);
  }
}

TANDEM_FOR_EVERY_ISA(QuantizeTest);

}  // namespace
}  // namespace tandem::cpu
