// Every wait that two processors make is needed, and none is missing: the order checker finds nothing in what the runtime
// does, and finds an error as soon as any single wait is left out.
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>

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

// Of times that are measured each run has others, and other experts on the device.
PredictorRates fixed_rates() {
  PredictorRates rates = hybrid::rates(10, 1e12);
  rates.learns = false;
  return rates;
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
  static constexpr unsigned kMostSeconds = 60;
  using Steps = Status (*)(hybrid::Evaluation&);
  // What the checker says of an executor's life, from its making to its end.
  struct Outcome {
    uint64_t n_loading =
        0;  // waits while weights are loaded, which keep progress and errors timely
    uint64_t n_waits = 0;
    std::string left_out, finding;
  };
  static Outcome run(hybrid::Model& model, const Placement& placement, Order order, uint64_t seed,
                     const hybrid::ExpertRules& rules = {}, Steps steps = run_steps) {
    MirrorOptions options;
    options.order = order;
    options.seed = seed;
    CheckedDevice* checked = nullptr;
    hybrid::Evaluation evaluation(model, placement, options, &checked, rules);
    const uint64_t n_loading = checked->n_waits();
    EXPECT_THAT(steps(evaluation), is_ok());
    evaluation.sequence.reset();
    evaluation.executor.reset();
    const Status found = checked->check();
    return {n_loading, checked->n_waits(), checked->left_out_wait(), found.message()};
  }

  // Without its n-th wait, in a process of its own: who does not wait may compute with anything, and die of it.
  enum class Fate { kFound, kDied, kNotMissed, kNotLeftOut, kHangs };
  Fate run_without(uint64_t nth, const Placement& placement, hybrid::ExpertRules rules,
                   Steps steps) {
    std::fflush(nullptr);
    const pid_t child = ::fork();
    if (child != 0) return fate_of(child);
    (void)std::freopen("/dev/null", "w", stdout);
    (void)std::freopen("/dev/null", "w", stderr);
    ::alarm(kMostSeconds);
    rules.left_out_wait = nth;
    hybrid::Model model(GetParam());
    const Outcome outcome = run(model, placement, Order::kLazy, nth + 1, rules, steps);
    const Fate fate = outcome.left_out.empty()  ? Fate::kNotLeftOut
                      : outcome.finding.empty() ? Fate::kNotMissed
                                                : Fate::kFound;
    ::_exit(static_cast<int>(fate));
  }
  static Fate fate_of(pid_t child) {
    int state = 0;
    EXPECT_EQ(child, ::waitpid(child, &state, 0));
    if (WIFSIGNALED(state) && WTERMSIG(state) == SIGALRM) return Fate::kHangs;
    const bool told = WIFEXITED(state) && WEXITSTATUS(state) <= static_cast<int>(Fate::kNotLeftOut);
    return told ? static_cast<Fate>(WEXITSTATUS(state)) : Fate::kDied;
  }

  // Without such a process a wait cannot be left out: the thread sanitizer ends what starts threads behind a fork.
  static constexpr bool kForks =
#if defined(__SANITIZE_THREAD__)
      false;
#else
      true;
#endif

  void expect_every_wait_is_needed(const Placement& placement, const std::string& name,
                                   const hybrid::ExpertRules& rules = {}, Steps steps = run_steps) {
    const Outcome whole = run(model_, placement, Order::kLazy, 1, rules, steps);
    EXPECT_EQ("", whole.finding) << name;
    ASSERT_EQ(Fate::kNotLeftOut, run_without(whole.n_waits + 1000, placement, rules, steps));
    int n_found = 0, n_died = 0;
    for (uint64_t nth = whole.n_loading + 1; nth <= whole.n_waits; ++nth) {
      const Fate fate = run_without(nth, placement, rules, steps);
      n_found += fate == Fate::kFound ? 1 : 0;
      n_died += fate == Fate::kDied ? 1 : 0;
      EXPECT_TRUE(fate == Fate::kFound || fate == Fate::kDied)
          << name << ": wait " << nth << " of " << whole.n_loading << " + "
          << whole.n_waits - whole.n_loading
          << (fate == Fate::kNotMissed ? " is not missed"
              : fate == Fate::kHangs   ? " is waited for for ever by something else"
                                       : " was not there to be left out");
    }
    if (placement.n_expert_slots > 0 && !rules.fetch &&
        !rules.rates) {  // copies arrive beside steps
      const Fate fate = run_without(kEveryPoll, placement, rules, steps);
      EXPECT_TRUE(fate == Fate::kFound || fate == Fate::kDied) << name << ": polls are not missed";
    }
    EXPECT_GT(n_found, 0) << name;
    std::printf("%s, %s: of %d single waits left out %d are found missing, %d killed the process\n",
                GetParam(), name.c_str(), static_cast<int>(whole.n_waits - whole.n_loading),
                n_found, n_died);
  }

  hybrid::Model model_{GetParam()};
};

TEST_P(OrderTest, NothingIsUnorderedInAnyOrderOfExecution) {
  for (uint64_t seed = 1; seed <= 8; ++seed) {
    const Order order = seed % 3 == 0   ? Order::kThreads
                        : seed % 3 == 1 ? Order::kLazy
                                        : Order::kRandom;
    const Outcome outcome = run(model_, hybrid::random_placement(model_, seed), order, seed);
    EXPECT_EQ("", outcome.finding) << "seed " << seed;
  }
}

TEST_P(OrderTest, EverySingleWaitIsMissed) {
  if (!kForks)
    GTEST_SKIP() << "the thread sanitizer ends a forked process that starts threads; every other "
                    "build runs this";
  expect_every_wait_is_needed(hybrid::placed(model_, kOnDevice), "all on the device");
  for (uint64_t seed = 1; seed <= 3; ++seed) {
    expect_every_wait_is_needed(hybrid::random_placement(model_, seed),
                                "placement " + std::to_string(seed));
  }
  if (!model_.program.shape.has_experts()) return;
  expect_every_wait_is_needed(hybrid::cached(model_, 5), "expert cache");
  expect_every_wait_is_needed(hybrid::cached(model_, 5), "experts fetched", {.fetch = true});
  expect_every_wait_is_needed(hybrid::cached(model_, 5), "prompts split by time",
                              {.rates = fixed_rates()});
}

TEST_P(OrderTest, EverySingleWaitIsMissedWhereAttentionIsSplit) {
  if (!kForks)
    GTEST_SKIP() << "the thread sanitizer ends a forked process that starts threads; every other "
                    "build runs this";
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
