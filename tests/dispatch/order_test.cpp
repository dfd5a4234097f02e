// Every wait that two processors make is needed, and none is missing: the order checker finds nothing in what the runtime
// does, and finds an error as soon as any single wait is left out.
#include "base/checked.h"
#include "device/checked_device.h"
#include "dispatch/hybrid.h"

namespace tandem {
namespace {

using mirror::MirrorOptions;
using mirror::Order;
using testing::fails_with;
using ::testing::HasSubstr;
using testing::is_ok;

// A few steps of every kind, and their keys and values parked.
Status run_steps(hybrid::Evaluation& evaluation) {
  const CancelFlag never;
  std::vector<int32_t> ids;
  for (int32_t i = 0; i < 20; ++i) ids.push_back((i * 7 + 3) % 90);
  TANDEM_RETURN_IF_ERROR(
      evaluation.executor->forward({ids.data(), 16}, *evaluation.sequence, false, never));
  TANDEM_RETURN_IF_ERROR(evaluation.executor->compute_logits(3, 2, never));
  for (size_t i = 16; i < 20; ++i) {
    TANDEM_RETURN_IF_ERROR(
        evaluation.executor->forward({ids.data() + i, 1}, *evaluation.sequence, true, never));
  }
  return evaluation.sequence->park();
}

// The n tokens at the sequence's end.
Status evaluate(hybrid::Evaluation& evaluation, int64_t n) {
  const CancelFlag never;
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < n; ++i) ids.push_back(static_cast<int32_t>((i * 7 + 3) % 90));
  return evaluation.executor->forward(ids, *evaluation.sequence, true, never);
}

// Room for so many pages of keys and values beside what the device has.
void make_room(hybrid::Evaluation& evaluation, uint64_t n_pages) {
  const DeviceKv& kv = *evaluation.sequence->device();
  const uint64_t page = align_up(kv.group_bytes(), 256);
  evaluation.device->set_budget(evaluation.device->used_bytes() - kv.pages().size() * page +
                                n_pages * page);
}

// Over two pages, of which the second goes to DRAM and comes back.
Status run_split_steps(hybrid::Evaluation& evaluation) {
  while (evaluation.sequence->size() < 112) TANDEM_RETURN_IF_ERROR(evaluate(evaluation, 16));
  make_room(evaluation, 1);
  for (int i = 0; i < 2; ++i) TANDEM_RETURN_IF_ERROR(evaluate(evaluation, 1));
  TANDEM_RETURN_IF_ERROR(evaluate(evaluation, 16));
  make_room(evaluation, 3);
  for (int i = 0; i < 2; ++i) TANDEM_RETURN_IF_ERROR(evaluate(evaluation, 1));
  return evaluation.sequence->park();
}

class OrderTest : public ::testing::TestWithParam<const char*> {
 protected:
  using Steps = Status (*)(hybrid::Evaluation&);
  // What the checker says of the steps without their n-th wait; 0: with all.
  struct Outcome {
    bool caught;
    uint64_t n_waits;
    std::string deleted, finding;
  };
  Outcome run_without(uint64_t nth, const Placement& placement, Order order,
                      const hybrid::ExpertRules& rules = {}, Steps steps = run_steps) {
    MirrorOptions options;
    options.order = order;
    options.seed = nth + 1;
    CheckedDevice* checked = nullptr;
    hybrid::Evaluation evaluation(model_, placement, options, &checked, rules);
    checked->delete_wait(nth);
    EXPECT_THAT(steps(evaluation), is_ok());
    const Status found = checked->check();
    return {!found.ok(), checked->n_waits(), checked->deleted_wait(), found.message()};
  }

  void expect_every_wait_is_needed(const Placement& placement, const std::string& name,
                                   const hybrid::ExpertRules& rules = {}, Steps steps = run_steps) {
    const Outcome whole = run_without(0, placement, Order::kLazy, rules, steps);
    EXPECT_FALSE(whole.caught) << name << ": " << whole.finding;
    uint64_t n_caught = 0, n_absent = 0;
    for (uint64_t nth = 1; nth <= whole.n_waits; ++nth) {
      Outcome without = run_without(nth, placement, Order::kLazy, rules, steps);
      // Where measured times decide who computes an expert, not every run has as many waits.
      for (int again = 0; again < 4 && rules.rates && without.deleted.empty(); ++again) {
        without = run_without(nth, placement, Order::kLazy, rules, steps);
      }
      if (rules.rates && without.deleted.empty()) {
        ++n_absent;
        continue;
      }
      n_caught += without.caught ? 1 : 0;
      EXPECT_TRUE(without.caught) << name << ": " << without.deleted << ", number " << nth << " of "
                                  << whole.n_waits << ", is not missed";
    }
    EXPECT_LE(n_absent, whole.n_waits / 4) << name;
    RecordProperty(name, std::to_string(n_caught) + " of " + std::to_string(whole.n_waits));
    std::printf("%s, %s: %d of %d single waits left out are missed\n", GetParam(), name.c_str(),
                static_cast<int>(n_caught), static_cast<int>(whole.n_waits));
  }

