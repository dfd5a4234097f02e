// What every device has to do, run on the card by tests/gpu/run and on the mirror by ctest.
#include <gmock/gmock.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <thread>

#include "base/clock.h"
#include "tests/gpu/fixture.h"

namespace tandem::gpu::testing {
namespace {

using DeviceCopy = OnDevice;
using DeviceMemory = OnDevice;
using DeviceEvent = OnDevice;
using DeviceFlag = OnDevice;
using DeviceGraph = OnDevice;

void number(std::byte* bytes, size_t n, unsigned seed) {
  for (size_t i = 0; i < n; ++i) bytes[i] = static_cast<std::byte>((i * 7 + i / 256 + seed) & 255);
}

void pause() { std::this_thread::sleep_for(std::chrono::milliseconds(5)); }

// Adds in[1] to out for as many tokens as the step has.
struct Adding {
  static constexpr int64_t kWidth = 64, kCapacity = 8;
  OperationConstants constants;
  Operation op;

  Adding(std::byte* step, std::byte* out, std::byte* in) {
    constants.n_heads = constants.n_kv_heads = 1;
    op.kind = OpKind::kAdd;
    op.width = kWidth;
    op.in[0] = op.out = {out, kWidth * 4};
    op.in[1] = {in, kWidth * 4};
    op.step = reinterpret_cast<const StepInput*>(step);
    op.constants = &constants;
  }
};

TEST_F(DeviceCopy, BringsBytesThereAndBack) {
  for (const size_t n : {size_t{1}, size_t{4099}, size_t{32} << 20}) {
    std::byte* from = on_host(n);
    std::byte* to = on_host(n);
    std::byte* there = on_device(n);
    std::byte* beside = on_device(n);
    number(from, n, 3);
    expect_ok(device_->copy(stream_, there, from, n));
    expect_ok(device_->copy(stream_, beside, there, n));
    expect_ok(device_->copy(stream_, to, beside, n));
    expect_ok(device_->synchronize(stream_));
    EXPECT_EQ(std::memcmp(from, to, n), 0) << n;
    for (std::byte* memory : {there, beside}) device_->free(memory);
    free_host();
  }
}

TEST_F(DeviceCopy, FillSetsJustTheBytesItIsToldTo) {
  const size_t n = 1000;
  std::byte* there = on_device(n);
  std::byte* host = on_host(n);
  expect_ok(device_->fill(stream_, there, 1, n));
  expect_ok(device_->fill(stream_, there + 3, 0x5A, 100));
  expect_ok(device_->copy(stream_, host, there, n));
  expect_ok(device_->synchronize(stream_));
  for (size_t i = 0; i < n; ++i)
    ASSERT_EQ(host[i], i >= 3 && i < 103 ? std::byte{0x5A} : std::byte{1}) << i;
}

TEST_F(DeviceCopy, ServesAThreadThatDidNotOpenTheDevice) {
  std::thread other([this] {
    std::byte* there = on_device(64);
    std::byte* host = on_host(64);
    const StreamId own = stream("of the thread");
    expect_ok(device_->fill(own, there, 7, 64));
    expect_ok(device_->copy(own, host, there, 64));
    expect_ok(device_->record(own, event()));
    expect_ok(device_->synchronize(own));
    EXPECT_EQ(host[63], std::byte{7});
  });
  other.join();
}

TEST_F(DeviceMemory, IsAlignedAndCounted) {
  const uint64_t before = device_->used_bytes();
  std::byte* first = on_device(1);
  std::byte* second = on_device(5000);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(first) % 256, 0u);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(second) % 256, 0u);
  EXPECT_GE(device_->used_bytes(), before + 5001);
  device_->free(first);
  device_->free(second);
  device_->free(nullptr);
  EXPECT_EQ(device_->used_bytes(), before);
}

