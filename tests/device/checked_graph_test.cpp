// The order checker and graphs: what is captured counts at every replay, in the order of the replays.
#include <memory>

#include "device/checked_device.h"
#include "device/mirror/mirror_device.h"
#include "kernels_cpu/dispatch.h"
#include "status_matchers.h"

namespace tandem {
namespace {

using mirror::MirrorOptions;
using mirror::Order;
using testing::fails_with;
using ::testing::HasSubstr;
using testing::is_ok;

constexpr size_t kBytes = 64;

class CheckedGraph : public ::testing::TestWithParam<Order> {
 protected:
  void SetUp() override {
    MirrorOptions options;
    options.memory_bytes = 1 << 20;
    options.order = GetParam();
    options.seed = 3;
    auto made = mirror::create_device(options, *cpu::table_for(cpu::Isa::kScalar));
    EXPECT_THAT(made, is_ok());
    device_ = check_order(std::move(*made), left_out_wait_);
    a_ = *device_->create_stream("a");
    b_ = *device_->create_stream("b");
    filled_ = *device_->create_event();
    read_ = *device_->create_event();
    host_done_ = *device_->create_flag();
    graph_done_ = *device_->create_flag();
    host_ = *device_->allocate_host(2 * kBytes);
    there_ = *device_->allocate(kBytes, "test");
  }
  void TearDown() override {
    (void)device_->synchronize();
    device_->free(there_);
    device_->free_host(host_);
    device_.reset();
  }

  uint64_t left_out_wait_ = 0;

  // On stream a, from what is submitted by `work`.
  template <typename Work>
  GraphId capture(Work work) {
    EXPECT_THAT(device_->begin_capture(a_), is_ok());
    work();
    const auto graph = device_->end_capture(a_);
    EXPECT_THAT(graph, is_ok());
    return *graph;
  }
  void copy(StreamId stream, std::byte* to, const std::byte* from) {
    EXPECT_THAT(device_->copy(stream, to, from, kBytes), is_ok());
  }
  std::byte* down() const { return host_ + kBytes; }
  void host_reads_down() {
    const MemoryRange range{down(), kBytes};
    device_->host_access({&range, 1}, {}, "logits");
  }
  void host_writes() {
    const MemoryRange range{host_, kBytes};
    device_->host_access({}, {&range, 1}, "a step's input");
  }

  // Rounds of: stream b fills, a graph on stream a that waits for it reads, and b waits for that before it fills again.
  void run_two_streams(bool wait_inside, bool wait_behind) {
    const GraphId graph = capture([&] {
      if (wait_inside) {
        EXPECT_THAT(device_->wait(a_, filled_), is_ok());
      }
      copy(a_, down(), there_);
    });
    for (int round = 0; round < 3; ++round) {
      copy(b_, there_, host_);
      EXPECT_THAT(device_->record(b_, filled_), is_ok());
      EXPECT_THAT(device_->replay(a_, graph), is_ok());
      EXPECT_THAT(device_->record(a_, read_), is_ok());
      if (wait_behind) {
        EXPECT_THAT(device_->wait(b_, read_), is_ok());
      }
    }
    EXPECT_THAT(device_->synchronize(), is_ok());
  }

  // Rounds of: the host writes, a graph that waits for its flag copies up and down and raises another, the host reads.
  void run_with_host(bool waits_inside, bool waits_behind) {
    const CancelFlag never;
    const GraphId graph = capture([&] {
      if (waits_inside) {
        EXPECT_THAT(device_->stream_wait_flag(a_, host_done_, 1), is_ok());
      }
      copy(a_, there_, host_);
      copy(a_, down(), there_);
      EXPECT_THAT(device_->stream_set_flag(a_, graph_done_, 1), is_ok());
    });
    for (int round = 0; round < 3; ++round) {
      device_->reset_flags();
      EXPECT_THAT(device_->replay(a_, graph), is_ok());
      host_writes();
      device_->set_flag(host_done_, 1);
      if (waits_behind) {
        EXPECT_THAT(device_->wait_flag(graph_done_, 1, never), is_ok());
      }
      host_reads_down();
      EXPECT_THAT(device_->synchronize(a_), is_ok());
    }
  }

