#include "formats/check_weights.h"

#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

#include "base/blocks.h"
#include "formats/random_weights.h"

namespace tandem {
namespace {

struct Case {
  DType type;
  std::vector<size_t> scale_offsets;  // in a block
  size_t scale_bytes;
};

class CheckWeights : public ::testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    const DTypeInfo& info = dtype_info(GetParam().type);
    block_bytes_ = info.block_bytes;
    weights_.resize((8192 + (info.block_weights == 1 ? 3 : 0)) / info.block_weights *
                    info.block_bytes);
    fill_random(GetParam().type, 0.02f, 1, weights_);
  }
  // An IEEE value with the exponent's bits all set: infinity, or NaN with a bit below.
  void damage(size_t at, bool nan, bool negative) {
    const bool f32 = GetParam().type == DType::kF32;
    const bool bf16 = GetParam().type == DType::kBF16;
    uint32_t bits = f32 ? 0x7f800000u : bf16 ? 0x7f80u : 0x7c00u;
    if (nan) bits |= 1;
    if (negative) bits |= f32 ? 0x80000000u : 0x8000u;
    std::memcpy(weights_.data() + at, &bits, GetParam().scale_bytes);
  }

  size_t block_bytes_ = 0;
  std::vector<std::byte> weights_;
};

INSTANTIATE_TEST_SUITE_P(Types, CheckWeights,
                         ::testing::Values(Case{DType::kF32, {0}, 4}, Case{DType::kF16, {0}, 2},
                                           Case{DType::kBF16, {0}, 2}, Case{DType::kQ4_0, {0}, 2},
                                           Case{DType::kQ8_0, {0}, 2},
                                           Case{DType::kQ4_K, {0, 2}, 2},
                                           Case{DType::kQ6_K, {208}, 2}),
                         [](const auto& param) {
                           return std::string(dtype_info(param.param.type).name);
                         });

TEST_P(CheckWeights, AcceptsFiniteWeights) {
  EXPECT_EQ(find_not_finite(GetParam().type, weights_), std::nullopt);
  EXPECT_EQ(find_not_finite(GetParam().type, {}), std::nullopt);
}

TEST_P(CheckWeights, FindsTheFirstInfinityOrNan) {
  const std::vector<std::byte> good = weights_;
  const size_t n_blocks = good.size() / block_bytes_;
  for (size_t block : {size_t{0}, n_blocks / 2, n_blocks - 1}) {
    for (size_t offset : GetParam().scale_offsets) {
      for (int kind = 0; kind < 4; ++kind) {
        weights_ = good;
        const size_t at = block * block_bytes_ + offset;
        damage(at, (kind & 1) != 0, (kind & 2) != 0);
        EXPECT_EQ(find_not_finite(GetParam().type, weights_), at);
      }
    }
  }
}

TEST_P(CheckWeights, ReportsTheEarlierOfTwo) {
  const size_t offset = GetParam().scale_offsets.back();
  damage(5 * block_bytes_ + offset, true, false);
  damage(3 * block_bytes_ + offset, false, true);
  EXPECT_EQ(find_not_finite(GetParam().type, weights_), 3 * block_bytes_ + offset);
}

}  // namespace
}  // namespace tandem
