#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "tests/kernels_cpu/compare.h"
#include "tests/kernels_cpu/tables.h"

namespace tandem::cpu {
namespace {

using testing::kRounding;
using testing::within;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

std::vector<float> random_floats(int64_t n, float deviation = 1) {
  std::mt19937 random(static_cast<unsigned>(n));
  std::normal_distribution<float> normal(0, deviation);
  std::vector<float> values(static_cast<size_t>(n));
  for (float& value : values) value = normal(random);
  return values;
}

class RmsNormTest : public testing::KernelTest {};

TEST_P(RmsNormTest, AgreesWithDouble) {
  for (const int64_t D : {1, 5, 8, 15, 16, 17, 64, 100, 4096}) {
    const std::vector<float> x = random_floats(D, 3), weight = random_floats(D + 1);
    std::vector<float> y(x.size() + 1, 7.0f);
    kernels().rms_norm(x.data(), weight.data(), 1e-6f, y.data(), D);
    double squares = 0;
    for (const float value : x) squares += double{value} * double{value};
    const double scale = 1 / std::sqrt(squares / static_cast<double>(D) + double{1e-6f});
    for (size_t i = 0; i < x.size(); ++i) {
      const double expected = double{x[i]} * scale * double{weight[i]};
      ASSERT_TRUE(within(4 * kRounding * std::abs(expected), y[i], static_cast<float>(expected)));
    }
    EXPECT_EQ(y.back(), 7.0f);
  }
}

TEST_P(RmsNormTest, WorksInPlaceAndOnZerosAndOnLargeValues) {
  std::vector<float> x(33, 1e30f), weight(33, 2.0f);
  kernels().rms_norm(x.data(), weight.data(), 1e-6f, x.data(), 33);
  for (const float value : x) EXPECT_FLOAT_EQ(value, 2.0f);
  std::vector<float> zeros(33);
  kernels().rms_norm(zeros.data(), weight.data(), 1e-6f, zeros.data(), 33);
  for (const float value : zeros) EXPECT_EQ(value, 0.0f);
}

TANDEM_FOR_EVERY_ISA(RmsNormTest);

class SiluMulTest : public testing::KernelTest {
 protected:
  float silu(float gate) const {
    const float up = 1;
    float y = 0;
    kernels().silu_mul(&gate, &up, &y, 1);
    return y;
  }
};

// exp is off by at most 2^-22 of itself, the quotient by no more; three roundings follow.
TEST_P(SiluMulTest, AgreesWithDouble) {
  for (const int64_t n : {1, 7, 8, 9, 16, 31, 20000}) {
    const std::vector<float> gate = random_floats(n, 20), up = random_floats(n + 1);
    std::vector<float> y(gate.size() + 1, 7.0f);
    kernels().silu_mul(gate.data(), up.data(), y.data(), n);
    for (size_t i = 0; i < gate.size(); ++i) {
      const double expected = double{gate[i]} / (1 + std::exp(-double{gate[i]})) * double{up[i]};
      ASSERT_TRUE(within((0x1p-22 + 4 * kRounding) * std::abs(expected) + 0x1p-126, y[i],
                         static_cast<float>(expected)))
          << gate[i];
    }
    EXPECT_EQ(y.back(), 7.0f);
  }
}

TEST_P(SiluMulTest, HasTheRightLimits) {
  EXPECT_EQ(silu(1e30f), 1e30f);
  EXPECT_EQ(silu(kInfinity), kInfinity);
  EXPECT_EQ(silu(0.0f), 0.0f);
  EXPECT_NEAR(silu(-1e4f), 0.0f, 1e-30);
  EXPECT_NEAR(silu(-1e30f), 0.0f, 1e-30);
  EXPECT_TRUE(std::isnan(silu(std::nanf(""))));
}

TANDEM_FOR_EVERY_ISA(SiluMulTest);

class SumsTest : public testing::KernelTest {};

TEST_P(SumsTest, AddAndScaledAddChangeExactlyNValues) {
  std::vector<float> y = {1, 2, 3, 4}, x = {10, 20, 30, 40};
  kernels().add(y.data(), x.data(), 3);
  EXPECT_EQ(y, (std::vector<float>{11, 22, 33, 4}));
  kernels().scaled_add(y.data(), x.data(), -0.5f, 2);
  EXPECT_EQ(y, (std::vector<float>{6, 12, 33, 4}));
}

TANDEM_FOR_EVERY_ISA(SumsTest);

class RopeTest : public testing::KernelTest {};

// A quarter turn sends (a, b) to (-b, a).
const std::vector<float> kCosines = {0, 1}, kSines = {1, 0};

TEST_P(RopeTest, NormalTurnsNeighbours) {
  std::vector<float> x = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
  kernels().rope_normal(x.data(), kCosines.data(), kSines.data(), 2, 6, 4);
  EXPECT_EQ(x, (std::vector<float>{-2, 1, 3, 4, 5, 6, -8, 7, 9, 10, 11, 12}));
}

TEST_P(RopeTest, NeoxTurnsHalves) {
  std::vector<float> x = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
  kernels().rope_neox(x.data(), kCosines.data(), kSines.data(), 2, 6, 4);
  EXPECT_EQ(x, (std::vector<float>{-3, 2, 1, 4, 5, 6, -9, 8, 7, 10, 11, 12}));
}

TEST_P(RopeTest, KeepsLengths) {
  std::vector<float> x = random_floats(64), cosines, sines;
  double before = 0, after = 0;
  for (const float value : x) before += double{value} * double{value};
  for (int i = 0; i < 32; ++i) {
    cosines.push_back(std::cos(static_cast<float>(i)));
    sines.push_back(std::sin(static_cast<float>(i)));
  }
  kernels().rope_neox(x.data(), cosines.data(), sines.data(), 1, 64, 64);
  kernels().rope_normal(x.data(), cosines.data(), sines.data(), 1, 64, 64);
  for (const float value : x) after += double{value} * double{value};
  EXPECT_NEAR(after / before, 1, 8 * kRounding * 2);
}

TANDEM_FOR_EVERY_ISA(RopeTest);

}  // namespace
}  // namespace tandem::cpu
