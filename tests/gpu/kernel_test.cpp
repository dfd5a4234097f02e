// Every kernel on the device: against the CPU's scalar kernels, and on a card against its own emulation.
#include <algorithm>

#include "base/clock.h"
#include "tests/gpu/fixture.h"
#include "tests/kernels_gpu/emulate.h"

namespace tandem::gpu::testing {
namespace {

class DeviceKernel : public OnDevice {
 protected:
  std::vector<std::byte> run(const Case& a_case) {
    const size_t n = a_case.image.size();
    std::byte* there = on_device(n);
    std::byte* host = on_host(n);
    const std::vector<std::byte> image = a_case.image_at(there);
    std::memcpy(host, image.data(), n);
    expect_ok(device_->copy(stream_, there, host, n));
    expect_ok(device_->launch(stream_, a_case.op_at(there)));
    expect_ok(device_->copy(stream_, host, there, n));
    expect_ok(device_->synchronize(stream_));
    std::vector<std::byte> result(host, host + n);
    clear_addresses(a_case, result);
    device_->free(there);
    free_host();
    return result;
  }

  // Seconds of one launch, over enough copies of the operands that caches do not hold them.
  double seconds_of(const Case& a_case) {
    constexpr size_t kBeyondCaches = size_t{512} << 20;
    const size_t n = a_case.image.size();
    const size_t n_copies = std::clamp<size_t>(kBeyondCaches / n, 1, 64);
    std::byte* there = on_device(n * n_copies);
    std::byte* host = on_host(n);
    std::vector<Operation> operations;
    for (size_t i = 0; i < n_copies; ++i) {
      const std::vector<std::byte> image = a_case.image_at(there + i * n);
      std::memcpy(host, image.data(), n);
      expect_ok(device_->copy(stream_, there + i * n, host, n));
      expect_ok(device_->synchronize(stream_));
      operations.push_back(a_case.op_at(there + i * n));
    }
    const size_t n_runs = std::max<size_t>(64, n_copies);
    double best = 1e9;
    for (int round = 0; round < 4; ++round) {
      const Clock::time_point start = Clock::now();
      for (size_t i = 0; i < n_runs; ++i)
        expect_ok(device_->launch(stream_, operations[i % n_copies]));
      expect_ok(device_->synchronize(stream_));
      best = std::min(best, seconds_since(start) / static_cast<double>(n_runs));
    }
    device_->free(there);
    free_host();
    return best;
  }
};

TEST_F(DeviceKernel, AgreesWithTheScalarKernels) {
  for (const Case& each : all_cases())
    EXPECT_EQ(difference(each, run(each), host_result(each)), "") << each.name;
}

TEST_F(DeviceKernel, GivesTheBitsOfItsEmulation) {
  if (!is_card()) GTEST_SKIP() << "needs a card";
  for (const Case& each : all_cases()) {
    if (each.op.kind == OpKind::kRopeAngles) continue;  // the card's own cos and sin
    auto emulated = emulated_result(each, {});
    ASSERT_TRUE(emulated.ok()) << each.name;
    EXPECT_EQ(bit_difference(run(each), *emulated), "") << each.name;
  }
}

TEST_F(DeviceKernel, Times) {
  if (!is_card()) GTEST_SKIP() << "needs a card";
  for (const Case& each : timed_cases()) {
    const double seconds = seconds_of(each);
    measured().push_back(
        {each.name, seconds * 1e6, static_cast<double>(each.bytes_moved) / seconds / 1e9});
  }
}

}  // namespace
}  // namespace tandem::gpu::testing
