// How long do tokens take while the device's budget shrinks and grows?  See README.md for what is measured, and how.
//
//   budget [--rounds N] [--tokens N] [--held N] [--device OPTIONS] [--limit X] [moe] [dense]
//
// --held: tokens that the sequence has when decoding begins.  --limit: the program ends with 1 when the slowest token took
// more than so many times the median.  It does in any case when a bit differs or a budget is not kept.

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "base/checked.h"
#include "base/clock.h"
#include "device/mirror/mirror_device.h"
#include "dispatch/executor.h"
#include "formats/gguf/gguf.h"
#include "formats/synth.h"
#include "kernels_cpu/dispatch.h"
#include "model/decoder.h"

namespace tandem {
namespace {

const CancelFlag kNever;

struct Options {
  int rounds = 5;
  int64_t n_tokens = 400;
  int64_t n_held = 4096;
  // A link as much slower than one core's memory as PCI express is than a card's.
  std::string device = "vram=8GiB,link=0.4GB/s,latency=10us";
  double limit = 0;
  std::vector<std::string> models;
};

// ---- the model ----

struct Subject {
  std::string name;
  PublicShape shape = {};
  uint64_t n_slots = 0;  // of the expert cache, with the whole budget
};

// Layers of their models' size, fewer of them, and a smaller vocabulary.
Result<Subject> subject_of(const std::string& name, int64_t n_positions) {
  const bool experts = name == "moe";
  if (!experts && name != "dense") return invalid_argument("'" + name + "' is not moe or dense");
  Subject subject{name, *find_public_shape(experts ? "qwen3-30b-a3b" : "llama-3.2-1b"), 0};
  PublicShape& shape = subject.shape;
  shape.layers = 4;
  shape.vocabulary = 32000;
  shape.context = static_cast<uint32_t>(n_positions);
  if (experts) {
    shape.experts = 32;
    subject.n_slots = 48;
  }
  return subject;
}

// A folder that goes with its owner.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "budget-XXXXXX").string();
    if (::mkdtemp(name.data()) != nullptr) folder_ = name;
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    if (!folder_.empty()) std::filesystem::remove_all(folder_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  std::filesystem::path file() const { return folder_ / "model.gguf"; }

 private:
  std::filesystem::path folder_;
};

struct Model {
  Program program;
  std::unique_ptr<BlockStore> store;
  std::unique_ptr<Team> team;
  Placement placement;
  int64_t n_positions = 0;
  const cpu::KernelTable& kernels = *cpu::table_for(cpu::best_isa());

