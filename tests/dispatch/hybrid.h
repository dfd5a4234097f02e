// What the tests of two processors share: a model, an executor with a mirror device, and placements.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "device/checked_device.h"
#include "device/mirror/mirror_device.h"
#include "dispatch/executor.h"
#include "dispatch/placement.h"
#include "formats/gguf/gguf.h"
#include "golden.h"
#include "kernels_cpu/dispatch.h"
#include "model/decoder.h"
#include "status_matchers.h"

namespace tandem::hybrid {

using mirror::MirrorOptions;
using mirror::Order;
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

inline constexpr int64_t kContext = 192;

// Who computes experts that the device lacks: the CPU, or what the middle of a step decides.
struct ExpertRules {
  bool fetch = false;                                  // all go to the device
  std::optional<PredictorRates> rates = std::nullopt;  // prompts are split by predicted times
  uint64_t left_out_wait = 0;                          // see CheckedDevice; 0: none
};

// What evaluates a model with a placement; without a device if that is empty.
struct Evaluation {
  // Every access to the device's memory is checked for order; `checker` is told where.
  Evaluation(Model& m, const Placement& chosen, const MirrorOptions& options,
             CheckedDevice** checker = nullptr, const ExpertRules& rules = {})
      : model(m), placement(chosen) {
    Executor::Options executor_options{.max_tokens = 16, .max_outputs = 4};
    executor_options.fetch_experts = rules.fetch;
    if (rules.rates) recorder = std::make_unique<StepRecorder>(*rules.rates, 64);
    executor_options.recorder = recorder.get();
    if (!placement.blocks.empty()) {
      auto made = mirror::create_device(options, *cpu::table_for(cpu::best_isa()));
      EXPECT_THAT(made, is_ok());
      auto checked_device = check_order(std::move(made).value(), rules.left_out_wait);
      checked = checked_device.get();
      if (checker != nullptr) *checker = checked;
      device = std::move(checked_device);
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
    if (checked != nullptr) {
      EXPECT_THAT(checked->check(), is_ok());
    }
    return result;
  }

  Model& model;
  Placement placement;
  std::unique_ptr<StepRecorder> recorder;
  std::unique_ptr<Device> device;
  CheckedDevice* checked = nullptr;  // the same
  std::unique_ptr<Executor> executor;
  std::unique_ptr<SequenceState> sequence;
  std::function<void()> before_step, after_step;
};

inline Placement all_on_cpu() { return {}; }

inline Placement placed(const Model& model, BlockPlace place) {
  Placement placement;
  placement.blocks.assign(model.program.blocks.size(), place);
  placement.kv_on_device.assign(static_cast<size_t>(model.program.shape.n_layers),
                                place.on_device());
  placement.cached_layers.assign(static_cast<size_t>(model.program.shape.n_layers), false);
  return placement;
}

inline bool is_expert(const BlockSpec& block) {
  return block.name.find(".expert.") != std::string::npos;
}

// Every block and every layer's attention on a side of its own.
inline Placement random_placement(const Model& model, uint64_t seed) {
  std::mt19937_64 random(seed);
  Placement placement = placed(model, kInDram);
  for (size_t block = 0; block < placement.blocks.size(); ++block) {
    const BlockSpec& spec = model.program.blocks[block];
    const uint64_t drawn = random() % 3;
    placement.blocks[block] = drawn == 0                      ? kInDram
                              : drawn == 1 || is_expert(spec) ? kOnDevice
                                                              : kStreamed;
    placement.stream_buffer_bytes = std::max(placement.stream_buffer_bytes, device_bytes(spec));
  }
  for (size_t layer = 0; layer < placement.kv_on_device.size(); ++layer) {
    placement.kv_on_device[layer] = random() % 2 == 0;
  }
  return placement;
}

// Dense parts on the device, experts in DRAM and a cache of few slots, or of all that the model has.
inline Placement cached(const Model& model, uint64_t n_slots) {
  Placement placement = placed(model, kOnDevice);
  for (size_t block = 0; block < placement.blocks.size(); ++block) {
    const BlockSpec& spec = model.program.blocks[block];
    if (!is_expert(spec)) continue;
    placement.blocks[block] = kInDram;
    placement.expert_slot_bytes = std::max(placement.expert_slot_bytes, device_bytes(spec));
  }
  placement.n_expert_slots = n_slots;
  placement.cached_layers.assign(placement.cached_layers.size(), true);
  return placement;
}

// What a predictor begins with: a device so many times as fast as the CPU.
inline PredictorRates rates(double device_speed, double link_bytes_per_second) {
  PredictorRates result;
  result.cpu = {1e10, 1e11, 1e-7};
  result.device = {1e10 * device_speed, 1e11 * device_speed, 1e-7};
  result.link_bytes_per_second = link_bytes_per_second;
  result.link_latency_seconds = 1e-7;
  return result;
}

}  // namespace tandem::hybrid
