// Do the lanes of two processors run at the same time?  See README.md for what is measured, and how.
//
//   overlap [--rounds N] [--layers N] [--limit X] [--traces FOLDER] CONFIGURATION.json...
//
// --limit: for tests on busy machines: rounds show their best step and end as soon as each ratio was within the limit; the
// program ends with 1 when one never was.  --traces: the last step of each configuration is written
// there for ui.perfetto.dev.

#include <sched.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "device/mirror/mirror_device.h"
#include "dispatch/device_lane.h"
#include "dispatch/executor.h"
#include "formats/gguf/gguf.h"
#include "formats/synth.h"
#include "kernels_cpu/dispatch.h"
#include "model/decoder.h"

namespace tandem {
namespace {

using Json = nlohmann::json;

constexpr int64_t kContext = 1024;
constexpr int32_t kToken = 1;
const CancelFlag kNever;

struct Configuration {
  std::string name;
  double device_over_cpu = 1;
  PublicShape shape = {};
  std::string type;
  PlaceFile places;
  mirror::MirrorOptions device;
};

// nlohmann-json throws on what is missing; main() catches.
Result<Configuration> read_configuration(const std::filesystem::path& path) {
  std::ifstream file(path);
  const Json json = Json::parse(file);
  Configuration result;
  result.name = path.stem().string();
  result.device_over_cpu = json.at("device_over_cpu");
  const Json& model = json.at("model");
  const PublicShape* like = find_public_shape("qwen3-30b-a3b");
  if (model.at("architecture") != like->architecture) return invalid_argument("architecture");
  PublicShape& shape = result.shape = *like;
  shape.layers = model.at("layers");
  shape.width = model.at("width");
  shape.heads = model.at("heads");
  shape.kv_heads = model.at("kv_heads");
  shape.head_width = model.at("head_width");
  shape.experts = model.at("experts");
  shape.experts_used = model.at("experts_used");
  shape.expert_ff_width = model.at("expert_ff_width");
  shape.vocabulary = model.at("vocabulary");
  shape.context = model.at("context");
  result.type = model.at("type");
  TANDEM_ASSIGN_OR_RETURN(result.places, read_place_file(json.at("place").dump()));
  TANDEM_ASSIGN_OR_RETURN(result.device,
                          mirror::parse_mirror_options(json.at("device").get<std::string>()));
  TANDEM_ASSIGN_OR_RETURN(result.device.profile, mirror::read_profile(json.at("profile").dump()));
  result.device.timed = true;
  return result;
}

// A file that goes with its owner.
class TemporaryFile {
 public:
  TemporaryFile() {
    std::string name = (std::filesystem::temp_directory_path() / "overlap-XXXXXX").string();
    if (::mkdtemp(name.data()) != nullptr) folder_ = name;
  }
  ~TemporaryFile() {
    std::error_code ignored;
    if (!folder_.empty()) std::filesystem::remove_all(folder_, ignored);
  }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;
  std::filesystem::path path() const { return folder_ / "model.gguf"; }

 private:
  std::filesystem::path folder_;
};

// A model in memory, one thread that computes it, and who computes what.
struct Model {
  Program program;
  std::unique_ptr<BlockStore> store;
  std::unique_ptr<Team> team;
  Placement placement;
  const cpu::KernelTable& kernels = *cpu::table_for(cpu::best_isa());

