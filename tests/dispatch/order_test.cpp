// Every wait that two processors make is needed, and none is missing: the order checker finds nothing in what the runtime
// does, and finds an error as soon as any single wait is left out.
#include "device/checked_device.h"
#include "dispatch/hybrid.h"

namespace tandem {
namespace {

using mirror::MirrorOptions;
using mirror::Order;
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

class OrderTest : public ::testing::TestWithParam<const char*> {
 protected:
  // What the checker says of the steps without their n-th wait; 0: with all.
  struct Outcome {
    bool caught;
    uint64_t n_waits;
    std::string deleted, finding;
  };
  Outcome run_without(uint64_t nth, const Placement& placement, Order order,
                      const hybrid::ExpertRules& rules = {}) {
    MirrorOptions options;
    options.order = order;
    options.seed = nth + 1;
    CheckedDevice* checked = nullptr;
    hybrid::Evaluation evaluation(model_, placement, options, &checked, rules);
    checked->delete_wait(nth);
    EXPECT_THAT(run_steps(evaluation), is_ok());
    const Status found = checked->check();
    return {!found.ok(), checked->n_waits(), checked->deleted_wait(), found.message()};
  }

  void expect_every_wait_is_needed(const Placement& placement, const std::string& name,
                                   const hybrid::ExpertRules& rules = {}) {
    const Outcome whole = run_without(0, placement, Order::kLazy, rules);
    EXPECT_FALSE(whole.caught) << name << ": " << whole.finding;
    uint64_t n_caught = 0;
    for (uint64_t nth = 1; nth <= whole.n_waits; ++nth) {
      const Outcome without = run_without(nth, placement, Order::kLazy, rules);
      n_caught += without.caught ? 1 : 0;
      EXPECT_TRUE(without.caught) << name << ": " << without.deleted << ", number " << nth << " of "
                                  << whole.n_waits << ", is not missed";
    }
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

INSTANTIATE_TEST_SUITE_P(Models, OrderTest, ::testing::Values("llama-mha", "qwen3moe"),
                         [](const auto& instance) {
                           std::string name = instance.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

}  // namespace
}  // namespace tandem
