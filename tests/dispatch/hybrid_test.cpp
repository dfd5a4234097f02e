// Two processors, one program: whatever the placement and whatever the order in which the device goes on, the bits of the
// results are those of the CPU alone, and every access is ordered.
#include "dispatch/hybrid.h"

#include <atomic>
#include <thread>

#include "base/checked.h"

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

// A step of many layers is more than a card's stream takes before the CPU has done its part.
TEST_P(HybridTest, AStepThatFillsTheStreamGivesTheBitsOfTheCpu) {
  for (uint64_t seed = 1; seed <= 12; ++seed) {
    MirrorOptions options;
    options.poison = true;
    options.depth = 16;
    options.order = seed % 3 == 0 ? Order::kThreads : seed % 3 == 1 ? Order::kLazy : Order::kRandom;
    options.seed = seed;
    EXPECT_EQ(expected_, Evaluation(model_, random_placement(model_, seed), options).run())
        << "seed " << seed;
  }
}

TEST_P(HybridTest, AStepThatFillsTheStreamCanBeCancelled) {
  for (int64_t share = 0; share < 8; ++share) {
    MirrorOptions options;
    options.poison = true;
    options.depth = 16;
    options.order = share % 2 == 0 ? Order::kThreads : Order::kLazy;
    Evaluation evaluation(model_, random_placement(model_, 3), options);
    CancelFlag cancel;
    const Executor::ShareCallback stop = [&](double done) {
      if (done * 8 >= static_cast<double>(share)) cancel.cancel();
    };
    const std::vector<int32_t> ids(16, 5);
    EXPECT_THAT(evaluation.executor->forward(ids, *evaluation.sequence, true, cancel, &stop),
                testing::fails_with(Code::kCancelled, ::testing::HasSubstr("cancelled")));
    EXPECT_EQ(expected_, evaluation.run());
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

TEST_P(ExpertCacheTest, ExpertsFetchedWhenTheyAreChosenGiveTheBitsOfTheCpu) {
  for (const uint64_t n_slots : {1, 3, 7, 64}) {
    for (const Order order : {Order::kThreads, Order::kLazy, Order::kRandom}) {
      MirrorOptions options;
      options.poison = true;
      options.order = order;
      options.seed = n_slots;
      Evaluation evaluation(model_, cached(model_, n_slots), options, nullptr, {.fetch = true});
      EXPECT_EQ(expected_, evaluation.run())
          << n_slots << " slots, order " << static_cast<int>(order);
    }
  }
}

// With as many slots as experts are used, nothing is left to the CPU.
TEST_P(ExpertCacheTest, WithRoomForAllThatAreChosenTheDeviceComputesThemAll) {
  const auto n_used = static_cast<uint64_t>(model_.program.shape.n_experts_used);
  Evaluation evaluation(model_, cached(model_, n_used), {}, nullptr, {.fetch = true});
  const std::vector<int32_t> ids = {1, 2, 3, 4, 5};
  for (size_t i = 0; i < ids.size(); ++i) evaluation.forward({ids.data() + i, 1}, false);
  const ExpertCache::Counters counters = evaluation.executor->expert_counters();
  EXPECT_EQ(counters.misses, counters.loads);
}

TEST_P(ExpertCacheTest, PromptsSplitByPredictedTimesGiveTheBitsOfTheCpu) {
  uint64_t n_loads = 0;
  for (const double device_speed : {0.01, 1.0, 100.0}) {
    for (const double link : {1e6, 1e9, 1e12}) {
      for (const uint64_t n_slots : {2, 9}) {
        MirrorOptions options;
        options.poison = true;
        options.order = link == 1e9 ? Order::kLazy : Order::kRandom;
        options.seed = n_slots;
        Evaluation evaluation(model_, cached(model_, n_slots), options, nullptr,
                              {.rates = rates(device_speed, link)});
        EXPECT_EQ(expected_, evaluation.run())
            << n_slots << " slots, device " << device_speed << ", link " << link;
        n_loads += evaluation.executor->expert_counters().loads;
      }
    }
  }
  EXPECT_GT(n_loads, 0u);
}

TEST_P(ExpertCacheTest, FetchesFollowABudgetThatShrinksAndGrows) {
  MirrorOptions options;
  options.poison = true;
  Evaluation evaluation(model_, cached(model_, 16), options, nullptr, {.fetch = true});
  const uint64_t all = evaluation.device->used_bytes();
  const uint64_t slot = evaluation.placement.expert_slot_bytes;
  int n = 0;
  evaluation.before_step = [&] {
    evaluation.device->set_budget(all - static_cast<uint64_t>(n++ % 6) * 3 * slot);
  };
  evaluation.after_step = [&] {
    EXPECT_LE(evaluation.device->used_bytes(), evaluation.device->budget_bytes());
  };
  EXPECT_EQ(expected_, evaluation.run());
}

// Whichever copy fails, the step says so or is right, and what was not copied is not taken for the expert.
TEST_P(ExpertCacheTest, AFailedFetchIsToldAndForgotten) {
  const std::vector<int32_t> ids = {1, 2, 3, 4, 5, 6};
  const auto last_of = [&](Evaluation& evaluation) {
    for (size_t i = 0; i < ids.size(); ++i) evaluation.forward({ids.data() + i, 1}, true);
    std::vector<float> logits;
    evaluation.append_logits(logits, 0);
    return logits;
  };
  Evaluation alone(model_, all_on_cpu(), {});
  const std::vector<float> expected = last_of(alone);
  const Placement placement = cached(model_, 4);
  uint64_t n_before = 3 * static_cast<uint64_t>(model_.program.shape.n_layers);  // tables
  for (size_t block = 0; block < placement.blocks.size(); ++block) {
    if (placement.blocks[block].on_device())
      n_before += model_.program.blocks[block].extents.size();
  }
  int n_failed = 0;
  for (uint64_t nth = 1; nth < 60; ++nth) {
    MirrorOptions options;
    options.poison = true;
    options.faults.copy = n_before + nth;
    Evaluation evaluation(model_, placement, options, nullptr, {.fetch = true});
    std::vector<float> logits;
    for (size_t i = 0; i < ids.size(); ++i) {
      const std::span<const int32_t> token(ids.data() + i, 1);
      const Status done =
          evaluation.executor->forward(token, *evaluation.sequence, true, model_.never);
      if (done.ok()) continue;
      EXPECT_EQ(done.code(), Code::kDevice) << done.message();
      ++n_failed;
      evaluation.forward(token, true);
    }
    evaluation.append_logits(logits, 0);
    ASSERT_EQ(expected, logits) << "copy " << nth;
  }
  EXPECT_GT(n_failed, 5);
}

TEST_P(ExpertCacheTest, ACancelledStepOfFetchesEndsAndTheNextGivesTheBits) {
  MirrorOptions options;
  options.order = Order::kLazy;
  Evaluation evaluation(model_, cached(model_, 7), options, nullptr, {.fetch = true});
  CancelFlag cancel;
  cancel.cancel();
  const std::vector<int32_t> ids = {1, 2, 3};
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(evaluation.executor->forward(ids, *evaluation.sequence, true, cancel).code(),
              Code::kCancelled);
  }
  EXPECT_EQ(expected_, evaluation.run());
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

TEST_P(ExpertCacheTest, SlotsCanBeCountedBesideStepsThatChangeThem) {
  constexpr uint64_t kSlots = 16;
  Evaluation evaluation(model_, cached(model_, kSlots), MirrorOptions());
  const uint64_t all = evaluation.device->used_bytes();
  const uint64_t slot = evaluation.placement.expert_slot_bytes;
  int n = 0;
  evaluation.before_step = [&] {
    evaluation.device->set_budget(all - static_cast<uint64_t>(n++ % 5) * 3 * slot);
  };
  std::atomic<bool> done = false;
  std::thread reader([&] {
    while (!done.load(std::memory_order_relaxed)) {
      EXPECT_LE(evaluation.executor->expert_slots(), kSlots);
    }
  });
  EXPECT_EQ(expected_, evaluation.run());
  done.store(true, std::memory_order_relaxed);
  reader.join();
}

// Slots that fill the room of keys and values make way for them, page by page.
TEST_P(ExpertCacheTest, PagesTakeThePlaceOfSlots) {
  MirrorOptions options;
  options.poison = true;
  const Program& program = model_.program;
  const auto n_experts = static_cast<uint64_t>(program.shape.n_experts * program.shape.n_layers);
  Evaluation evaluation(model_, cached(model_, n_experts), options);
  evaluation.device->set_budget(evaluation.device->used_bytes());  // all slots, not one page
  EXPECT_EQ(expected_, evaluation.run());
  EXPECT_TRUE(evaluation.sequence->device()->holds(evaluation.sequence->size()));
  EXPECT_LT(evaluation.executor->expert_slots(), n_experts);
  EXPECT_LE(evaluation.device->used_bytes(), evaluation.device->budget_bytes());
}

// Memory and copies both: no token waits for all of them.
TEST_P(ExpertCacheTest, AfterTheBudgetGrewSlotsFillAFewPerStep) {
  constexpr uint64_t kMostSlots = 16, kMostLoads = 4;  // of one step
  MirrorOptions options;
  const Program& program = model_.program;
  const auto n_experts = static_cast<uint64_t>(program.shape.n_experts * program.shape.n_layers);
  Evaluation evaluation(model_, cached(model_, n_experts), options);
  const uint64_t all = evaluation.device->used_bytes();
  const uint64_t slot = evaluation.placement.expert_slot_bytes;
  const auto loads = [&] { return evaluation.executor->expert_counters().loads; };
  const std::vector<int32_t> ids = {1, 2, 3, 4, 5, 6, 7, 8};
  for (const uint64_t n_slots : {n_experts, uint64_t{0}, n_experts}) {
    evaluation.device->set_budget(all - (n_experts - n_slots) * slot);
    for (size_t i = 0; i < ids.size(); ++i) {
      const uint64_t used = evaluation.device->used_bytes(), loaded = loads();
      evaluation.forward({ids.data() + i, 1}, false);
      const uint64_t page = align_up(evaluation.sequence->device()->group_bytes(), 256);
      EXPECT_LE(evaluation.device->used_bytes(), used + kMostSlots * slot + page);
      EXPECT_LE(loads(), loaded + kMostLoads);
      EXPECT_LE(evaluation.device->used_bytes(), evaluation.device->budget_bytes());
    }
  }
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