  KvLayout kv_layout() const {
    const ModelShape& s = program.shape;
    return {s.n_layers, s.n_kv_heads, s.head_width, KvType::kF16};
  }
};

Result<std::unique_ptr<Model>> make_model(const Configuration& configuration) {
  const TemporaryFile file;
  SynthOptions options;
  options.output = file.path();
  options.type = dtype_from_name(configuration.type).value();
  TANDEM_RETURN_IF_ERROR(synthesize(configuration.shape, options, {}, kNever));
  auto model = std::make_unique<Model>();
  TANDEM_ASSIGN_OR_RETURN(const GgufFile gguf, GgufFile::open(file.path()));
  TANDEM_ASSIGN_OR_RETURN(model->program, build_decoder(gguf));
  TANDEM_ASSIGN_OR_RETURN(model->store, BlockStore::create(gguf.paths(), model->program.blocks));
  TANDEM_RETURN_IF_ERROR(model->store->load_all({}, kNever));
  Team::Options team;
  team.n_threads = 1;
  TANDEM_ASSIGN_OR_RETURN(model->team, Team::create(team));
  PlacementOptions placement;
  placement.expert_cache = false;
  placement.file = configuration.places;
  const DeviceSpace space{configuration.device.memory_bytes, 0,
                          model->kv_layout().bytes_for(kContext) / configuration.shape.layers};
  TANDEM_ASSIGN_OR_RETURN(model->placement, choose_placement(model->program, placement, space));
  return model;
}

// A device has silicon of its own.  The mirror's threads therefore run on the last processor that this program may use,
// and the CPU's lane on the first; threads run where those that make them do.  Without this a scheduler may put the thread
// that raises a flag and the one that it wakes on one processor, one behind the other.
class Processors {
 public:
  Processors() {
    cpu_set_t allowed;
    CPU_ZERO(&allowed);
    if (::sched_getaffinity(0, sizeof(allowed), &allowed) != 0) return;
    for (int i = 0; i < CPU_SETSIZE; ++i) {
      if (!CPU_ISSET(i, &allowed)) continue;
      if (first_ < 0) first_ = i;
      last_ = i;
    }
  }
  bool enough() const { return first_ != last_; }
  void use_the_devices() const { use(last_); }
  void use_the_cpus() const { use(first_); }

 private:
  static void use(int processor) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(processor, &set);
    ::sched_setaffinity(0, sizeof(set), &set);
  }
  int first_ = -1, last_ = -1;
};

// Seconds of one step.
struct Times {
  double wall = 0, cpu = 0, device = 0;
};

Times times_of(const StepRecorder& recorder) {
  const TraceSummary summary = recorder.summarize();
  const auto busy = [&](TraceLane lane) {
    return summary.lanes[static_cast<size_t>(lane)].busy_seconds;
  };
  return {busy(TraceLane::kStep), busy(TraceLane::kCpu),
          busy(TraceLane::kDevice) + busy(TraceLane::kLinkUp) + busy(TraceLane::kLinkDown)};
}

PredictorRates some_rates() {
  const ProcessorRates any{10e9, 1e11, 1e-6};
  return {any, any, 10e9, 10e-6};
}

// Both lanes, as the engine runs them.
class Together {
 public:
  static Result<std::unique_ptr<Together>> create(Model& model,
                                                  const mirror::MirrorOptions& device) {
    std::unique_ptr<Together> made(new Together());
    TANDEM_ASSIGN_OR_RETURN(made->device_, mirror::create_device(device, model.kernels));
    Executor::Options options{.max_tokens = 1, .max_outputs = 1};
    options.device = made->device_.get();
    options.placement = &model.placement;
    options.max_context = kContext;
    options.recorder = &made->recorder_;
    TANDEM_ASSIGN_OR_RETURN(made->executor_, Executor::create(model.program, *model.store,
                                                              *model.team, model.kernels, options));
    TANDEM_RETURN_IF_ERROR(made->device_->set_observer(&made->recorder_));
    TANDEM_ASSIGN_OR_RETURN(made->sequence_, SequenceState::create(model.kv_layout(), kContext));
    made->executor_->adopt(*made->sequence_);
    return made;
  }

  Result<Times> step() {
    recorder_.clear();
    const int32_t ids[] = {kToken};
    TANDEM_RETURN_IF_ERROR(executor_->forward(ids, *sequence_, true, kNever));
    return times_of(recorder_);
  }
  // Of the last step.
  Status write_trace(const std::filesystem::path& path) const {
    return recorder_.write_perfetto(path);
  }

