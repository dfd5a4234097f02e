// What a device says its work took.
#include <atomic>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "device/mirror/mirror_device.h"
#include "kernels_cpu/dispatch.h"
#include "status_matchers.h"

namespace tandem {
namespace {

using mirror::MirrorOptions;
using mirror::Order;
using testing::is_ok;
using Kind = DeviceActivity::Kind;

class Listener final : public DeviceObserver {
 public:
  void observed(const DeviceActivity& activity) noexcept override {
    if (inside_.exchange(true)) ++n_at_once_;
    all.push_back(activity);
    inside_ = false;
  }
  std::vector<DeviceActivity> of(Kind kind) const {
    std::vector<DeviceActivity> result;
    for (const DeviceActivity& activity : all) {
      if (activity.kind == kind) result.push_back(activity);
    }
    return result;
  }
  std::vector<DeviceActivity> all;
  int n_at_once() const { return n_at_once_; }

 private:
  std::atomic<bool> inside_{false};
  std::atomic<int> n_at_once_{0};
};

int64_t ns(const DeviceActivity& activity) { return activity.end_ns - activity.begin_ns; }

class Observer : public ::testing::Test {
 protected:
  void make(const MirrorOptions& options) {
    auto made = mirror::create_device(options, *cpu::table_for(cpu::best_isa()));
    ASSERT_THAT(made, is_ok());
    device_ = std::move(made).value();
    for (StreamId& stream : streams_) stream = *device_->create_stream("a");
    ASSERT_THAT(device_->set_observer(&listener_), is_ok());
    there_ = *device_->allocate(kBytes, "test");
    here_ = *device_->allocate_host(kBytes);
    operation_.rows = RowSpace::kStep;
    operation_.constants = &constants_;
    operation_.index = 7;
    operation_.layer = 3;
  }
  ~Observer() override {
    if (device_ == nullptr) return;
    device_->free(there_);
    device_->free_host(here_);
  }

  static constexpr size_t kBytes = 1'000'000;
  Listener listener_;
  OperationConstants constants_;
  Operation operation_;
  std::unique_ptr<Device> device_;
  StreamId streams_[2]{};
  std::byte *there_ = nullptr, *here_ = nullptr;
};

MirrorOptions timed() {
  MirrorOptions options;
  options.timed = true;
  options.profile.times[OpKind::kAdd] = {.fixed_us = 500};
  options.link_gb_per_s = 1;
  options.latency_us = 50;
  return options;
}

TEST_F(Observer, HearsTheTimesThatATimedMirrorKeeps) {
  make(timed());
  operation_.kind = OpKind::kAdd;
  ASSERT_THAT(device_->copy(streams_[0], there_, here_, kBytes), is_ok());
  ASSERT_THAT(device_->launch(streams_[0], operation_), is_ok());
  ASSERT_THAT(device_->copy(streams_[0], here_, there_, kBytes / 2), is_ok());
  ASSERT_THAT(device_->synchronize(), is_ok());
  ASSERT_EQ(3u, listener_.all.size());
  const DeviceActivity &up = listener_.all[0], &add = listener_.all[1], &down = listener_.all[2];
  EXPECT_EQ(Kind::kCopyUp, up.kind);
  EXPECT_EQ(kBytes, up.bytes);
  EXPECT_GE(ns(up), 1'049'998) << "rounded down";
  EXPECT_EQ(Kind::kOperation, add.kind);
  EXPECT_EQ("add", add.name);
  EXPECT_EQ(7, add.operation);
  EXPECT_EQ(3, add.layer);
  EXPECT_GE(ns(add), 499'998);
  EXPECT_LE(ns(add), 700'000) << "a moment passes between looking at the clock twice";
  EXPECT_EQ(Kind::kCopyDown, down.kind);
  EXPECT_GE(ns(down), 549'998);
  EXPECT_LE(up.end_ns, add.begin_ns);
  EXPECT_LE(add.end_ns, down.begin_ns);
}

TEST_F(Observer, HearsThatASignalWaitsForTheWorkBeforeIt) {
  make(timed());
  operation_.kind = OpKind::kAdd;
  const FlagId flag = *device_->create_flag();
  ASSERT_THAT(device_->launch(streams_[0], operation_), is_ok());
  ASSERT_THAT(device_->stream_set_flag(streams_[0], flag, 1), is_ok());
  ASSERT_THAT(device_->wait_flag(flag, 1, or_never(nullptr)), is_ok());
  const auto now =
      std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now().time_since_epoch()).count();
  ASSERT_EQ(2u, listener_.all.size()) << "what was waited for is told before";
  const DeviceActivity& signal = listener_.all[1];
  EXPECT_EQ(Kind::kSignal, signal.kind);
  EXPECT_GE(signal.begin_ns, listener_.all[0].end_ns);
  EXPECT_LE(signal.end_ns, now);
}

TEST_F(Observer, HearsOneCallAtATimeAndCopiesOfOneLinkInTurn) {
  make(timed());
  for (int i = 0; i < 20; ++i) {
    std::byte* to = there_;  // each stream has a place of its own
    for (const StreamId stream : streams_) {
      ASSERT_THAT(device_->copy(stream, to, here_, 1000), is_ok());
      to += 4096;
    }
  }
  ASSERT_THAT(device_->synchronize(), is_ok());
  auto copies = listener_.of(Kind::kCopyUp);
  ASSERT_EQ(40u, copies.size());
  EXPECT_EQ(0, listener_.n_at_once());
  std::sort(copies.begin(), copies.end(),
            [](const auto& a, const auto& b) { return a.begin_ns < b.begin_ns; });
  for (size_t i = 1; i < copies.size(); ++i) EXPECT_LE(copies[i - 1].end_ns, copies[i].begin_ns);
}

TEST_F(Observer, HearsOfEveryOrderAndOfFills) {
  for (const Order order : {Order::kThreads, Order::kLazy, Order::kRandom}) {
    MirrorOptions options;
    options.order = order;
    options.seed = 3;
    Listener own;
    auto device = mirror::create_device(options, *cpu::table_for(cpu::best_isa()));
    ASSERT_THAT(device, is_ok());
    const StreamId stream = *(*device)->create_stream("a");
    std::byte* const memory = *(*device)->allocate(4096, "test");
    ASSERT_THAT((*device)->set_observer(&own), is_ok());
    ASSERT_THAT((*device)->fill(stream, memory, 1, 4096), is_ok());
    ASSERT_THAT((*device)->copy(stream, memory + 2048, memory, 1024), is_ok());
    ASSERT_THAT((*device)->synchronize(stream), is_ok());
    ASSERT_EQ(2u, own.all.size());
    EXPECT_EQ(Kind::kFill, own.all[0].kind);
    EXPECT_EQ(4096u, own.all[0].bytes);
    EXPECT_EQ(Kind::kCopyWithin, own.all[1].kind);
    ASSERT_THAT((*device)->set_observer(nullptr), is_ok());
    ASSERT_THAT((*device)->fill(stream, memory, 1, 4096), is_ok());
    ASSERT_THAT((*device)->synchronize(stream), is_ok());
    EXPECT_EQ(2u, own.all.size()) << "none is set";
    (*device)->free(memory);
  }
}

}  // namespace
}  // namespace tandem
