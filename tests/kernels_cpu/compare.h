// Compares what two kernels gave, with a bound that comes from the arithmetic.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

namespace tandem::cpu::testing {

// Unit of rounding of float32: a rounded result is off by at most this share of itself.
inline constexpr double kRounding = 0x1p-24;

// Finite values at most `bound` apart, the same infinity, or both NaN.
inline ::testing::AssertionResult within(double bound, float actual, float expected) {
  if (std::isnan(actual) || std::isnan(expected)) {
    if (std::isnan(actual) && std::isnan(expected)) return ::testing::AssertionSuccess();
    return ::testing::AssertionFailure()
           << actual << " and " << expected << ": one is not a number";
  }
  if (std::isinf(actual) || std::isinf(expected)) {
    if (actual == expected) return ::testing::AssertionSuccess();
    return ::testing::AssertionFailure() << actual << " is not " << expected;
  }
  if (!(bound >= 0)) return ::testing::AssertionFailure() << "the bound is " << bound;
  const double difference = std::abs(double{actual} - double{expected});
  if (difference <= bound) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure()
         << actual << " is " << difference << " from " << expected << ", more than " << bound;
}

inline bool same_bits(float a, float b) { return std::memcmp(&a, &b, sizeof a) == 0; }

}  // namespace tandem::cpu::testing