  KvLayout kv_layout() const {
    const ModelShape& s = program.shape;
    return {s.n_layers, s.n_kv_heads, s.head_width, KvType::kF16};
  }
};

// Everything on the device but the experts, which live in DRAM and have slots.
Result<std::unique_ptr<Model>> make_model(const Subject& subject, int64_t n_positions) {
  const TemporaryFolder folder;
  SynthOptions options;
  options.output = folder.file();
  TANDEM_RETURN_IF_ERROR(synthesize(subject.shape, options, {}, kNever));
  auto model = std::make_unique<Model>();
  model->n_positions = n_positions;
  TANDEM_ASSIGN_OR_RETURN(const GgufFile gguf, GgufFile::open(folder.file()));
  TANDEM_ASSIGN_OR_RETURN(model->program, build_decoder(gguf));
  TANDEM_ASSIGN_OR_RETURN(model->store, BlockStore::create(gguf.paths(), model->program.blocks));
  TANDEM_RETURN_IF_ERROR(model->store->load_all({}, kNever));
  Team::Options team;
  team.n_threads = 1;
  TANDEM_ASSIGN_OR_RETURN(model->team, Team::create(team));
  PlacementOptions placement;
  if (subject.n_slots > 0) {
    placement.file.rules = {{"*", kOnDevice}, {"blk.*.expert.*", kInDram}};
    placement.file.expert_slots = subject.n_slots;
  }
  DeviceSpace space{UINT64_MAX / 2, 0, 0, 2 * model->kv_layout().page_bytes()};
  space.kv_layer_bytes = model->kv_layout().bytes_for(n_positions) / subject.shape.layers;
  TANDEM_ASSIGN_OR_RETURN(model->placement, choose_placement(model->program, placement, space));
  return model;
}

// Keys and values of a context, as numbers of ordinary size.
std::vector<std::byte> some_context(const KvLayout& layout, int64_t n_tokens) {
  std::vector<std::byte> bytes(layout.bytes_for(n_tokens));
  std::mt19937_64 random(1);
  for (size_t i = 0; i + 8 <= bytes.size(); i += 8) {
    // Four half floats, each of either sign and from 2^-5 to 2^-1 in size.
    const uint64_t drawn = (random() & 0x8fff8fff8fff8fffu) + 0x2800280028002800u;
    std::memcpy(bytes.data() + i, &drawn, 8);
  }
  return bytes;
}

// ---- a decoder ----

// What crossed the link.  A step's are there when it is over.
class LinkMeter final : public DeviceObserver {
 public:
  void observed(const DeviceActivity& activity) noexcept override {
    if (activity.kind == DeviceActivity::Kind::kCopyUp) up_ += activity.bytes;
    if (activity.kind == DeviceActivity::Kind::kCopyDown) down_ += activity.bytes;
  }
  uint64_t up() const { return up_; }
  uint64_t down() const { return down_; }

 private:
  std::atomic<uint64_t> up_{0}, down_{0};
};

struct Step {
  double ms = 0;
  int64_t over_budget = 0;  // bytes; not positive: kept
  int64_t n_pages = 0, n_slots = 0, n_loads = 0;
  double kv_up_mib = 0, kv_down_mib = 0, all_up_mib = 0, all_down_mib = 0;
};

double mib(uint64_t bytes) { return static_cast<double>(bytes) / (1 << 20); }

class Decoder {
 public:
  static Result<std::unique_ptr<Decoder>> create(Model& model,
                                                 const mirror::MirrorOptions& device) {
    std::unique_ptr<Decoder> made(new Decoder(model));
    TANDEM_ASSIGN_OR_RETURN(made->device_, mirror::create_device(device, model.kernels));
    Executor::Options options{.max_tokens = 1, .max_outputs = 1};
    options.device = made->device_.get();
    options.placement = &model.placement;
    options.max_context = model.n_positions;
    TANDEM_ASSIGN_OR_RETURN(made->executor_, Executor::create(model.program, *model.store,
                                                              *model.team, model.kernels, options));
    TANDEM_RETURN_IF_ERROR(made->device_->set_observer(&made->meter_));
    TANDEM_ASSIGN_OR_RETURN(made->sequence_,
                            SequenceState::create(model.kv_layout(), model.n_positions));
    made->executor_->adopt(*made->sequence_);
    const Placement& placement = model.placement;
    made->fixed_bytes_ =
        made->device_->used_bytes() - placement.n_expert_slots * placement.expert_slot_bytes;
    return made;
  }

  // Device memory that the context and all slots take.
  uint64_t most_room() const {
    const auto n_pages =
        static_cast<uint64_t>((model_.n_positions + kPageTokens - 1) / kPageTokens);
    return n_pages * page_bytes() +
           model_.placement.n_expert_slots * model_.placement.expert_slot_bytes;
  }
  void set_room(double share) {
    device_->set_budget(fixed_bytes_ +
                        static_cast<uint64_t>(share * static_cast<double>(most_room())));
  }

  // The sequence begins with this, and everything else as it is after a while without changes.
  Status begin(std::span<const std::byte> context, int64_t n_held) {
    set_room(1);
    for (int pass = 0; pass < 2; ++pass) {
      sequence_->restore(context, n_held);
      const int64_t n_steps = pass == 0 ? 0 : kWarmUp;
      for (int64_t i = 0; i < n_steps; ++i) TANDEM_RETURN_IF_ERROR(step(token(i)).status());
    }
    sequence_->truncate(n_held);
    return ok_status();
  }

