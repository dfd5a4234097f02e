// Two processors, one program: whatever the placement and whatever the order in which the device goes on, the bits of the
// results are those of the CPU alone.
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
      EXPECT_THAT(executor->forward({ids.data() + first, 16}, *sequence, first == 32, model.never),
                  is_ok());
      if (first == 32) append_logits(result, 0);
      for (int64_t i = 0; i < 16; i += 4) {
        EXPECT_THAT(executor->compute_logits(i, 4, model.never), is_ok());
        for (int64_t row = 0; row < 4; ++row) append_logits(result, row);
      }
    }
    for (size_t i = 64; i < 80; ++i) {
      EXPECT_THAT(executor->forward({ids.data() + i, 1}, *sequence, true, model.never), is_ok());
      append_logits(result, 0);
    }
    return result;
  }

  Model& model;
  Placement placement;
  std::unique_ptr<Device> device;
  std::unique_ptr<Executor> executor;
  std::unique_ptr<SequenceState> sequence;
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
