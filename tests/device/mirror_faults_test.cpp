// What goes wrong on the mirror device: told late, by whoever waits next, and nothing is done on what may be missing.
#include <algorithm>
#include <string>

#include "device/mirror/mirror_device.h"
#include "kernels_cpu/dispatch.h"
#include "status_matchers.h"

namespace tandem::mirror {
namespace {

using testing::fails_with;
using ::testing::HasSubstr;
using testing::is_ok;

constexpr size_t kBytes = 64;
constexpr int64_t kFloats = kBytes / sizeof(float);

class MirrorFaults : public ::testing::TestWithParam<Order> {
 protected:
  void open(const Faults& faults) {
    MirrorOptions options;
    options.memory_bytes = 1 << 20;
    options.order = GetParam();
    options.seed = 5;
    options.poison = true;
    options.faults = faults;
    auto made = create_device(options, *cpu::table_for(cpu::Isa::kScalar));
    ASSERT_THAT(made, is_ok());
    device_ = std::move(*made);
    stream_ = *device_->create_stream("a");
    host_ = *device_->allocate_host(4096);
  }
  void TearDown() override { close(); }
  void close() {
    if (device_ != nullptr) device_->free_host(host_);
    device_.reset();
  }
  std::byte* memory() { return *device_->allocate(kBytes, "test"); }
  void set_host(float value) { std::fill_n(floats(), kFloats, value); }
  float* floats() { return reinterpret_cast<float*>(host_); }
  Status up(std::byte* to) { return device_->copy(stream_, to, host_, kBytes); }
  Status down(const std::byte* from) { return device_->copy(stream_, host_, from, kBytes); }
  // to += from
  Status add(std::byte* to, std::byte* from) {
    Operation op;
    op.kind = OpKind::kAdd;
    op.layer = 3;
    op.rows = RowSpace::kStep;
    op.width = kFloats;
    op.out = op.in[0] = {to, kBytes, kBytes};
    op.in[1] = {from, kBytes, kBytes};
    op.constants = &constants_;
    return device_->launch(stream_, op);
  }