  Result<Step> step(int32_t id) {
    const DeviceKv& kv = *sequence_->device();
    const uint64_t up = meter_.up(), down = meter_.down();
    const uint64_t kv_up = kv.bytes_copied_up(), kv_down = kv.bytes_copied_down();
    const uint64_t loads = executor_->expert_counters().loads;
    const int32_t ids[] = {id};
    const Clock::time_point start = Clock::now();
    TANDEM_RETURN_IF_ERROR(executor_->forward(ids, *sequence_, true, kNever));
    Step step;
    step.ms = seconds_since(start) * 1e3;
    step.over_budget =
        static_cast<int64_t>(device_->used_bytes()) - static_cast<int64_t>(device_->budget_bytes());
    step.n_pages = static_cast<int64_t>(kv.pages().size());
    step.n_slots = n_slots();
    step.n_loads = static_cast<int64_t>(executor_->expert_counters().loads - loads);
    step.kv_up_mib = mib(kv.bytes_copied_up() - kv_up);
    step.kv_down_mib = mib(kv.bytes_copied_down() - kv_down);
    step.all_up_mib = mib(meter_.up() - up);
    step.all_down_mib = mib(meter_.down() - down);
    return step;
  }
  std::span<const float> logits() const { return executor_->last_logits(); }
  // A text.
  int32_t token(int64_t i) const {
    return static_cast<int32_t>((i * 7919 + 13) % model_.program.shape.n_vocabulary);
  }

 private:
  static constexpr int64_t kWarmUp = 70;
  explicit Decoder(const Model& model) : model_(model) {}
  uint64_t page_bytes() const { return align_up(sequence_->device()->group_bytes(), 256); }
  int64_t n_slots() const {
    if (model_.placement.n_expert_slots == 0) return 0;
    const uint64_t taken = fixed_bytes_ + sequence_->device()->pages().size() * page_bytes();
    return static_cast<int64_t>((device_->used_bytes() - taken) /
                                model_.placement.expert_slot_bytes);
  }

  const Model& model_;
  LinkMeter meter_;
  std::unique_ptr<Device> device_;
  std::unique_ptr<Executor> executor_;
  std::unique_ptr<SequenceState> sequence_;
  uint64_t fixed_bytes_ = 0;  // weights and work buffers
};

// ---- what the budget does ----

// Of most_room(), for token i.
double share_for(int64_t i) {
  constexpr int64_t kHold = 12;  // tokens between large steps
  constexpr double kLarge[] = {1, 0, 1, 0.5, 1, 0.1, 0.6, 0.02, 0.9, 0.3};
  constexpr int64_t kLargeTokens = kHold * std::size(kLarge);  // 120
  const int64_t at = i % (2 * kLargeTokens);
  if (at < kLargeTokens) return kLarge[at / kHold];
  const int64_t small = at - kLargeTokens;                      // 120 of small steps at every token
  if (small < 40) return 1 - static_cast<double>(small) / 40;   // down to nothing
  if (small < 80) return static_cast<double>(small - 40) / 40;  // and back
  return small % 2 == 0 ? 1 : 0.35 + static_cast<double>(small % 7) / 14;  // there and back
}

// ---- results ----

double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + static_cast<long>(values.size() / 2),
                   values.end());
  return values[values.size() / 2];
}

std::vector<double> times_of(const std::vector<Step>& steps) {
  std::vector<double> times;
  for (const Step& step : steps) times.push_back(step.ms);
  return times;
}

struct Round {
  std::vector<Step> alone, changed;
  bool same_bits = true;
};