TEST_F(DeviceMemory, StaysWithinTheBudgetAndSaysWhatIsMissing) {
  device_->set_budget(1 << 20);
  std::byte* half = on_device(1 << 19);
  const Status refused = device_->allocate((1 << 19) + 1, "the experts").status();
  EXPECT_EQ(refused.code(), Code::kOutOfMemory);
  EXPECT_THAT(refused.message(), ::testing::HasSubstr("the experts"));
  EXPECT_GT(refused.bytes_needed(), refused.bytes_available());
  EXPECT_EQ(device_->allocate(SIZE_MAX - 5, "everything").status().code(), Code::kOutOfMemory);
  device_->set_budget(1000);  // below what is used: that stays
  EXPECT_EQ(device_->allocate(1, "a byte").status().code(), Code::kOutOfMemory);
  expect_ok(device_->fill(stream_, half, 1, 1 << 19));
  expect_ok(device_->synchronize());
  device_->free(half);
  EXPECT_EQ(device_->used_bytes(), 0u);
}

// What the device itself refuses is not told a second time, by a call that went well.
TEST_F(DeviceMemory, IsRefusedOnceWhereTheDeviceHasLessThanTheBudget) {
  device_->set_budget(UINT64_MAX);
  const Status refused =
      device_->allocate(device_->info().memory_bytes + 4096, "the experts").status();
  EXPECT_EQ(refused.code(), Code::kOutOfMemory);
  EXPECT_THAT(refused.message(), ::testing::HasSubstr("the experts"));
  std::byte* memory = on_device(sizeof(StepInput) + 4096);
  expect_ok(device_->fill(stream_, memory, 0, sizeof(StepInput) + 4096));
  const Adding adding(memory, memory + sizeof(StepInput), memory + sizeof(StepInput));
  expect_ok(device_->launch(stream_, adding.op));  // no tokens
  expect_ok(device_->synchronize(stream_));
}

TEST_F(DeviceMemory, OfTheHostIsZeroed) {
  std::byte* host = on_host(100000);
  EXPECT_TRUE(std::all_of(host, host + 100000, [](std::byte b) { return b == std::byte{0}; }));
}

// A stream that waits for a flag must not keep the host from taking and giving memory: the flag comes later.
TEST_F(DeviceMemory, IsTakenAndGivenBackWhileAStreamWaits) {
  const FlagId go = flag();
  std::byte* memory = on_device(1 << 20);
  expect_ok(device_->stream_wait_flag(stream_, go, 1));
  device_->free(on_device(1 << 20));
  device_->free(memory);
  device_->set_flag(go, 1);
  expect_ok(device_->synchronize());
}

TEST_F(DeviceEvent, MakesAStreamWaitForAnother) {
  const size_t n = 8 << 20;
  const StreamId second = stream("second");
  const EventId written = event(), read = event();
  std::byte* there = on_device(n);
  std::byte* from = on_host(n);
  std::byte* to = on_host(n);
  for (unsigned round = 0; round < 20; ++round) {
    number(from, n, round);
    expect_ok(device_->copy(stream_, there, from, n));
    expect_ok(device_->record(stream_, written));
    expect_ok(device_->wait(second, written));
    expect_ok(device_->copy(second, to, there, n));
    expect_ok(device_->record(second, read));
    expect_ok(device_->wait_for(read));
    ASSERT_EQ(std::memcmp(from, to, n), 0) << round;
  }
}

TEST_F(DeviceEvent, IsDoneOnceItsWorkIs) {
  const FlagId go = flag();
  const EventId after = event();
  expect_ok(device_->stream_wait_flag(stream_, go, 1));
  expect_ok(device_->record(stream_, after));
  pause();
  EXPECT_FALSE(value_of(device_->done(after)));
  device_->set_flag(go, 1);
  expect_ok(device_->synchronize(stream_));
  EXPECT_TRUE(value_of(device_->done(after)));
}

TEST_F(DeviceFlag, OfAStreamIsSeenWithTheWorkBeforeIt) {
  const FlagId done = flag();
  std::byte* there = on_device(1 << 20);
  std::byte* host = on_host(1 << 20);
  expect_ok(device_->fill(stream_, there, 9, 1 << 20));
  expect_ok(device_->copy(stream_, host, there, 1 << 20));
  expect_ok(device_->stream_set_flag(stream_, done, 5));
  expect_ok(device_->wait_flag(done, 5, CancelFlag()));
  EXPECT_EQ(host[(1 << 20) - 1], std::byte{9});
  expect_ok(device_->wait_flag(done, 4, CancelFlag()));  // or more
}