 private:
  Together() = default;
  StepRecorder recorder_{some_rates(), 1 << 12};
  std::unique_ptr<Device> device_;
  std::unique_ptr<Executor> executor_;
  std::unique_ptr<SequenceState> sequence_;
};

// The device's lane of the same step.  Its waits are for the CPU's progress, which is announced at once.
class DeviceAlone final : public DeviceObserver {
 public:
  static Result<std::unique_ptr<DeviceAlone>> create(Model& model,
                                                     const mirror::MirrorOptions& options) {
    std::unique_ptr<DeviceAlone> made(new DeviceAlone(model.program));
    const Program& program = model.program;
    TANDEM_ASSIGN_OR_RETURN(made->device_, mirror::create_device(options, model.kernels));
    made->lowered_ = lower(program, {1, 1, 1, processors_of(program, model.placement)});
    const size_t arena_bytes = (made->lowered_.arena_bytes + 4095) / 4096 * 4096;
    TANDEM_ASSIGN_OR_RETURN(made->arena_, made->device_->allocate_host(arena_bytes));
    TANDEM_ASSIGN_OR_RETURN(
        made->lane_,
        DeviceLane::create(*made->device_, program, model.placement, *model.store,
                           {1, kContext, arena_bytes}, {}, {{}, or_never(nullptr)}, {}));
    made->constants_ = operation_constants(program.shape, {}, KvType::kF16);
    made->operations_ = made->lane_->ready(program, made->lowered_, made->constants_);
    made->schedule_ = make_schedule(program, made->lowered_, 0,
                                    static_cast<uint32_t>(made->lowered_.steps.size()), {});
    TANDEM_ASSIGN_OR_RETURN(made->sequence_, SequenceState::create(model.kv_layout(), kContext));
    made->sequence_->set_device(made->lane_->make_kv(model.kv_layout()));
    TANDEM_RETURN_IF_ERROR(made->device_->set_observer(made.get()));
    return made;
  }
  ~DeviceAlone() override {
    sequence_ = nullptr;
    lane_ = nullptr;
    if (device_ != nullptr) device_->free_host(arena_);
  }

  Result<Times> step() {
    busy_ns_ = 0;
    const int32_t ids[] = {kToken};
    const StepInput input{.n_tokens = 1,
                          .first_position = sequence_->size(),
                          .first_output = 0,
                          .n_outputs = 1,
                          .ids = ids,
                          .pages = sequence_->pages()};
    const Clock::time_point start = Clock::now();
    TANDEM_RETURN_IF_ERROR(lane_->prepare(*sequence_, sequence_->size() + 1).status());
    const Status submitted = lane_->submit(
        {&program_, &schedule_, &lowered_, operations_, arena_, &input, sequence_.get()});
    lane_->announce(INT32_MAX);
    TANDEM_RETURN_IF_ERROR(lane_->finish());
    TANDEM_RETURN_IF_ERROR(submitted);
    const double wall = seconds_since(start);
    sequence_->append(1);
    sequence_->device()->appended(sequence_->size());
    return Times{wall, 0, static_cast<double>(busy_ns_) * 1e-9};
  }

  void observed(const DeviceActivity& activity) noexcept override {
    busy_ns_ += activity.end_ns - activity.begin_ns;
  }