// The two decode in turns, token by token, so that what else happens on the machine meets both.
Result<Round> decode(Decoder& alone, Decoder& changed, std::span<const std::byte> context,
                     const Options& options) {
  Round round;
  TANDEM_RETURN_IF_ERROR(alone.begin(context, options.n_held));
  TANDEM_RETURN_IF_ERROR(changed.begin(context, options.n_held));
  for (int64_t i = 0; i < options.n_tokens; ++i) {
    TANDEM_ASSIGN_OR_RETURN(const Step undisturbed, alone.step(alone.token(i)));
    changed.set_room(share_for(i));
    TANDEM_ASSIGN_OR_RETURN(const Step disturbed, changed.step(changed.token(i)));
    round.alone.push_back(undisturbed);
    round.changed.push_back(disturbed);
    const auto a = alone.logits(), b = changed.logits();
    const bool same = std::memcmp(a.data(), b.data(), a.size_bytes()) == 0;
    round.same_bits = round.same_bits && same;
  }
  return round;
}

void print_times(const char* name, const std::vector<double>& times) {
  const double middle = median(times);
  const double most = *std::max_element(times.begin(), times.end());
  const auto n_slow =
      std::count_if(times.begin(), times.end(), [=](double ms) { return ms > 3 * middle; });
  std::printf("  %-34s median %7.2f ms, longest %7.2f ms = %.2f medians, %lld above 3\n", name,
              middle, most, most / middle, static_cast<long long>(n_slow));
}

// Of each token, its median over the rounds: what the machine did in one of them is gone.
std::vector<double> by_token(const std::vector<Round>& rounds, std::vector<Step> Round::*which) {
  std::vector<double> result;
  for (size_t i = 0; i < (rounds[0].*which).size(); ++i) {
    std::vector<double> times;
    for (const Round& round : rounds) times.push_back((round.*which)[i].ms);
    result.push_back(median(times));
  }
  return result;
}

void print_slowest(const std::vector<Round>& rounds, const std::vector<double>& times) {
  std::vector<size_t> order(times.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return times[a] > times[b]; });
  std::puts(
      "  the slowest:  token  room    ms   pages  slots  loads  KV up/down MiB  all up/down MiB");
  for (size_t i = 0; i < std::min<size_t>(8, order.size()); ++i) {
    const size_t token = order[i];
    const Step& step = rounds.back().changed[token];
    const double before = token == 0 ? 1 : share_for(static_cast<int64_t>(token) - 1);
    const int64_t pages_before =
        token == 0 ? step.n_pages : rounds.back().changed[token - 1].n_pages;
    const int64_t slots_before =
        token == 0 ? step.n_slots : rounds.back().changed[token - 1].n_slots;
    std::printf("    %14zu  %.2f>%.2f %7.2f  %lld>%lld  %lld>%lld  %lld  %.1f/%.1f  %.1f/%.1f\n",
                token, before, share_for(static_cast<int64_t>(token)), times[token],
                static_cast<long long>(pages_before), static_cast<long long>(step.n_pages),
                static_cast<long long>(slots_before), static_cast<long long>(step.n_slots),
                static_cast<long long>(step.n_loads), step.kv_up_mib, step.kv_down_mib,
                step.all_up_mib, step.all_down_mib);
  }
}

struct Most {
  double kv_up = 0, kv_down = 0, up = 0, down = 0;
};

Most most_copied(const std::vector<Round>& rounds) {
  Most most;
  for (const Round& round : rounds) {
    for (const Step& step : round.changed) {
      most.kv_up = std::max(most.kv_up, step.kv_up_mib);
      most.kv_down = std::max(most.kv_down, step.kv_down_mib);
      most.up = std::max(most.up, step.all_up_mib);
      most.down = std::max(most.down, step.all_down_mib);
    }
  }
  return most;
}

int64_t most_over_budget(const std::vector<Round>& rounds) {
  int64_t most = INT64_MIN;
  for (const Round& round : rounds) {
    for (const Step& step : round.changed) most = std::max(most, step.over_budget);
  }
  return most;
}