  std::unique_ptr<CheckedDevice> device_;
  StreamId a_{}, b_{};
  EventId filled_{}, read_{};
  FlagId host_done_{}, graph_done_{};
  std::byte *host_ = nullptr, *there_ = nullptr;
};

// Not with threads: there a missing wait is a race, and the thread sanitizer finds it before the checker is asked.
class BrokenGraph : public CheckedGraph {};

TEST_P(CheckedGraph, StreamsThatWaitForEachOtherAreSilent) {
  run_two_streams(true, true);
  EXPECT_THAT(device_->check(), is_ok());
}

TEST_P(BrokenGraph, AWaitThatIsMissingInsideIsFound) {
  run_two_streams(false, true);
  EXPECT_THAT(device_->check(),
              fails_with(Code::kInternal, HasSubstr("a copy on stream 0 reads what a copy on "
                                                    "stream 1 writes")));
}

TEST_P(BrokenGraph, AWaitThatIsMissingBetweenItAndWhatFollowsIsFound) {
  run_two_streams(true, false);
  EXPECT_THAT(device_->check(),
              fails_with(Code::kInternal, HasSubstr("a copy on stream 1 writes what a copy on "
                                                    "stream 0 reads")));
}

TEST_P(CheckedGraph, AHostThatWaitsIsSilent) {
  run_with_host(true, true);
  EXPECT_THAT(device_->check(), is_ok());
}

TEST_P(BrokenGraph, AWaitForTheHostThatIsMissingInsideIsFound) {
  run_with_host(false, true);
  EXPECT_THAT(device_->check(), fails_with(Code::kInternal, HasSubstr("a step's input")));
}

TEST_P(BrokenGraph, AHostThatDoesNotWaitForItIsFound) {
  run_with_host(true, false);
  EXPECT_THAT(device_->check(), fails_with(Code::kInternal, HasSubstr("logits on the host reads")));
}

// The host's wait for the last replay covers what that replay did, and not only the first.
TEST_P(CheckedGraph, EveryReplayCounts) {
  const GraphId graph = capture([&] { copy(a_, down(), there_); });
  EXPECT_THAT(device_->replay(a_, graph), is_ok());
  EXPECT_THAT(device_->synchronize(a_), is_ok());
  host_reads_down();
  EXPECT_THAT(device_->check(), is_ok());
  EXPECT_THAT(device_->replay(a_, graph), is_ok());
  host_reads_down();
  EXPECT_THAT(device_->check(), fails_with(Code::kInternal, HasSubstr("logits")));
}

TEST_P(CheckedGraph, WhatOnlyCapturesIsNoAccess) {
  copy(b_, there_, host_);
  (void)capture([&] { copy(a_, down(), there_); });
  EXPECT_THAT(device_->synchronize(), is_ok());
  EXPECT_THAT(device_->check(), is_ok());
}

// Left out by the mutation that the runtime's tests use, inside and outside of the graph.
TEST_P(BrokenGraph, EverySingleWaitIsMissed) {
  for (const uint64_t nth : {1, 2, 3}) {  // the fourth is the last work's, that nothing follows
    TearDown();
    left_out_wait_ = nth;
    SetUp();
    run_two_streams(true, true);
    EXPECT_FALSE(device_->check().ok()) << device_->left_out_wait();
  }
}

std::string name_of(const ::testing::TestParamInfo<Order>& instance) {
  return instance.param == Order::kThreads ? "Threads"
         : instance.param == Order::kLazy  ? "Lazy"
                                           : "Random";
}

INSTANTIATE_TEST_SUITE_P(Orders, CheckedGraph,
                         ::testing::Values(Order::kThreads, Order::kLazy, Order::kRandom), name_of);
INSTANTIATE_TEST_SUITE_P(Orders, BrokenGraph, ::testing::Values(Order::kLazy, Order::kRandom),
                         name_of);

}  // namespace
}  // namespace tandem