 private:
  explicit DeviceAlone(const Program& program) : program_(program) {}
  const Program& program_;
  std::unique_ptr<Device> device_;
  LoweredProgram lowered_;
  OperationConstants constants_;
  std::byte* arena_ = nullptr;
  std::unique_ptr<DeviceLane> lane_;
  std::vector<Operation> operations_;
  Schedule schedule_;
  std::unique_ptr<SequenceState> sequence_;
  int64_t busy_ns_ = 0;  // one stream: times do not overlap
};

struct Spread {
  double lowest = 0, median = 0, highest = 0;
};

Spread spread_of(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return {values.front(), values[values.size() / 2], values.back()};
}

template <typename Part>
Result<double> median_of(Part& part, double Times::*field, int n) {
  std::vector<double> values;
  for (int i = 0; i < n + 2; ++i) {
    TANDEM_ASSIGN_OR_RETURN(const Times times, part.step());
    if (i >= 2) values.push_back(times.*field);  // the first are cold
  }
  return spread_of(values).median;
}

mirror::MirrorOptions without_times(mirror::MirrorOptions options) {
  options.profile = {};
  options.link_gb_per_s = options.latency_us = 0;
  return options;
}

// The rate of experts' weights with which the device's lane takes what the configuration wants.
Status set_rate(Model& model, double cpu_seconds, Configuration& configuration) {
  mirror::OperationTime& expert = configuration.device.profile.times[OpKind::kExpertMatmul];
  expert.gb_per_s = 0;
  TANDEM_ASSIGN_OR_RETURN(const auto lane, DeviceAlone::create(model, configuration.device));
  TANDEM_ASSIGN_OR_RETURN(const double others, median_of(*lane, &Times::device, 7));
  double bytes = 0;
  for (size_t i = 0; i < model.program.blocks.size(); ++i) {
    const BlockSpec& block = model.program.blocks[i];
    if (block.name.find(".expert.") == std::string::npos) continue;
    if (!model.placement.blocks[i].on_device()) continue;
    for (const auto& extent : block.extents) bytes += static_cast<double>(extent.bytes);
  }
  const double left = configuration.device_over_cpu * cpu_seconds - others;
  if (!(left > 0)) return invalid_argument("what is not experts takes longer than the whole lane");
  expert.gb_per_s = bytes / left * 1e-9;
  return ok_status();
}

void print_row(const char* name, const std::vector<double>& values, double scale,
               const char* unit) {
  const Spread s = spread_of(values);
  std::printf("  %-24s %7.3f %s  (%.3f to %.3f)\n", name, scale * s.median, unit, scale * s.lowest,
              scale * s.highest);
}

struct Options {
  int rounds = 9;
  uint32_t layers = 0;
  double limit = 0;
  std::filesystem::path traces;  // empty: none are written
  std::vector<std::string> files;
};

// Each was in some round.
bool within(double limit, std::initializer_list<const std::vector<double>*> ratios) {
  return std::all_of(ratios.begin(), ratios.end(), [=](const std::vector<double>* ratio) {
    return spread_of(*ratio).lowest <= limit;
  });
}

// False when a ratio was above the limit in every round.
Result<bool> measure(const std::string& path, const Options& options,
                     const Processors& processors) {
  TANDEM_ASSIGN_OR_RETURN(Configuration configuration, read_configuration(path));
  if (options.layers > 0) configuration.shape.layers = options.layers;
  TANDEM_ASSIGN_OR_RETURN(const auto model, make_model(configuration));
  processors.use_the_devices();
  TANDEM_ASSIGN_OR_RETURN(const auto cpu_alone,
                          Together::create(*model, without_times(configuration.device)));
  processors.use_the_cpus();
  TANDEM_ASSIGN_OR_RETURN(const double cpu_seconds, median_of(*cpu_alone, &Times::cpu, 7));
  processors.use_the_devices();
  TANDEM_RETURN_IF_ERROR(set_rate(*model, cpu_seconds, configuration));
  processors.use_the_devices();
  TANDEM_ASSIGN_OR_RETURN(const auto device_alone,
                          DeviceAlone::create(*model, configuration.device));
  TANDEM_ASSIGN_OR_RETURN(const auto together, Together::create(*model, configuration.device));

  processors.use_the_cpus();
  constexpr int kSteps = 3;  // of each in a round
  std::vector<double> cpu_solo, device_solo, cpu, device, wall;
  std::vector<double> wall_ratio, cpu_ratio, device_ratio;
  for (int round = 0; round < options.rounds; ++round) {
    TANDEM_ASSIGN_OR_RETURN(const double c, median_of(*cpu_alone, &Times::cpu, kSteps));
    TANDEM_ASSIGN_OR_RETURN(const double d, median_of(*device_alone, &Times::device, kSteps));
    std::vector<Times> steps;
    for (int i = 0; i < kSteps + 2; ++i) {
      TANDEM_ASSIGN_OR_RETURN(const Times times, together->step());
      if (i >= 2) steps.push_back(times);
    }
    std::sort(steps.begin(), steps.end(),
              [](const Times& a, const Times& b) { return a.wall < b.wall; });
    const Times& both = steps[options.limit > 0 ? 0 : steps.size() / 2];
    cpu_solo.push_back(c);
    device_solo.push_back(d);
    cpu.push_back(both.cpu);
    device.push_back(both.device);
    wall.push_back(both.wall);
    wall_ratio.push_back(both.wall / std::max(both.cpu, both.device));
    cpu_ratio.push_back(both.cpu / c);
    device_ratio.push_back(both.device / d);
    if (options.limit > 0 && within(options.limit, {&wall_ratio, &cpu_ratio, &device_ratio})) break;
  }
  std::printf("%s: %u layers, %d rounds, experts read at %.2f GB/s on the device\n",
              configuration.name.c_str(), configuration.shape.layers, static_cast<int>(wall.size()),
              configuration.device.profile.times[OpKind::kExpertMatmul].gb_per_s);
  print_row("cpu alone", cpu_solo, 1e3, "ms");
  print_row("device alone", device_solo, 1e3, "ms");
  print_row("cpu together", cpu, 1e3, "ms");
  print_row("device together", device, 1e3, "ms");
  print_row("wall", wall, 1e3, "ms");
  print_row("wall / longer lane", wall_ratio, 1, "  ");
  print_row("cpu / alone", cpu_ratio, 1, "  ");
  print_row("device / alone", device_ratio, 1, "  ");
  if (!options.traces.empty()) {
    TANDEM_RETURN_IF_ERROR(
        together->write_trace(options.traces / (configuration.name + ".trace.json")));
  }
  const bool kept =
      options.limit == 0 || within(options.limit, {&wall_ratio, &cpu_ratio, &device_ratio});
  if (!kept) std::printf("  above %.2f in every round\n", options.limit);
  return kept;
}

std::optional<Options> read_arguments(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    const bool has_value = argument.starts_with("--");
    if (!has_value) {
      options.files.push_back(argument);
      continue;
    }
    if (i + 1 == argc) return std::nullopt;
    const double value = std::atof(argv[++i]);
    if (argument == "--traces") {
      options.traces = argv[i];
      continue;
    }
    if (argument == "--rounds" && value >= 1) {
      options.rounds = static_cast<int>(value);
    } else if (argument == "--layers" && value >= 1) {
      options.layers = static_cast<uint32_t>(value);
    } else if (argument == "--limit" && value > 0) {
      options.limit = value;
    } else {
      return std::nullopt;
    }
  }
  if (options.files.empty()) return std::nullopt;
  return options;
}

int run(int argc, char** argv) {
  const auto options = read_arguments(argc, argv);
  if (!options) {
    std::fprintf(
        stderr,
        "overlap [--rounds N] [--layers N] [--limit X] [--traces FOLDER] CONFIGURATION.json...\n");
    return 2;
  }
  const Processors processors;
  if (!processors.enough()) std::puts("one processor: the lanes take turns");
  bool kept = true;
  for (const std::string& file : options->files) {
    const Result<bool> result = measure(file, *options, processors);
    if (!result.ok()) {
      std::fprintf(stderr, "%s: %s\n", file.c_str(), result.status().to_string().c_str());
      return 2;
    }
    kept = *result && kept;
  }
  return kept ? 0 : 1;
}

}  // namespace
}  // namespace tandem

int main(int argc, char** argv) {
  try {
    return tandem::run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 2;
  }
}