  hybrid::Model model_{GetParam()};
};

TEST_P(OrderTest, NothingIsUnorderedInAnyOrderOfExecution) {
  for (uint64_t seed = 1; seed <= 8; ++seed) {
    const Order order = seed % 3 == 0   ? Order::kThreads
                        : seed % 3 == 1 ? Order::kLazy
                                        : Order::kRandom;
    const Outcome outcome = run_without(0, hybrid::random_placement(model_, seed), order);
    EXPECT_FALSE(outcome.caught) << "seed " << seed << ": " << outcome.finding;
  }
}

TEST_P(OrderTest, EverySingleWaitIsMissed) {
  expect_every_wait_is_needed(hybrid::placed(model_, kOnDevice), "all on the device");
  for (uint64_t seed = 1; seed <= 3; ++seed) {
    expect_every_wait_is_needed(hybrid::random_placement(model_, seed),
                                "placement " + std::to_string(seed));
  }
  if (!model_.program.shape.has_experts()) return;
  expect_every_wait_is_needed(hybrid::cached(model_, 5), "expert cache");
  expect_every_wait_is_needed(hybrid::cached(model_, 5), "experts fetched", {.fetch = true});
  expect_every_wait_is_needed(hybrid::cached(model_, 5), "prompts split by time",
                              {.rates = hybrid::rates(10, 1e12)});
}

TEST_P(OrderTest, EverySingleWaitIsMissedWhereAttentionIsSplit) {
  expect_every_wait_is_needed(hybrid::placed(model_, kOnDevice), "pages on both sides", {},
                              run_split_steps);
}

// Pages in DRAM are the CPU's during a step: whoever copies them beside it is found.
class SplitPages : public OrderTest {
 protected:
  // One page on the device, one in DRAM and the beginning of a third; then `copy`, and a step after that.
  template <typename Copy>
  Status step_beside(Copy copy, bool waits) {
    CheckedDevice* checked = nullptr;
    hybrid::Evaluation evaluation(model_, hybrid::placed(model_, kOnDevice), {}, &checked);
    while (evaluation.sequence->size() < 144) {
      EXPECT_THAT(evaluate(evaluation, 16), is_ok());
    }
    make_room(evaluation, 1);
    EXPECT_THAT(evaluate(evaluation, 1), is_ok());
    EXPECT_THAT(checked->check(), is_ok());
    EXPECT_EQ(1u, evaluation.sequence->device()->pages().size());
    const size_t bytes = evaluation.sequence->layout().group_bytes();
    checked->set_budget(checked->used_bytes() + 2 * bytes);
    const StreamId stream = *checked->create_stream("a test's");
    std::byte* const scratch = *checked->allocate(bytes, "a test's");
    checked->set_budget(checked->used_bytes());
    EXPECT_THAT(checked->copy(stream, scratch, evaluation.sequence->pages()[1], bytes), is_ok());
    EXPECT_THAT(checked->synchronize(stream), is_ok());
    copy(*checked, stream, evaluation.sequence->pages(), scratch, bytes);
    if (waits) {
      EXPECT_THAT(checked->synchronize(stream), is_ok());
    }
    EXPECT_THAT(evaluate(evaluation, 1), is_ok());
    Status found = checked->check(false);
    EXPECT_THAT(checked->synchronize(stream), is_ok());
    checked->free(scratch);
    return found;
  }
};

TEST_P(SplitPages, AttentionWaitsForWhatIsCopiedToThem) {
  const auto copy = [](CheckedDevice& device, StreamId stream, std::byte* const* pages,
                       const std::byte* scratch, size_t bytes) {
    EXPECT_THAT(device.copy(stream, pages[1], scratch, bytes), is_ok());
  };
  EXPECT_THAT(step_beside(copy, true), is_ok());
  EXPECT_THAT(step_beside(copy, false),
              fails_with(Code::kInternal, HasSubstr("on the host reads what a copy on stream")));
}

TEST_P(SplitPages, WhatIsStoredWaitsForWhatIsCopiedFromThem) {
  const auto copy = [](CheckedDevice& device, StreamId stream, std::byte* const* pages,
                       std::byte* scratch, size_t bytes) {
    EXPECT_THAT(device.copy(stream, scratch, pages[2], bytes), is_ok());
  };
  EXPECT_THAT(step_beside(copy, true), is_ok());
  EXPECT_THAT(step_beside(copy, false),
              fails_with(Code::kInternal, HasSubstr("on the host writes what a copy on stream")));
}

INSTANTIATE_TEST_SUITE_P(Models, SplitPages, ::testing::Values("qwen3moe"));
INSTANTIATE_TEST_SUITE_P(Models, OrderTest, ::testing::Values("llama-mha", "qwen3moe"),
                         [](const auto& instance) {
                           std::string name = instance.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

}  // namespace
}  // namespace tandem