// False: a bit differed, a budget was not kept, or a token took too long.
bool report(const Subject& subject, const std::vector<Round>& rounds, double limit) {
  std::printf("%s: %zu rounds of %zu tokens\n", subject.name.c_str(), rounds.size(),
              rounds[0].alone.size());
  for (const Round& round : rounds) {
    print_times("one round, no changes", times_of(round.alone));
    print_times("one round, the budget changes", times_of(round.changed));
  }
  const std::vector<double> alone = by_token(rounds, &Round::alone);
  const std::vector<double> changed = by_token(rounds, &Round::changed);
  print_times("median round of each, no changes", alone);
  print_times("median round of each, changes", changed);
  print_slowest(rounds, changed);
  const Most most = most_copied(rounds);
  std::printf("  most in one step: KV %.1f MiB up, %.1f down; all %.1f MiB up, %.1f down\n",
              most.kv_up, most.kv_down, most.up, most.down);
  const int64_t over = most_over_budget(rounds);
  const bool same_bits =
      std::all_of(rounds.begin(), rounds.end(), [](const Round& round) { return round.same_bits; });
  std::printf("  used over budget after a step: at most %lld bytes; logits %s\n",
              static_cast<long long>(over), same_bits ? "identical" : "DIFFER");
  const double longest = *std::max_element(changed.begin(), changed.end()) / median(changed);
  return over <= 0 && same_bits && (limit == 0 || longest <= limit);
}

Result<bool> measure(const std::string& name, const Options& options) {
  const int64_t n_positions = options.n_held + std::max<int64_t>(options.n_tokens, 100);
  TANDEM_ASSIGN_OR_RETURN(const Subject subject, subject_of(name, n_positions));
  TANDEM_ASSIGN_OR_RETURN(const auto model, make_model(subject, n_positions));
  TANDEM_ASSIGN_OR_RETURN(const auto device, mirror::parse_mirror_options(options.device));
  const std::vector<std::byte> context = some_context(model->kv_layout(), options.n_held);
  TANDEM_ASSIGN_OR_RETURN(const auto alone, Decoder::create(*model, device));
  TANDEM_ASSIGN_OR_RETURN(const auto changed, Decoder::create(*model, device));
  std::vector<Round> rounds;
  for (int i = 0; i < options.rounds; ++i) {
    TANDEM_ASSIGN_OR_RETURN(Round round, decode(*alone, *changed, context, options));
    rounds.push_back(std::move(round));
  }
  return report(subject, rounds, options.limit);
}

std::optional<Options> read_arguments(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    if (!argument.starts_with("--")) {
      options.models.push_back(argument);
      continue;
    }
    if (++i == argc) return std::nullopt;
    const double value = std::atof(argv[i]);
    if (argument == "--device") {
      options.device = argv[i];
    } else if (argument == "--rounds" && value >= 1) {
      options.rounds = static_cast<int>(value);
    } else if (argument == "--tokens" && value >= 1) {
      options.n_tokens = static_cast<int64_t>(value);
    } else if (argument == "--held" && value >= 0) {
      options.n_held = static_cast<int64_t>(value);
    } else if (argument == "--limit" && value > 0) {
      options.limit = value;
    } else {
      return std::nullopt;
    }
  }
  if (options.models.empty()) options.models = {"moe", "dense"};
  return options;
}

int run(int argc, char** argv) {
  const auto options = read_arguments(argc, argv);
  if (!options) {
    std::fprintf(stderr,
                 "budget [--rounds N] [--tokens N] [--held N] [--device OPTIONS] [--limit X] "
                 "[moe] [dense]\n");
    return 2;
  }
  bool kept = true;
  for (const std::string& name : options->models) {
    const Result<bool> result = measure(name, *options);
    if (!result.ok()) {
      std::fprintf(stderr, "%s: %s\n", name.c_str(), result.status().to_string().c_str());
      return 2;
    }
    kept = *result && kept;
  }
  return kept ? 0 : 1;
}

}  // namespace
}  // namespace tandem

int main(int argc, char** argv) { return tandem::run(argc, argv); }
