// Two processors, one program: whatever the placement and whatever the order in which the device goes on, the bits of the
// results are those of the CPU alone, and every access is ordered.
#include "dispatch/hybrid.h"

namespace tandem::hybrid {
namespace {

class HybridTest : public ::testing::TestWithParam<const char*> {
 protected:
  Model model_{GetParam()};
  const std::vector<float> expected_ = Evaluation(model_, all_on_cpu(), {}).run();
};

TEST_P(HybridTest, AWholeModelOnTheDeviceGivesTheBitsOfTheCpu) {
  MirrorOptions options;
  options.poison = true;
  EXPECT_EQ(expected_, Evaluation(model_, placed(model_, kOnDevice), options).run());
}

TEST_P(HybridTest, StreamedWeightsGiveTheBitsOfTheCpu) {
  Placement placement = placed(model_, kOnDevice);
  for (size_t block = 0; block < placement.blocks.size(); ++block) {
    const BlockSpec& spec = model_.program.blocks[block];
    if (is_expert(spec)) continue;
    placement.blocks[block] = kStreamed;
    placement.stream_buffer_bytes = std::max(placement.stream_buffer_bytes, device_bytes(spec));
  }
  for (const Order order : {Order::kThreads, Order::kLazy, Order::kRandom}) {
    MirrorOptions options;
    options.poison = true;
    options.order = order;
    EXPECT_EQ(expected_, Evaluation(model_, placement, options).run());
  }
}

TEST_P(HybridTest, AnyPlacementGivesTheBitsOfTheCpu) {
  for (uint64_t seed = 1; seed <= 12; ++seed) {
    MirrorOptions options;
    options.poison = true;
    options.order = seed % 3 == 0 ? Order::kThreads : seed % 3 == 1 ? Order::kLazy : Order::kRandom;
    options.seed = seed;
    EXPECT_EQ(expected_, Evaluation(model_, random_placement(model_, seed), options).run())
        << "seed " << seed;
  }
}

class ExpertCacheTest : public ::testing::TestWithParam<const char*> {
 protected:
  Model model_{GetParam()};
  const std::vector<float> expected_ = Evaluation(model_, all_on_cpu(), {}).run();
};

TEST_P(ExpertCacheTest, OfAnySizeGivesTheBitsOfTheCpu) {
  for (const uint64_t n_slots : {1, 3, 7, 64}) {
    for (const Order order : {Order::kThreads, Order::kLazy, Order::kRandom}) {
      MirrorOptions options;
      options.poison = true;
      options.order = order;
      options.seed = n_slots;
      Evaluation evaluation(model_, cached(model_, n_slots), options);
      EXPECT_EQ(expected_, evaluation.run())
          << n_slots << " slots, order " << static_cast<int>(order);
      EXPECT_GT(evaluation.executor->expert_counters().hits, 0u) << n_slots << " slots";
    }
  }
}

TEST_P(ExpertCacheTest, FollowsABudgetThatShrinksAndGrows) {
  MirrorOptions options;
  options.poison = true;
  Evaluation evaluation(model_, cached(model_, 16), options);
  const uint64_t all = evaluation.device->used_bytes();
  const uint64_t slot = evaluation.placement.expert_slot_bytes;
  int n = 0;
  evaluation.before_step = [&] {
    const uint64_t budget = all - static_cast<uint64_t>(n++ % 5) * 3 * slot;
    evaluation.device->set_budget(budget);
  };
  evaluation.after_step = [&] {
    EXPECT_LE(evaluation.device->used_bytes(), evaluation.device->budget_bytes());
  };
  EXPECT_EQ(expected_, evaluation.run());
  EXPECT_GT(n, 10);
}

INSTANTIATE_TEST_SUITE_P(Models, ExpertCacheTest,
                         ::testing::Values("mixtral", "qwen3moe", "qwen3moe-q4_k"),
                         [](const auto& instance) {
                           std::string name = instance.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

INSTANTIATE_TEST_SUITE_P(Models, HybridTest,
                         ::testing::Values("llama-mha", "llama-q4_k", "mixtral", "qwen3moe",
                                           "mistral-window"),
                         [](const auto& instance) {
                           std::string name = instance.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

}  // namespace
}  // namespace tandem::hybrid