TEST_F(DeviceFlag, ResetGoesBackToZero) {
  const FlagId go = flag();
  const EventId after = event();
  device_->set_flag(go, 3);
  device_->reset_flags();
  expect_ok(device_->stream_wait_flag(stream_, go, 1));
  expect_ok(device_->record(stream_, after));
  pause();
  EXPECT_FALSE(value_of(device_->done(after)));
  device_->set_flag(go, 1);
  expect_ok(device_->synchronize());
}

TEST_F(DeviceFlag, WaitEndsWhenItIsCancelled) {
  const FlagId never = flag();
  CancelFlag cancel;
  std::thread other([&] {
    pause();
    cancel.cancel();
  });
  EXPECT_EQ(device_->wait_flag(never, 1, cancel).code(), Code::kCancelled);
  other.join();
}

TEST_F(DeviceFlag, HandOversAreNotLost) {
  const char* asked = std::getenv("TANDEM_TEST_HAND_OVERS");
  const auto n = static_cast<uint32_t>(asked != nullptr ? std::atoi(asked) : 2000);
  const uint32_t batch = 200;
  const FlagId there = flag(), back = flag();
  const Clock::time_point start = Clock::now();
  for (uint32_t i = 1; i <= n; ++i) {
    if (i % batch == 1) {
      for (uint32_t k = i; k < i + batch; ++k) {
        expect_ok(device_->stream_wait_flag(stream_, there, k));
        expect_ok(device_->stream_set_flag(stream_, back, k));
      }
    }
    device_->set_flag(there, i);
    expect_ok(device_->wait_flag(back, i, CancelFlag()));
  }
  measured().push_back({"hand-over to the device and back", seconds_since(start) * 1e6 / n, 0});
}

TEST_F(DeviceGraph, ServesStepsOfOtherSizes) {
  const size_t bytes = Adding::kWidth * Adding::kCapacity * 4;
  std::byte* step = on_device(sizeof(StepInput));
  std::byte* out = on_device(bytes);
  std::byte* in = on_device(bytes);
  std::byte* host = on_host(bytes);
  std::byte* host_step = on_host(sizeof(StepInput));
  const Adding adding(step, out, in);
  for (size_t i = 0; i < bytes / 4; ++i) reinterpret_cast<float*>(host)[i] = 1.0f;
  expect_ok(device_->copy(stream_, in, host, bytes));
  expect_ok(device_->fill(stream_, out, 0, bytes));
  expect_ok(device_->synchronize());

  expect_ok(device_->begin_capture(stream_));
  expect_ok(device_->copy(stream_, step, host_step, sizeof(StepInput)));
  expect_ok(device_->launch(stream_, adding.op));
  const GraphId graph = value_of(device_->end_capture(stream_));

  for (const int64_t n_tokens : {1, 8, 3}) {
    StepInput input;
    input.n_tokens = n_tokens;
    std::memcpy(host_step, &input, sizeof input);
    expect_ok(device_->replay(stream_, graph));
    expect_ok(device_->synchronize(stream_));
  }
  expect_ok(device_->copy(stream_, host, out, bytes));
  expect_ok(device_->synchronize(stream_));
  for (int64_t row = 0; row < Adding::kCapacity; ++row)
    EXPECT_EQ(reinterpret_cast<float*>(host)[row * Adding::kWidth], row < 1   ? 3
                                                                    : row < 3 ? 2
                                                                              : 1)
        << row;
  device_->free_graph(graph);
}

