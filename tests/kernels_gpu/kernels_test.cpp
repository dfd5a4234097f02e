// Every kernel, emulated on the host, against the CPU's scalar kernels.
#include <gtest/gtest.h>

#include "tests/kernels_gpu/emulate.h"

namespace tandem::gpu::testing {
namespace {

std::vector<std::byte> run(const Case& a_case, const Emulation& emulation) {
  Result<std::vector<std::byte>> result = emulated_result(a_case, emulation);
  if (result.ok()) return std::move(*result);
  ADD_FAILURE() << result.status().to_string();
  return a_case.image;
}

TEST(EmulatedKernels, AgreeWithTheScalarKernels) {
  for (const Case& each : all_cases())
    EXPECT_EQ(difference(each, run(each, {}), host_result(each)), "") << each.name;
}

// A missing barrier shows as a result that depends on which thread comes first.
TEST(EmulatedKernels, DoNotDependOnTheOrderOfThreadsAndBlocks) {
  for (const Case& each : all_cases()) {
    const std::vector<std::byte> expected = run(each, {HostOrder::kForward, 3});
    EXPECT_EQ(bit_difference(run(each, {HostOrder::kBackward, 3}), expected), "") << each.name;
    EXPECT_EQ(bit_difference(run(each, {HostOrder::kScattered, 3}), expected), "") << each.name;
  }
}

TEST(EmulatedKernels, DoNotDependOnTheNumberOfBlocks) {
  for (const Case& each : all_cases()) {
    const std::vector<std::byte> expected = run(each, {HostOrder::kForward, 3});
    EXPECT_EQ(bit_difference(run(each, {HostOrder::kForward, 1}), expected), "") << each.name;
    EXPECT_EQ(bit_difference(run(each, {HostOrder::kForward, 40}), expected), "") << each.name;
  }
}

// No case compares nothing: the operation changes its image, unless it has no rows.
TEST(EmulatedKernels, WriteSomething) {
  for (const Case& each : all_cases()) {
    const bool no_rows =
        each.name.find("no_rows") == 0 || each.name.find("_T0_") != std::string::npos;
    std::vector<std::byte> before = each.image;
    clear_addresses(each, before);
    EXPECT_EQ(host_result(each) == before, no_rows) << each.name;
  }
}

TEST(CheckOperation, RefusesHeadsWiderThanTheSharedMemoryOfABlock) {
  Arguments a;
  a.op.kind = OpKind::kAttend;
  a.c.head_width = kMaxHeadWidth + 1;
  EXPECT_EQ(check_operation(a).code(), Code::kUnsupported);
}

TEST(CheckOperation, LeavesMergedPagesToTheCpu) {
  Arguments a;
  a.op.kind = OpKind::kMergePages;
  EXPECT_EQ(check_operation(a).code(), Code::kUnsupported);
}

TEST(CheckOperation, RefusesWeightsAtOddAddresses) {
  Arguments a;
  a.op.kind = OpKind::kMatmul;
  a.op.weight_type = DType::kQ4_0;
  a.op.weight = reinterpret_cast<const std::byte*>(uintptr_t{4097});
  EXPECT_EQ(check_operation(a).code(), Code::kUnsupported);
}

TEST(ExpF32, FollowsTheLibraryWithinItsBoundAndAtTheEnds) {
  for (float x = -87.0f; x < 88.7f; x += 0.0137f)
    EXPECT_NEAR(exp_f32(x) / std::exp(x), 1.0, 0x1p-22 + 0x1p-23) << x;
  EXPECT_EQ(exp_f32(0), 1.0f);
  EXPECT_EQ(exp_f32(-INFINITY), 0.0f);
  EXPECT_EQ(exp_f32(INFINITY), INFINITY);
  EXPECT_EQ(exp_f32(1000), INFINITY);
  EXPECT_EQ(exp_f32(-1000), 0.0f);
  EXPECT_TRUE(std::isnan(exp_f32(NAN)));
}

}  // namespace
}  // namespace tandem::gpu::testing
