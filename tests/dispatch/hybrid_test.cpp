// Two processors, one program: whatever the placement and whatever the order in which the device goes on, the bits of the
// results are those of the CPU alone.
#include <functional>
#include <random>
#include <string>

#include "device/mirror/mirror_device.h"
#include "dispatch/executor.h"
#include "dispatch/placement.h"
#include "formats/gguf/gguf.h"
#include "golden.h"
#include "kernels_cpu/dispatch.h"
#include "model/decoder.h"
#include "status_matchers.h"

namespace tandem {
namespace {

using mirror::MirrorOptions;
using mirror::Order;
using testing::fails_with;
using testing::Golden;
using ::testing::HasSubstr;
using testing::is_ok;

// A model in memory, and the team that computes it.
struct Model {
  explicit Model(const std::string& name) {
    auto file = GgufFile::open(testing::golden_model(name));
    EXPECT_THAT(file, is_ok());
    auto built = build_decoder(*file);
    EXPECT_THAT(built, is_ok());
    program = std::move(built).value();
    auto opened = BlockStore::create(file->paths(), program.blocks);
    EXPECT_THAT(opened, is_ok());
    store = std::move(opened).value();
    EXPECT_THAT(store->load_all({}, never), is_ok());
    Team::Options options;
    options.n_threads = 2;
    auto made = Team::create(options);
    EXPECT_THAT(made, is_ok());
    team = std::move(made).value();
  }

  Program program;
  std::unique_ptr<BlockStore> store;
  std::unique_ptr<Team> team;
  CancelFlag never;
};

constexpr int64_t kContext = 192;

// What evaluates a model with a placement; without a device if that is empty.
struct Evaluation {
  Evaluation(Model& m, const Placement& chosen, const MirrorOptions& options)
      : model(m), placement(chosen) {
    Executor::Options executor_options{.max_tokens = 16, .max_outputs = 4};
    if (!placement.blocks.empty()) {
      auto made = mirror::create_device(options, *cpu::table_for(cpu::best_isa()));
      EXPECT_THAT(made, is_ok());
      device = std::move(made).value();
      executor_options.device = device.get();
      executor_options.placement = &placement;
      executor_options.max_context = kContext;
    }
    auto created = Executor::create(m.program, *m.store, *m.team, *cpu::table_for(cpu::best_isa()),
                                    executor_options);
    EXPECT_THAT(created, is_ok());
    executor = std::move(created).value();
    const ModelShape& s = m.program.shape;
    auto state =
        SequenceState::create({s.n_layers, s.n_kv_heads, s.head_width, KvType::kF16}, kContext);
    EXPECT_THAT(state, is_ok());
    sequence = std::move(state).value();
    executor->adopt(*sequence);
  }

  void forward(std::span<const int32_t> ids, bool want_logits) {
    if (before_step) before_step();
    EXPECT_THAT(executor->forward(ids, *sequence, want_logits, model.never), is_ok());
    if (after_step) after_step();
  }

  void append_logits(std::vector<float>& result, int64_t row) {
    const auto logits = executor->logits(row);
    result.insert(result.end(), logits.begin(), logits.end());
  }

  // A prompt in two chunks, all its logits, then some single tokens.
  std::vector<float> run() {
    std::vector<float> result;
    std::vector<int32_t> ids;
    for (int32_t i = 0; i < 80; ++i)
      ids.push_back((i * 37 + 11) % static_cast<int32_t>(model.program.shape.n_vocabulary));
    for (size_t first = 0; first < 64; first += 16) {
      forward({ids.data() + first, 16}, first == 32);
      if (first == 32) append_logits(result, 0);
      for (int64_t i = 0; i < 16; i += 4) {
        EXPECT_THAT(executor->compute_logits(i, 4, model.never), is_ok());
        for (int64_t row = 0; row < 4; ++row) append_logits(result, row);
      }
    }
    for (size_t i = 64; i < 80; ++i) {
      forward({ids.data() + i, 1}, true);
      append_logits(result, 0);
    }
    return result;
  }

  Model& model;
  Placement placement;
  std::unique_ptr<Device> device;
  std::unique_ptr<Executor> executor;
  std::unique_ptr<SequenceState> sequence;
  std::function<void()> before_step, after_step;
};

Placement all_on_cpu() { return {}; }

Placement placed(const Model& model, BlockPlace place) {
  Placement placement;
  placement.blocks.assign(model.program.blocks.size(), place);
  placement.kv_on_device.assign(static_cast<size_t>(model.program.shape.n_layers),
                                place.on_device());
  placement.cached_layers.assign(static_cast<size_t>(model.program.shape.n_layers), false);
  return placement;
}

// Every block and every layer's attention on a side of its own.
Placement random_placement(const Model& model, uint64_t seed) {
  std::mt19937_64 random(seed);
  Placement placement = placed(model, kInDram);
  for (BlockPlace& place : placement.blocks) place = random() % 2 == 0 ? kInDram : kOnDevice;
  for (size_t layer = 0; layer < placement.kv_on_device.size(); ++layer) {
    placement.kv_on_device[layer] = random() % 2 == 0;
  }
  return placement;
}

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

// Dense parts on the device, experts in DRAM and a cache of few slots, or of all that the model has.
Placement cached(const Model& model, uint64_t n_slots) {
  Placement placement = placed(model, kOnDevice);
  for (size_t block = 0; block < placement.blocks.size(); ++block) {
    const BlockSpec& spec = model.program.blocks[block];
    if (spec.name.find(".expert.") == std::string::npos) continue;
    placement.blocks[block] = kInDram;
    placement.expert_slot_bytes = std::max(placement.expert_slot_bytes, device_bytes(spec));
  }
  placement.n_expert_slots = n_slots;
  placement.cached_layers.assign(placement.cached_layers.size(), true);
  return placement;
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
}  // namespace tandem
