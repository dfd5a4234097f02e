#include "base/cpu_features.h"

#include <gtest/gtest.h>

namespace tandem {
namespace {

TEST(CpuFeatures, NameTheProcessorAndItsInstructionSets) {
  const CpuFeatures features = read_cpu_features();
  EXPECT_EQ(features.vendor.size(), 12u);
  for (const std::string& name : features.instruction_sets) {
    EXPECT_EQ(name.find(' '), name.npos);
    EXPECT_TRUE(features.has(name));
  }
  EXPECT_FALSE(features.has("avx51"));
  EXPECT_FALSE(features.has(""));
}

// The compiler's run-time library asks CPUID and XGETBV on its own.
TEST(CpuFeatures, AgreeWithTheCompiler) {
  const CpuFeatures features = read_cpu_features();
  EXPECT_EQ(features.has("sse4_2"), __builtin_cpu_supports("sse4.2") != 0);
  EXPECT_EQ(features.has("avx"), __builtin_cpu_supports("avx") != 0);
  EXPECT_EQ(features.has("f16c"), __builtin_cpu_supports("f16c") != 0);
  EXPECT_EQ(features.has("fma"), __builtin_cpu_supports("fma") != 0);
  EXPECT_EQ(features.has("avx2"), __builtin_cpu_supports("avx2") != 0);
  EXPECT_EQ(features.has("avx512f"), __builtin_cpu_supports("avx512f") != 0);
  EXPECT_EQ(features.has("avx512dq"), __builtin_cpu_supports("avx512dq") != 0);
  EXPECT_EQ(features.has("avx512bw"), __builtin_cpu_supports("avx512bw") != 0);
  EXPECT_EQ(features.has("avx512vl"), __builtin_cpu_supports("avx512vl") != 0);
  EXPECT_EQ(features.has("avx512vbmi"), __builtin_cpu_supports("avx512vbmi") != 0);
  EXPECT_EQ(features.has("avx512_vnni"), __builtin_cpu_supports("avx512vnni") != 0);
}

}  // namespace
}  // namespace tandem
