#include "base/dtype.h"

#include <gtest/gtest.h>

namespace tandem {
namespace {

TEST(DType, KnowsSizesOfComputedTypes) {
  EXPECT_EQ(dtype_info(DType::kQ4_K).block_bytes, 144u);
  EXPECT_EQ(dtype_info(DType::kQ6_K).block_weights, 256u);
  EXPECT_TRUE(dtype_info(DType::kBF16).computed);
}

TEST(DType, RecognisesTypesItCannotCompute) {
  const auto type = dtype_info(uint32_t{13});
  ASSERT_TRUE(type.has_value());
  EXPECT_EQ(type->name, "q5_k");
  EXPECT_FALSE(type->computed);
}

TEST(DType, RetiredAndUnknownNumbersAreNothing) {
  for (uint32_t id : {4u, 5u, 31u, 36u, 1000u, UINT32_MAX}) EXPECT_FALSE(dtype_info(id)) << id;
}

TEST(DType, NamesAreFoundWhateverTheirCase) {
  EXPECT_EQ(dtype_from_name("Q4_K"), DType::kQ4_K);
  EXPECT_EQ(dtype_from_name("bf16"), DType::kBF16);
  EXPECT_FALSE(dtype_from_name("q5_k").has_value());
}

}  // namespace
}  // namespace tandem
