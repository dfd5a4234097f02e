// What the executor says each step took, beside what was predicted.
#include "dispatch/step_recorder.h"

#include <atomic>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "device/mirror/mirror_device.h"
#include "dispatch/executor.h"
#include "formats/gguf/gguf.h"
#include "golden.h"
#include "kernels_cpu/dispatch.h"
#include "model/decoder.h"
#include "status_matchers.h"

namespace tandem {
namespace {

using testing::is_ok;
using testing::TemporaryFolder;

TEST(FinishTimes, LanesThatDoNotWaitEndWithTheLonger) {
  Schedule schedule;
  schedule.cpu.resize(2);
  schedule.device.resize(3);
  std::vector<double> cpu = {1, 2}, device = {1, 1, 2};
  EXPECT_EQ(4, finish_times(schedule, cpu, device));
  EXPECT_EQ((std::vector<double>{1, 3}), cpu);
  EXPECT_EQ((std::vector<double>{1, 2, 4}), device);
}

TEST(FinishTimes, ATaskBeginsWhenWhatItWaitsForHasEnded) {
  Schedule schedule;
  schedule.cpu.resize(2);
  schedule.device.resize(3);
  schedule.device[0].announce = true;
  schedule.cpu[1].wait = 1;
  schedule.cpu[1].announce = true;
  schedule.device[2].wait = 2;
  std::vector<double> cpu = {1, 3}, device = {5, 1, 1};
  EXPECT_EQ(9, finish_times(schedule, cpu, device));
  EXPECT_EQ((std::vector<double>{1, 8}), cpu);
  EXPECT_EQ((std::vector<double>{5, 6, 9}), device);
}

PredictorRates some_rates() {
  PredictorRates rates;
  rates.cpu = {10e9, 1e11, 2e-6};
  rates.device = {100e9, 1e12, 5e-6};
  rates.link_bytes_per_second = 10e9;
  rates.link_latency_seconds = 10e-6;
  return rates;
}

// A mixture of experts, the odd experts on the CPU and all else but embeddings on the device.
struct Recorded {
  explicit Recorded(size_t records_per_lane = 1 << 14) : recorder(some_rates(), records_per_lane) {
    auto file = GgufFile::open(testing::golden_model("mixtral"));
    EXPECT_THAT(file, is_ok());
    program = std::move(build_decoder(*file)).value();
    store = std::move(BlockStore::create(file->paths(), program.blocks)).value();
    EXPECT_THAT(store->load_all({}, never), is_ok());
    Team::Options team_options;
    team_options.n_threads = 1;
    team = std::move(Team::create(team_options)).value();
    const auto layers = static_cast<size_t>(program.shape.n_layers);
    placement.blocks.assign(program.blocks.size(), kOnDevice);
    placement.kv_on_device.assign(layers, true);
    placement.cached_layers.assign(layers, false);
    size_t n_experts = 0;
    for (size_t i = 0; i < program.blocks.size(); ++i) {
      const bool expert = program.blocks[i].name.find(".expert.") != std::string::npos;
      if (expert && n_experts++ % 2 == 1) placement.blocks[i] = kInDram;
    }
    const cpu::KernelTable& kernels = *cpu::table_for(cpu::best_isa());
    device = std::move(mirror::create_device({}, kernels)).value();
    Executor::Options options{.max_tokens = 16, .max_outputs = 4};
    options.device = device.get();
    options.placement = &placement;
    options.max_context = 128;
    options.recorder = &recorder;
    executor = std::move(Executor::create(program, *store, *team, kernels, options)).value();
    EXPECT_THAT(device->set_observer(&recorder), is_ok());
    const ModelShape& s = program.shape;
    sequence = std::move(SequenceState::create(
                             {s.n_layers, s.n_kv_heads, s.head_width, KvType::kF16}, 128))
                   .value();
    executor->adopt(*sequence);
  }
  void step(std::vector<int32_t> ids) {
    EXPECT_THAT(executor->forward(ids, *sequence, true, never), is_ok());
  }