  const OperationConstants constants_{.n_heads = 1, .n_kv_heads = 1, .head_width = 1};
  std::unique_ptr<Device> device_;
  StreamId stream_{};
  std::byte* host_ = nullptr;
};

TEST_P(MirrorFaults, AFailedAllocationTakesNothingAndTheNextIsGiven) {
  open({.allocation = 2});
  std::byte* const first = memory();
  const uint64_t used = device_->used_bytes();
  EXPECT_THAT(device_->allocate(kBytes, "activations"),
              fails_with(Code::kOutOfMemory, HasSubstr("activations needs 64 B of device memory")));
  EXPECT_EQ(used, device_->used_bytes());
  const auto third = device_->allocate(kBytes, "activations");
  ASSERT_THAT(third, is_ok());
  EXPECT_NE(first, *third);
  set_host(2);
  ASSERT_THAT(up(*third), is_ok());
  ASSERT_THAT(device_->synchronize(stream_), is_ok());
  set_host(0);
  ASSERT_THAT(down(*third), is_ok());
  EXPECT_THAT(device_->synchronize(stream_), is_ok());
  EXPECT_EQ(2.0f, floats()[0]);
}

TEST_P(MirrorFaults, AFailedOperationIsNamedByTheNextWaitAndByNoneAfterIt) {
  open({.operation = 2});
  std::byte* const sum = memory();
  std::byte* const one = memory();
  set_host(1);
  ASSERT_THAT(up(sum), is_ok());
  ASSERT_THAT(up(one), is_ok());
  for (int i = 0; i < 4; ++i) ASSERT_THAT(add(sum, one), is_ok()) << "errors come late";
  EXPECT_THAT(device_->synchronize(stream_),
              fails_with(Code::kDevice, HasSubstr("operation add of layer 3 failed")));
  EXPECT_THAT(device_->synchronize(stream_), is_ok());
  ASSERT_THAT(down(sum), is_ok());
  ASSERT_THAT(device_->synchronize(stream_), is_ok());
  EXPECT_EQ(2.0f, floats()[0]) << "the first was done, none after the one that failed";
  ASSERT_THAT(add(sum, one), is_ok());
  ASSERT_THAT(down(sum), is_ok());
  ASSERT_THAT(device_->synchronize(stream_), is_ok());
  EXPECT_EQ(3.0f, floats()[0]) << "it goes on working";
}

TEST_P(MirrorFaults, AFailureIsToldByEveryWayOfWaiting) {
  for (const int way : {0, 1, 2, 3, 4}) {
    open({.operation = 1});
    const EventId event = *device_->create_event();
    const FlagId flag = *device_->create_flag();
    std::byte* const one = memory();
    ASSERT_THAT(add(one, one), is_ok());
    ASSERT_THAT(device_->record(stream_, event), is_ok());
    ASSERT_THAT(device_->stream_set_flag(stream_, flag, 1), is_ok());
    const auto ask = [&]() -> Status {
      const CancelFlag never;
      if (way == 0) return device_->synchronize(stream_);
      if (way == 1) return device_->synchronize();
      if (way == 2) return device_->wait_for(event);
      if (way == 3) return device_->wait_flag(flag, 1, never);
      for (;;) {
        const Result<bool> done = device_->done(event);
        if (!done.ok() || *done) return done.status();
      }
    };
    EXPECT_THAT(ask(), fails_with(Code::kDevice, HasSubstr("operation add"))) << "way " << way;
    EXPECT_THAT(ask(), is_ok()) << "way " << way;
    close();
  }
}

// Who did not wait himself sees from the count that his work may not have been done.
TEST_P(MirrorFaults, AreCountedWhenTheyHappenAndWhenTheyAreTold) {
  open({.copy = 1});
  const StreamId other = *device_->create_stream("b");
  const EventId copied = *device_->create_event(), later = *device_->create_event();
  std::byte* const there = memory();
  const uint64_t before = device_->failures();
  ASSERT_THAT(up(there), is_ok());
  ASSERT_THAT(device_->record(stream_, copied), is_ok());
  ASSERT_THAT(device_->wait(other, copied), is_ok());
  ASSERT_THAT(device_->fill(other, there, 0, kBytes), is_ok());
  ASSERT_THAT(device_->record(other, later), is_ok());
  EXPECT_THAT(device_->wait_for(later), fails_with(Code::kDevice, HasSubstr("copy")));
  EXPECT_NE(before, device_->failures());
  const uint64_t told = device_->failures();
  EXPECT_THAT(device_->synchronize(), is_ok());
  ASSERT_THAT(up(there), is_ok());
  EXPECT_THAT(device_->synchronize(), is_ok());
  EXPECT_EQ(told, device_->failures());
}

TEST_P(MirrorFaults, ALostDeviceLeavesNobodyWaiting) {
  for (uint64_t nth = 1; nth <= 6; ++nth) {
    open({.lost_after_commands = nth});
    const StreamId other = *device_->create_stream("b");
    const EventId event = *device_->create_event();
    const FlagId never_set = *device_->create_flag(), set = *device_->create_flag();
    std::byte* const there = memory();
    const CancelFlag never;
    for (int i = 0; i < 6; ++i) (void)up(there);
    (void)device_->record(stream_, event);
    (void)device_->wait(other, event);
    (void)device_->stream_wait_flag(other, never_set, 1);
    (void)device_->stream_set_flag(other, set, 1);
    EXPECT_THAT(device_->wait_flag(set, 1, never),
                fails_with(Code::kDeviceLost, HasSubstr("lost after " + std::to_string(nth))));
    EXPECT_THAT(device_->synchronize(), fails_with(Code::kDeviceLost, HasSubstr("lost")));
    EXPECT_THAT(device_->wait_for(event), fails_with(Code::kDeviceLost, HasSubstr("lost")));
    EXPECT_THAT(device_->done(event), fails_with(Code::kDeviceLost, HasSubstr("lost")));
    device_->free(there);
    close();
  }
}

INSTANTIATE_TEST_SUITE_P(Orders, MirrorFaults,
                         ::testing::Values(Order::kThreads, Order::kLazy, Order::kRandom),
                         [](const auto& instance) {
                           return instance.param == Order::kThreads ? "Threads"
                                  : instance.param == Order::kLazy  ? "Lazy"
                                                                    : "Random";
                         });

}  // namespace
}  // namespace tandem::mirror