TEST_F(DeviceGraph, WaitsForFlagsAndSetsThemAtEveryReplay) {
  const FlagId go = flag(), done = flag();
  std::byte* there = on_device(64);
  std::byte* host = on_host(64);
  expect_ok(device_->begin_capture(stream_));
  expect_ok(device_->stream_wait_flag(stream_, go, 1));
  expect_ok(device_->copy(stream_, there, host, 64));
  expect_ok(device_->stream_set_flag(stream_, done, 2));
  const GraphId graph = value_of(device_->end_capture(stream_));
  for (int round = 1; round <= 10; ++round) {
    device_->reset_flags();
    expect_ok(device_->replay(stream_, graph));
    host[0] = static_cast<std::byte>(round);  // before the flag: seen by the copy
    device_->set_flag(go, 1);
    expect_ok(device_->wait_flag(done, 2, CancelFlag()));
    expect_ok(device_->synchronize(stream_));
    expect_ok(device_->copy(stream_, host + 32, there, 1));
    expect_ok(device_->synchronize(stream_));
    ASSERT_EQ(host[32], static_cast<std::byte>(round));
  }
}

TEST_F(DeviceGraph, RecordsEventsThatOtherStreamsWaitFor) {
  const StreamId second = stream("second");
  const EventId written = event();
  const FlagId go = flag();
  std::byte* there = on_device(64);
  std::byte* host = on_host(128);
  expect_ok(device_->begin_capture(stream_));
  expect_ok(device_->stream_wait_flag(stream_, go, 1));
  expect_ok(device_->copy(stream_, there, host, 64));
  expect_ok(device_->record(stream_, written));
  const GraphId graph = value_of(device_->end_capture(stream_));
  host[5] = std::byte{77};
  expect_ok(device_->replay(stream_, graph));
  expect_ok(device_->wait(second, written));
  expect_ok(device_->copy(second, host + 64, there, 64));
  pause();
  EXPECT_EQ(host[69], std::byte{0});
  device_->set_flag(go, 1);
  expect_ok(device_->synchronize(second));
  EXPECT_EQ(host[69], std::byte{77});
}

// The last thing a process does with a card.  tests/gpu/run gives each of these a process of its own.
class DeviceLoss : public OnDevice {
 protected:
  // Submits an operation that writes where nothing is, behind a flag: else its own launch may tell.
  void submit_wild_write() {
    std::byte* step = on_device(sizeof(StepInput));
    std::byte* host_step = on_host(sizeof(StepInput));
    StepInput input;
    input.n_tokens = 1;
    std::memcpy(host_step, &input, sizeof input);
    expect_ok(device_->copy(stream_, step, host_step, sizeof(StepInput)));
    Adding adding(step, reinterpret_cast<std::byte*>(uintptr_t{64}), step);
    adding.op.layer = 7;
    go_ = flag();
    expect_ok(device_->stream_wait_flag(stream_, go_, 1));
    expect_ok(device_->launch(stream_, adding.op));
  }
  FlagId go_{};
};

TEST_F(DeviceLoss, IsToldByTheNextWaitAndByEveryCallAfterIt) {
  if (!is_card()) GTEST_SKIP() << "needs a card";
  submit_wild_write();
  std::byte* memory = on_device(64);
  device_->set_flag(go_, 1);
  const Status lost = device_->synchronize(stream_);
  EXPECT_EQ(lost.code(), Code::kDeviceLost) << lost.to_string();
  EXPECT_THAT(lost.message(), ::testing::HasSubstr("add of layer 7"));
  EXPECT_EQ(device_->fill(stream_, memory, 0, 8).code(), Code::kDeviceLost);
  EXPECT_EQ(device_->allocate(8, "anything").status().code(), Code::kDeviceLost);
  EXPECT_EQ(device_->create_event().status().code(), Code::kDeviceLost);
  EXPECT_EQ(device_->wait_flag(go_, 9, CancelFlag()).code(), Code::kDeviceLost);
  EXPECT_EQ(device_->synchronize().message(), lost.message());  // the first reason stays
  device_->free(memory);
}

TEST_F(DeviceLoss, EndsAWaitForAFlagThatIsNeverRaised) {
  if (!is_card()) GTEST_SKIP() << "needs a card";
  submit_wild_write();
  const FlagId done = flag();
  expect_ok(device_->stream_set_flag(stream_, done, 1));
  device_->set_flag(go_, 1);
  EXPECT_EQ(device_->wait_flag(done, 1, CancelFlag()).code(), Code::kDeviceLost);
}

}  // namespace
}  // namespace tandem::gpu::testing
