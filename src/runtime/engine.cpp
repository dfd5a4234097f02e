#include "runtime/engine.h"

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/thread.h"
#include "dispatch/weight_tiles.h"
#include "kernels_cpu/dispatch.h"
#include "machine/free_memory.h"
#include "machine/machine.h"
#include "runtime/fingerprint.h"
#include "runtime/session.h"
#include "runtime/weight_check.h"

namespace tandem {
namespace {

// Below this a context is a surprise, so an automatic one that is smaller is an error instead.
constexpr int64_t kSmallestAutomaticContext = 8192;
// Kept free beside everything that is planned: stacks, the tokenizer, other programs' growth.
constexpr uint64_t kReserveBytes = 64 * kMiB;

// Tokens of a prompt that are evaluated at once: weights are read and taken apart once for all of them, and of many experts
// each is used by more of them.  Fewer where other sessions wait for their turn, and beside a device, whose memory they take.
constexpr int64_t kPromptTokens = 512;
constexpr int64_t kSharedPromptTokens = 128;

// What the predictor believes of this computer's memory until it has seen steps.
constexpr double kAssumedGbPerS = 10;

// Where /proc is missing: more than any model needs.
constexpr uint64_t kUnknownBytes = uint64_t{1} << 60;

uint64_t available_bytes() {
  const FreeMemory memory = free_memory();
  return memory.known() ? memory.bytes() : kUnknownBytes;
}

struct MemoryNeed {
  uint64_t weights = 0, kv = 0, work = 0;
  uint64_t total() const { return weights + kv + work + kReserveBytes; }
};

std::string need_text(const MemoryNeed& need, uint64_t free_bytes) {
  return "needs " + format_bytes(need.total()) + " (weights " + format_bytes(need.weights) +
         ", KV " + format_bytes(need.kv) + ", work " + format_bytes(need.work) + ", reserve " +
         format_bytes(kReserveBytes) + "), " + format_bytes(free_bytes) + " are free";
}

// Tokens whose keys and values fit in what is left, in whole pages.
int64_t context_that_fits(const MemoryNeed& without_kv, uint64_t free_bytes,
                          const KvLayout& layout) {
  const uint64_t fixed = without_kv.total();
  if (free_bytes <= fixed) return 0;
  return static_cast<int64_t>((free_bytes - fixed) / layout.group_bytes()) * kPageTokens;
}

Status does_not_fit(const MemoryNeed& need, uint64_t free_bytes, int64_t fitting_context) {
  const std::string change =
      fitting_context > 0
          ? "use a context of at most " + std::to_string(fitting_context) + " tokens"
          : "use a smaller model or a format with fewer bits";
  return out_of_memory(need_text(need, free_bytes))
      .with_bytes(need.total(), free_bytes)
      .suggest(change);
}

// The context that the engine promises: what was asked for, else as trained, limited by what is free.
Result<int64_t> choose_context(const EngineOptions& options, int64_t trained, MemoryNeed need,
                               uint64_t free_bytes, const KvLayout& layout) {
  const int64_t fitting = context_that_fits(need, free_bytes, layout);
  const int64_t wanted = options.n_context > 0 ? options.n_context : trained;
  if (wanted <= fitting || options.force) return wanted;
  const int64_t least =
      options.n_context > 0 ? wanted : std::min(trained, kSmallestAutomaticContext);
  if (fitting >= least) return fitting;
  need.kv = layout.bytes_for(least);
  return does_not_fit(need, free_bytes, fitting);
}

// "direct: the page cache holds 3 % of the file"; of a split model, what holds for its first file.
std::string read_mode_text(const BlockStoreReport& report) {
  if (report.files.empty()) return "";
  const BlockStoreReport::File& file = report.files.front();
  return std::string(file.mode == ReadFile::Mode::kDirect ? "direct" : "buffered") + ": " +
         file.reason;
}

Status check_options(const EngineOptions& options) {
  if (options.n_threads > Team::kMaxThreads) {
    return invalid_argument("n_threads is " + std::to_string(options.n_threads) +
                            ", expected at most " + std::to_string(Team::kMaxThreads));
  }
  if (options.n_context < 0 || options.n_context > EngineOptions::kMostContext) {
    return invalid_argument("n_context is " + std::to_string(options.n_context) +
                            ", expected at most " + std::to_string(EngineOptions::kMostContext));
  }
  return ok_status();
}

std::unique_ptr<StepRecorder> make_recorder(const Machine& machine, unsigned n_threads,
                                            const Device* device, const EngineOptions& options) {
  const PredictorRates rates =
      rates_of(machine, n_threads, kAssumedGbPerS, device != nullptr ? &device->info() : nullptr);
  return std::make_unique<StepRecorder>(rates, options.trace_records);
}

Status check_kv_type(KvType type, int64_t head_width) {
  if (type != KvType::kQ8_0 || head_width % 32 == 0) return ok_status();
  return unsupported(
             "keys and values in q8_0 need heads whose width is a multiple of 32, the model's "
             "have " +
             std::to_string(head_width))
      .suggest("take f16");
}

}  // namespace

KvLayout Engine::kv_layout() const {
  const ModelShape& shape = model_.program().shape;
  return {shape.n_layers, shape.n_kv_heads, shape.head_width, kv_type_};
}

Result<std::unique_ptr<Engine>> Engine::create(const Model& model, EngineOptions options) {
  TANDEM_RETURN_IF_ERROR(check_options(options));
  TANDEM_RETURN_IF_ERROR(check_kv_type(options.kv_type, model.program().shape.head_width));
  std::unique_ptr<Engine> engine(new Engine(model));
  engine->log_ = options.log;
  engine->kv_type_ = options.kv_type;
  engine->force_ = options.force;

  const cpu::KernelTable* kernels = nullptr;
  TANDEM_RETURN_IF_ERROR(cpu::choose(std::getenv("TANDEM_CPU_ISA"), &kernels));
  TANDEM_ASSIGN_OR_RETURN(const Machine machine, Machine::discover());
  const unsigned n_threads =
      options.n_threads > 0 ? options.n_threads : machine.default_compute_threads();
  if (n_threads > machine.usable_threads()) {
    engine->note(std::to_string(n_threads) + " threads share " +
                 std::to_string(machine.usable_threads()) +
                 " processors: they wait for each other, fewer are faster");
  }

  const Program& program = model.program();
  Executor::Options executor_options;
  executor_options.max_tokens =
      options.hybrid.device == "none" ? kPromptTokens : kSharedPromptTokens;
  engine->work_bytes_ = Executor::work_bytes(program, n_threads, executor_options);
  MemoryNeed need;
  TANDEM_ASSIGN_OR_RETURN(need.weights, BlockStore::slot_bytes(program.blocks));
  need.work = engine->work_bytes_;
  const uint64_t free_bytes = available_bytes();
  if (free_bytes == kUnknownBytes)
    engine->note("free memory is not known here: nothing is refused for its size");
  TANDEM_ASSIGN_OR_RETURN(engine->info_.n_context,
                          choose_context(options, program.shape.n_context_trained, need, free_bytes,
                                         engine->kv_layout()));
  if (options.n_context == 0 && engine->info_.n_context < program.shape.n_context_trained) {
    engine->note("context is " + std::to_string(engine->info_.n_context) +
                 " tokens, as free memory allows (trained: " +
                 std::to_string(program.shape.n_context_trained) + ")");
  }

  if (engine->info_.n_context > program.shape.n_context_trained) {
    engine->note("context is " + std::to_string(engine->info_.n_context) +
                 " tokens, the model was trained for " +
                 std::to_string(program.shape.n_context_trained) +
                 ": what lies beyond may be answered badly");
  }

  // Before the weights are read: what is refused is refused at once.
  executor_options.max_context = engine->info_.n_context;
  const HybridNeed hybrid_need{engine->kv_layout(), engine->info_.n_context,
                               Executor::device_work_bytes(program, n_threads, executor_options)};
  TANDEM_ASSIGN_OR_RETURN(engine->hybrid_,
                          plan_hybrid(program, options.hybrid, hybrid_need, *kernels));
  for (const std::string& text : engine->hybrid_.placement.notes) engine->note(text);
  engine->info_.plan = engine->hybrid_.summary;
  if (engine->hybrid_.device != nullptr) {
    engine->info_.device = engine->hybrid_.device->info().name;
    engine->first_device_budget_ = engine->hybrid_.device->budget_bytes();
  }
  if (engine->hybrid_.device != nullptr && engine->hybrid_.placement.uses_device()) {
    executor_options.device = engine->hybrid_.device.get();
    executor_options.placement = &engine->hybrid_.placement;
  }
  Team::Options team_options;
  team_options.n_threads = n_threads;
  TANDEM_ASSIGN_OR_RETURN(engine->team_, Team::create(team_options));

  const OpenReadFile open_again = [&model](const std::filesystem::path& path, ReadFile::Mode mode) {
    return model.open_again(path, mode);
  };
  TANDEM_ASSIGN_OR_RETURN(engine->fingerprint_,
                          fingerprint_of(model.file(), open_again, or_never(options.cancel)));
  TANDEM_ASSIGN_OR_RETURN(engine->store_, BlockStore::create(model.file().paths(), program.blocks,
                                                             options.store, open_again));
  const Clock::time_point start = Clock::now();
  const CancelFlag& cancel = or_never(options.cancel);
  TANDEM_RETURN_IF_ERROR(engine->store_->load_all(options.progress, cancel));
  TANDEM_RETURN_IF_ERROR(
      check_weights(model.file(), program, *engine->store_, n_threads, options.progress, cancel));
  TANDEM_RETURN_IF_ERROR(put_into_tiles(program, executor_options.placement, *kernels,
                                        *engine->store_, n_threads, options.progress, cancel));
  engine->info_.load_seconds = seconds_since(start);
  const BlockStoreReport loaded = engine->store_->report();
  engine->info_.read_mode = read_mode_text(loaded);
  if (!loaded.huge_page_refusal.empty()) {
    engine->note("huge pages are not used (" + loaded.huge_page_refusal +
                 "): reading weights is slower");
  }

  engine->info_.n_threads = n_threads;
  engine->traces_ = options.trace_records > 0;
  executor_options.fetch_experts = !options.hybrid.split;
  executor_options.progress = &options.progress;
  executor_options.cancel = options.cancel;
  if (engine->traces_ || engine->hybrid_.placement.n_expert_slots > 0) {
    engine->recorder_ = make_recorder(machine, n_threads, engine->hybrid_.device.get(), options);
    executor_options.recorder = engine->recorder_.get();
  }
  TANDEM_ASSIGN_OR_RETURN(
      engine->executor_,
      Executor::create(program, *engine->store_, *engine->team_, *kernels, executor_options));
  TANDEM_RETURN_IF_ERROR(engine->observe_device());
  engine->info_.isa = kernels->isa;
  engine->info_.bytes_per_token = program.bytes_per_token();
  engine->worker_ = start_thread([raw = engine.get()] { raw->serve(); });
  return engine;
}

// From now on, so that the weights on their way up are not in the trace.
Status Engine::observe_device() {
  if (recorder_ == nullptr || hybrid_.device == nullptr) return ok_status();
  return hybrid_.device->set_observer(recorder_.get());
}

Status Engine::set_device_memory(uint64_t bytes) {
  if (hybrid_.device == nullptr) return invalid_argument("the engine has no device");
  hybrid_.device->set_budget(bytes == 0 ? first_device_budget_ : bytes);
  return ok_status();
}

void Engine::note(const std::string& text) const {
  if (log_) log_(LogLevel::kNote, text);
}

Engine::~Engine() {
  {
    std::lock_guard lock(mutex_);
    closing_ = true;
  }
  changed_.notify_all();
  if (worker_.joinable()) worker_.join();
}

size_t Engine::prompt_tokens_at_once(const Session& session) const {
  const std::lock_guard lock(mutex_);
  const bool alone = std::none_of(sessions_.begin(), sessions_.end(), [&](const Session* other) {
    return other != &session && other->runnable();
  });
  return static_cast<size_t>(
      std::min(alone ? kPromptTokens : kSharedPromptTokens, executor_->max_tokens()));
}

Status Engine::attach(Session* session) {
  const uint64_t free_bytes = available_bytes();  // reads files, so not under the lock
  std::lock_guard lock(mutex_);
  TANDEM_RETURN_IF_ERROR(check_room("a session", session->kv_bytes(), free_bytes));
  sessions_.push_back(session);
  return ok_status();
}

Status Engine::admit(const std::string& what, uint64_t bytes) const {
  const uint64_t free_bytes = available_bytes();
  std::lock_guard lock(mutex_);
  return check_room(what, bytes, free_bytes);
}

Status Engine::check_room(const std::string& what, uint64_t bytes, uint64_t free_bytes) const {
  uint64_t promised = 0;  // to sessions, and not yet taken from what is free
  for (const Session* other : sessions_) promised += other->kv_bytes() - other->kv_touched_bytes();
  const uint64_t needed = bytes + promised + kReserveBytes;
  if (needed <= free_bytes || force_) return ok_status();
  return out_of_memory(what + " needs " + format_bytes(bytes) + " for its KV cache, " +
                       format_bytes(promised) + " are promised to the " +
                       std::to_string(sessions_.size()) + " sessions there are, " +
                       format_bytes(free_bytes) + " are free")
      .with_bytes(needed, free_bytes)
      .suggest("use a smaller context, or free sessions");
}

void Engine::detach(Session* session) {
  std::unique_lock lock(mutex_);
  std::erase(sessions_, session);
  changed_.wait(lock, [&] { return stepping_ != session; });
}

void Engine::wake() {
  {
    std::lock_guard lock(mutex_);
    woken_ = true;
  }
  changed_.notify_all();
}

void Engine::wake_for(Session* session) {
  {
    std::lock_guard lock(mutex_);
    // The worker may be in another session's step for seconds; while the lock is held it enters no session.
    if (stepping_ != session && session->ends_now()) session->step();
    woken_ = true;
  }
  changed_.notify_all();
}

// Round robin: each runnable session gets one prompt chunk or one token per round.
void Engine::serve() {
  std::unique_lock lock(mutex_);
  size_t next = 0;
  size_t idle_in_a_row = 0;
  while (!closing_) {
    if (idle_in_a_row >= sessions_.size()) {
      changed_.wait(lock, [this] { return woken_ || closing_; });
      woken_ = false;
      idle_in_a_row = 0;
      continue;
    }
    next = next >= sessions_.size() ? 0 : next;
    Session* session = sessions_[next++];
    if (!session->runnable()) {
      ++idle_in_a_row;
      continue;
    }
    idle_in_a_row = 0;
    stepping_ = session;
    lock.unlock();
    session->step();
    lock.lock();
    stepping_ = nullptr;
    changed_.notify_all();
  }
}

std::vector<TierReport> Engine::memory() const {
  TierReport ram;
  ram.name = "RAM";
  ram.free_bytes = free_memory().bytes();
  ram.weight_bytes = store_->total_bytes();
  ram.huge_page_bytes = store_->report().huge_page_bytes;
  {
    std::lock_guard lock(mutex_);
    for (const Session* session : sessions_) {
      ram.kv_bytes += session->kv_touched_bytes();
      ram.kv_reserved_bytes += session->kv_bytes();
    }
  }
  ram.work_bytes = work_bytes_;
  if (hybrid_.device == nullptr) return {ram};
  // Of the device's memory the keys and values are not counted apart: they come and go with the sessions' pages.
  const Device& device = *hybrid_.device;
  TierReport there;
  there.name = info_.device.c_str();
  there.free_bytes = device.budget_bytes() - std::min(device.budget_bytes(), device.used_bytes());
  there.budget_bytes = device.budget_bytes();
  there.weight_bytes = hybrid_.placement.bytes.weights;
  there.work_bytes = hybrid_.placement.bytes.work;
  const ExpertCache::Counters experts = executor_->expert_counters();
  there.n_expert_slots = executor_->expert_slots();
  there.expert_hits = experts.hits;
  there.expert_misses = experts.misses;
  const uint64_t rest = there.weight_bytes + there.work_bytes +
                        hybrid_.placement.bytes.stream_buffers +
                        there.n_expert_slots * hybrid_.placement.expert_slot_bytes;
  there.kv_bytes = device.used_bytes() - std::min(device.used_bytes(), rest);
  return {ram, there};
}

std::string Engine::trace_text() const {
  std::optional<double> hit_rate;
  for (const TierReport& tier : memory()) {
    const uint64_t n_uses = tier.expert_hits + tier.expert_misses;
    if (n_uses > 0) hit_rate = static_cast<double>(tier.expert_hits) / static_cast<double>(n_uses);
  }
  return to_text(recorder_->summarize(), hit_rate);
}

std::string Engine::placement_json() const {
  if (hybrid_.device == nullptr) return "";
  return to_json(model_.program(), hybrid_.placement);
}

}  // namespace tandem
