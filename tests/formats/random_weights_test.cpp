#include "formats/random_weights.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <vector>

#include "base/blocks.h"

namespace tandem {
namespace {

// Exact, by the definition of binary16.
double half_value(Half bits) {
  const int exponent = bits >> 10 & 31;
  const double fraction = bits & 1023;
  const double magnitude =
      exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25);
  return (bits & 0x8000) != 0 ? -magnitude : magnitude;
}

template <typename T>
std::vector<T> items(const std::vector<std::byte>& bytes) {
  std::vector<T> out(bytes.size() / sizeof(T));
  std::memcpy(out.data(), bytes.data(), out.size() * sizeof(T));
  return out;
}

void weights_of(const BlockQ4_0& b, std::vector<double>& out) {
  for (int i = 0; i < 32; ++i) {
    const int q = i < 16 ? b.qs[i] & 15 : b.qs[i - 16] >> 4;
    out.push_back(half_value(b.d) * (q - 8));
  }
}

void weights_of(const BlockQ8_0& b, std::vector<double>& out) {
  for (int q : b.qs) out.push_back(half_value(b.d) * q);
}

// As base/blocks.h describes it.
void weights_of(const BlockQ4_K& b, std::vector<double>& out) {
  for (int i = 0; i < 256; ++i) {
    const int j = i / 32;
    int scale = b.scales[j % 4] & 63, min = b.scales[j % 4 + 4] & 63;
    if (j >= 4) {
      scale = (b.scales[j + 4] & 15) | (b.scales[j - 4] >> 6 << 4);
      min = (b.scales[j + 4] >> 4) | (b.scales[j] >> 6 << 4);
    }
    const uint8_t byte = b.qs[j / 2 * 32 + i % 32];
    const int q = j % 2 == 0 ? byte & 15 : byte >> 4;
    out.push_back(half_value(b.d) * scale * q - half_value(b.dmin) * min);
  }
}

void weights_of(const BlockQ6_K& b, std::vector<double>& out) {
  for (int i = 0; i < 256; ++i) {
    const int half = i / 128, k = i % 128 / 32, column = i % 32;
    const uint8_t low = b.ql[half * 64 + (k % 2) * 32 + column];
    const int q = (k < 2 ? low & 15 : low >> 4) | (b.qh[half * 32 + column] >> (2 * k) & 3) << 4;
    out.push_back(half_value(b.d) * b.scales[i / 16] * (q - 32));
  }
}

template <typename Block>
std::vector<double> weights_of_blocks(const std::vector<std::byte>& bytes) {
  std::vector<double> out;
  for (const Block& block : items<Block>(bytes)) weights_of(block, out);
  return out;
}

std::vector<double> weights_of(DType type, const std::vector<std::byte>& bytes) {
  std::vector<double> out;
  switch (type) {
    case DType::kF32:
      for (float x : items<float>(bytes)) out.push_back(static_cast<double>(x));
      return out;
    case DType::kF16:
      for (Half x : items<Half>(bytes)) out.push_back(half_value(x));
      return out;
    case DType::kBF16:
      for (uint16_t x : items<uint16_t>(bytes)) {
        out.push_back(static_cast<double>(std::bit_cast<float>(static_cast<uint32_t>(x) << 16)));
      }
      return out;
    case DType::kQ4_0:
      return weights_of_blocks<BlockQ4_0>(bytes);
    case DType::kQ8_0:
      return weights_of_blocks<BlockQ8_0>(bytes);
    case DType::kQ4_K:
      return weights_of_blocks<BlockQ4_K>(bytes);
    case DType::kQ6_K:
      return weights_of_blocks<BlockQ6_K>(bytes);
  }
  return out;
}

class RandomWeights : public ::testing::TestWithParam<DType> {
 protected:
  static std::vector<std::byte> fill(float deviation, uint64_t seed) {
    const DTypeInfo& info = dtype_info(GetParam());
    std::vector<std::byte> bytes(256 * 1024 / info.block_weights * info.block_bytes);
    fill_random(GetParam(), deviation, seed, bytes);
    return bytes;
  }
};

INSTANTIATE_TEST_SUITE_P(Types, RandomWeights,
                         ::testing::Values(DType::kF32, DType::kF16, DType::kBF16, DType::kQ4_0,
                                           DType::kQ8_0, DType::kQ4_K, DType::kQ6_K),
                         [](const auto& param) {
                           return std::string(dtype_info(param.param).name);
                         });

TEST_P(RandomWeights, HaveMeanZeroAndTheChosenSpread) {
  for (float deviation : {1.0f, 1 / std::sqrt(2048.0f), 1 / std::sqrt(28672.0f)}) {
    const std::vector<double> weights = weights_of(GetParam(), fill(deviation, 3));
    ASSERT_EQ(weights.size(), 256u * 1024);
    double sum = 0, squares = 0, largest = 0;
    for (double w : weights) {
      sum += w;
      squares += w * w;
      largest = std::max(largest, std::fabs(w));
    }
    const double n = static_cast<double>(weights.size());
    const double found = std::sqrt(squares / n);
    // The sample's own error is 1/sqrt(n) = 0.2 % of the deviation; signs per block of 32 make the
    // mean's error up to 1.6 % of the group's mean of a tenth.  Half-precision scales add 0.5 %.
    EXPECT_NEAR(found / static_cast<double>(deviation), 1.0, 0.015) << deviation;
    EXPECT_LT(std::fabs(sum / n), 0.01 * static_cast<double>(deviation));
    EXPECT_LT(largest, 5 * static_cast<double>(deviation));
  }
}

TEST_P(RandomWeights, FollowTheSeed) {
  EXPECT_EQ(fill(0.02f, 5), fill(0.02f, 5));
  EXPECT_NE(fill(0.02f, 5), fill(0.02f, 6));
}

}  // namespace
}  // namespace tandem