  CancelFlag never;
  Program program;
  Placement placement;
  StepRecorder recorder;
  std::unique_ptr<BlockStore> store;
  std::unique_ptr<Team> team;
  std::unique_ptr<Device> device;
  std::unique_ptr<Executor> executor;
  std::unique_ptr<SequenceState> sequence;
};

const TraceSummary::Lane& lane(const TraceSummary& summary, TraceLane which) {
  return summary.lanes[static_cast<size_t>(which)];
}

TEST(StepRecorder, WritesEveryTaskOfBothLanes) {
  Recorded model;
  const std::vector<Processor> processors = processors_of(model.program, model.placement);
  uint64_t n_on_device = 0;
  for (const Processor processor : processors) n_on_device += processor != Processor::kCpu;
  model.step({1, 2, 3});
  model.step({4});
  const TraceSummary summary = model.recorder.summarize();
  EXPECT_EQ(2u, lane(summary, TraceLane::kStep).n_records);
  EXPECT_GE(lane(summary, TraceLane::kDevice).n_records, 2 * n_on_device);
  const LoweredProgram lowered = lower(model.program, {1, 1, 1, processors});
  const Schedule schedule =
      make_schedule(model.program, lowered, 0, static_cast<uint32_t>(lowered.steps.size()), {});
  EXPECT_EQ(2 * schedule.cpu.size(), lane(summary, TraceLane::kCpu).n_records);
  EXPECT_GT(lane(summary, TraceLane::kLinkUp).n_records, 0u);
  EXPECT_GT(lane(summary, TraceLane::kLinkDown).n_records, 0u);
  EXPECT_EQ(0u, summary.n_dropped);
  EXPECT_LE(lane(summary, TraceLane::kCpu).busy_seconds,
            lane(summary, TraceLane::kStep).busy_seconds);
}

TEST(Schedule, TheCpuWaitsOnceForWhatItsExpertsOfALayerNeed) {
  const Recorded model;
  const LoweredProgram lowered =
      lower(model.program, {1, 1, 1, processors_of(model.program, model.placement)});
  const Schedule schedule =
      make_schedule(model.program, lowered, 0, static_cast<uint32_t>(lowered.steps.size()), {});
  const auto n_waits = std::count_if(schedule.cpu.begin(), schedule.cpu.end(),
                                     [](const CpuTask& task) { return task.wait > 0; });
  EXPECT_EQ(model.program.shape.n_layers, n_waits);
}

TEST(StepRecorder, LearnsWhatTasksTake) {
  Recorded model;
  for (int32_t i = 0; i < 20; ++i) model.step({i});
  model.recorder.clear();
  for (int32_t i = 20; i < 40; ++i) model.step({i});
  const TemporaryFolder folder;
  ASSERT_THAT(model.recorder.write_perfetto(folder / "trace.json"), is_ok());
  std::ifstream file(folder / "trace.json");
  const auto trace = nlohmann::json::parse(file, nullptr, false);
  ASSERT_FALSE(trace.is_discarded());
  double predicted = 0, measured = 0;
  for (const auto& event : trace["traceEvents"]) {
    if (event.value("cat", "") != lane_name(TraceLane::kCpu)) continue;
    predicted += event["args"]["predicted_us"].get<double>();
    measured += event["dur"].get<double>();
  }
  // Other programs run here too, so the bounds are loose; the rates that it began with are wrong by more.
  EXPECT_GT(predicted, measured / 4);
  EXPECT_LT(predicted, measured * 4);
}

TEST(StepRecorder, PredictsWholeSteps) {
  Recorded model;
  for (int32_t i = 0; i < 4; ++i) model.step({i});
  const TraceSummary summary = model.recorder.summarize();
  const auto is_step = [](const auto& p) {
    return p.lane == TraceLane::kStep && p.name == "decode" && p.count == 4;
  };
  EXPECT_TRUE(std::any_of(summary.predictions.begin(), summary.predictions.end(), is_step));
}

TEST(StepRecorder, SummariesBesideStepsThatOverwriteOldRecordsMakeSense) {
  constexpr size_t kRecords = 128;  // a few steps
  Recorded model(kRecords);
  std::atomic<bool> done = false;
  std::thread reader([&] {
    while (!done.load(std::memory_order_relaxed)) {
      const TraceSummary summary = model.recorder.summarize();
      for (const TraceSummary::Lane& each : summary.lanes) {
        EXPECT_LE(each.n_records, kRecords);
        EXPECT_GE(each.busy_seconds, 0);
        EXPECT_LE(each.busy_seconds, summary.seconds);
      }
    }
  });
  for (int32_t i = 0; i < 64; ++i) model.step({i});
  done.store(true, std::memory_order_relaxed);
  reader.join();
  EXPECT_GT(model.recorder.summarize().n_dropped, 0u);
}

TEST(StepRecorder, AStepThatIsCancelledLeavesItUsable) {
  Recorded model;
  model.never.cancel();
  const std::vector<int32_t> ids = {1, 2, 3};
  EXPECT_EQ(Code::kCancelled,
            model.executor->forward(ids, *model.sequence, true, model.never).code());
  model.never.reset();
  model.recorder.clear();
  model.step({1});
  EXPECT_EQ(1u, lane(model.recorder.summarize(), TraceLane::kStep).n_records);
}

}  // namespace
}  // namespace tandem
