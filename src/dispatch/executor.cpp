#include "dispatch/executor.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <mutex>
#include <string>
#include <utility>

#include "base/bytes.h"
#include "base/checked.h"
#include "device/operation_ranges.h"
#include "dispatch/executor_walk.h"

namespace tandem {
namespace {

constexpr size_t kArenaAlignment = 4096;
constexpr int64_t kPartialBytes = int64_t{16} << 20;

// Who computes what: the CPU everything, unless a device was given.
std::vector<Processor> processors(const Program& program, const Executor::Options& options) {
  if (options.device == nullptr) return {};
  return processors_of(program, *options.placement);
}

LoweringOptions decode_capacity(unsigned n_threads) { return {1, 1, n_threads}; }

LoweringOptions prompt_capacity(unsigned n_threads, const Executor::Options& options) {
  return {options.max_tokens, options.max_outputs, n_threads};
}

LoweredProgram lower_for(const Program& program, LoweringOptions capacity,
                         const std::vector<Processor>& who) {
  capacity.processors = who;
  return lower(program, capacity);
}

// As many as the context has pages and kPartialBytes hold: what has no slot is attended to while merging, when the CPU can
// no longer do it beside the device.
int64_t partial_slots(const ModelShape& shape, int64_t max_tokens, int64_t max_context) {
  const int64_t slot_bytes = max_tokens * static_cast<int64_t>(sizeof(float)) *
                             Partials::slot_floats(shape.n_heads, shape.head_width);
  const int64_t n_pages = (max_context + kPageTokens - 1) / kPageTokens;
  return std::max<int64_t>(1, std::min(kPartialBytes / slot_bytes, n_pages));
}

LoweredProgram lower_split(const SplitAttention& split, LoweringOptions capacity,
                           const Executor::Options& options) {
  capacity.n_partial_slots =
      partial_slots(split.program.shape, capacity.max_tokens, options.max_context);
  return lower_for(split.program, capacity, split.processors);
}

bool attends(const std::vector<bool>& kv_on_device) {
  return std::find(kv_on_device.begin(), kv_on_device.end(), true) != kv_on_device.end();
}

Result<std::byte*> allocate_arena(Device* device, size_t bytes) {
  if (device != nullptr) return device->allocate_host(bytes);
  auto* memory = static_cast<std::byte*>(std::aligned_alloc(kArenaAlignment, bytes));
  if (memory == nullptr) {
    return out_of_memory("work buffers need " + format_bytes(bytes)).with_bytes(bytes, 0);
  }
  std::fill_n(memory, bytes, std::byte{0});
  return memory;
}

}  // namespace

void FreeArena::operator()(std::byte* memory) const {
  device != nullptr ? device->free_host(memory) : std::free(memory);
}

Executor::~Executor() = default;

uint64_t Executor::work_bytes(const Program& program, unsigned n_threads, const Options& options) {
  const std::vector<Processor> who = processors(program, options);
  const size_t decode = lower_for(program, decode_capacity(n_threads), who).arena_bytes;
  const size_t prompt = lower_for(program, prompt_capacity(n_threads, options), who).arena_bytes;
  const OperationConstants constants = operation_constants(program.shape, {}, KvType::kF16);
  return std::max(decode, prompt) +
         n_threads * host::attend_scratch_floats(constants) * sizeof(float);
}

// With every layer's experts on both sides, which takes the most room.
uint64_t Executor::device_work_bytes(const Program& program, unsigned n_threads,
                                     const Options& options) {
  LoweringOptions lowering{options.max_tokens, options.max_outputs, n_threads, {}};
  for (const Op& op : program.ops) {
    const bool pairs = op.out != kNoId && program.values[op.out].rows == RowSpace::kPairs;
    const bool shared = pairs || op.kind == OpKind::kListPairs;
    lowering.processors.push_back(shared ? Processor::kBoth : Processor::kDevice);
  }
  const SplitAttention split = tandem::split_attention(program, lowering.processors);
  size_t arena = lower(program, lowering).arena_bytes;
  lowering.processors = split.processors;
  arena = align_up(std::max(arena, lower(split.program, lowering).arena_bytes), kArenaAlignment);
  return DeviceLane::work_bytes(program, {options.max_tokens, options.max_context, arena});
}

namespace {

const Predictor* predictor_of(const Executor::Options& options) {
  return options.recorder == nullptr ? nullptr : &options.recorder->predictor();
}

Result<RopeFrequencies> rope_of(const Program& program, const BlockStore& store) {
  std::span<const float> factors;
  if (program.rope_factors != kNoId) {
    const Weight& weight = program.weights[program.rope_factors];
    factors = {reinterpret_cast<const float*>(store.data(weight.block, weight.extent)),
               static_cast<size_t>(program.shape.n_rot / 2)};
    TANDEM_RETURN_IF_ERROR(check_rope_factors(factors));
  }
  return rope_frequencies(program.shape, factors);
}

}  // namespace

Result<std::unique_ptr<Executor>> Executor::create(const Program& program, const BlockStore& store,
                                                   Team& team, const cpu::KernelTable& kernels,
                                                   const Options& options) {
  std::unique_ptr<Executor> executor(new Executor());
  executor->walk_.reset(
      new Walk{.program = program, .store = store, .team = team, .kernels = kernels});
  Walk& walk = *executor->walk_;
  walk.lower_all(team.size(), options);
  const std::vector<Batch*> batches = walk.batches();
  size_t bytes = 0, cpu_bytes = 0, n_steps = 0;
  for (const Batch* batch : batches) {
    bytes = std::max(bytes, align_up(batch->lowered.arena_bytes, kArenaAlignment));
    cpu_bytes = std::max(cpu_bytes, align_up(batch->lowered.cpu_arena_bytes, kArenaAlignment));
    n_steps = std::max(n_steps, batch->lowered.steps.size());
  }
  TANDEM_ASSIGN_OR_RETURN(std::byte* const arena, allocate_arena(options.device, cpu_bytes));
  walk.arena = {arena, FreeArena{options.device}};
  if (options.device != nullptr) {
    const ProgressCallback progress =
        options.progress != nullptr ? *options.progress : ProgressCallback();
    TANDEM_ASSIGN_OR_RETURN(
        walk.lane, DeviceLane::create(*options.device, program, *options.placement, store,
                                      {options.max_tokens, options.max_context, bytes},
                                      {options.fetch_experts, predictor_of(options)},
                                      {progress, or_never(options.cancel)},
                                      [&walk](int64_t layer, int64_t expert, bool to_device) {
                                        walk.move_expert(layer, expert, to_device);
                                      }));
  }
  TANDEM_ASSIGN_OR_RETURN(walk.rope, rope_of(program, store));
  walk.constants = operation_constants(program.shape, walk.rope, KvType::kF16);
  for (Batch* batch : batches) walk.prepare(*batch);
  walk.attend_scratch_stride = host::attend_scratch_floats(walk.constants);
  walk.attend_scratch.resize(walk.attend_scratch_stride * team.size());
  walk.counters = std::make_unique<ItemCounter[]>(n_steps);
  walk.recorder = options.recorder;
  if (walk.recorder != nullptr) {
    for (const Batch* batch : batches) {
      for (const Schedule* schedule : {&batch->all, &batch->choosing_all, &batch->head}) {
        walk.recorder->reserve(*batch->program, schedule->cpu.size(), schedule->device.size());
      }
    }
  }
  return executor;
}

void Executor::Walk::lower_all(unsigned n_threads, const Options& options) {
  const std::vector<Processor> who = processors(program, options);
  whole.decode = {&program, lower_for(program, decode_capacity(n_threads), who)};
  whole.prompt = {&program, lower_for(program, prompt_capacity(n_threads, options), who)};
  if (options.device == nullptr || !attends(options.placement->kv_on_device)) return;
  split_attention = std::make_unique<SplitAttention>(tandem::split_attention(program, who));
  const Program* split_program = &split_attention->program;
  split.decode = {split_program,
                  lower_split(*split_attention, decode_capacity(n_threads), options)};
  split.prompt = {split_program,
                  lower_split(*split_attention, prompt_capacity(n_threads, options), options)};
}

std::vector<Batch*> Executor::Walk::batches() {
  if (split_attention == nullptr) return {&whole.decode, &whole.prompt};
  return {&whole.decode, &whole.prompt, &split.decode, &split.prompt};
}

void Executor::Walk::prepare(Batch& made) {
  const LoweredProgram& lowered = made.lowered;
  made.operations = ready_operations(*made.program, lowered, memory());
  if (lane != nullptr) made.device_operations = lane->ready(*made.program, lowered, constants);
  if (split_attention != nullptr && made.program == &split_attention->program) {
    for (size_t i = 0; i < made.operations.size(); ++i) {
      if (split_attention->split[i]) made.operations[i].step = &split_input;
    }
  }
  const auto end = static_cast<uint32_t>(lowered.steps.size());
  made.all = make_schedule(*made.program, lowered, 0, end, {});
  made.body = make_schedule(*made.program, lowered, 0, lowered.first_output_step, {});
  made.head =
      make_schedule(*made.program, lowered, lowered.first_output_step, end, made.body.valid);
  const std::vector<bool> choosing =
      lane != nullptr ? lane->choosing_layers() : std::vector<bool>();
  if (choosing.empty()) return;
  made.choosing_all = make_schedule(*made.program, lowered, 0, end, {}, choosing);
  made.choosing_body =
      make_schedule(*made.program, lowered, 0, lowered.first_output_step, {}, choosing);
  TANDEM_ASSERT(made.choosing_body.valid == made.body.valid);  // as the head takes it
}

ProcessorMemory Executor::Walk::memory() {
  ProcessorMemory result;
  result.arena = arena.get();
  result.weight = [this](WeightId id) {
    const Weight& weight = program.weights[id];
    return store.data(weight.block, weight.extent);
  };
  result.in_tiles = [this](WeightId id) { return in_tiles(id); };
  result.experts = [this](WeightId first) -> const std::byte* const* {
    std::vector<const std::byte*>& table = experts[first];
    for (WeightId e = static_cast<WeightId>(table.size()); e < program.shape.n_experts; ++e) {
      const Weight& weight = program.weights[first + e];
      const bool mine = lane == nullptr || !lane->has(weight.block);
      table.push_back(mine ? store.data(weight.block, weight.extent) : nullptr);
    }
    return table.data();
  };
  result.rope_frequencies = rope.frequency.data();
  result.constants = &constants;
  result.step = &input;
  return result;
}

// Of experts, the first that the CPU computes tells for all: those that may move stay as they are.
bool Executor::Walk::in_tiles(WeightId id) const {
  const auto lies = [this](WeightId w) {
    const Weight& weight = program.weights[w];
    return store.in_tiles(weight.block, weight.extent);
  };
  const auto of_experts = experts.find(id);
  if (of_experts == experts.end()) return lies(id);
  const auto& table = of_experts->second;
  const auto mine = std::find_if(table.begin(), table.end(), [](auto* e) { return e != nullptr; });
  return mine != table.end() && lies(id + static_cast<WeightId>(mine - table.begin()));
}

void Executor::Walk::move_expert(int64_t layer, int64_t expert, bool to_device) {
  for (const Op& op : program.ops) {
    if (op.layer != layer || (op.kind != OpKind::kExpertMatmul && op.kind != OpKind::kListPairs)) {
      continue;
    }
    const Weight& weight = program.weights[op.weight + static_cast<WeightId>(expert)];
    experts[op.weight][static_cast<size_t>(expert)] =
        to_device ? nullptr : store.data(weight.block, weight.extent);
  }
}

int64_t Executor::max_tokens() const { return walk_->whole.prompt.lowered.options.max_tokens; }
int64_t Executor::max_outputs() const { return walk_->whole.prompt.lowered.options.max_outputs; }

std::span<const float> Executor::logits(int64_t row) const {
  const LoweredProgram& lowered = walk_->batch->lowered;
  const ValueId value = walk_->program.logits;
  const std::byte* at = walk_->arena.get() + lowered.offset[value] +
                        static_cast<size_t>(row) * lowered.row_bytes[value];
  return {reinterpret_cast<const float*>(at),
          static_cast<size_t>(walk_->program.shape.n_vocabulary)};
}

Status Executor::forward(std::span<const int32_t> ids, SequenceState& sequence, bool want_logits,
                         const CancelFlag& cancel, const ShareCallback* on_share) {
  Walk& walk = *walk_;
  const int64_t n = static_cast<int64_t>(ids.size());
  if (n < 1 || n > max_tokens() || sequence.size() + n > sequence.capacity()) {
    return invalid_argument(std::to_string(n) + " tokens at position " +
                            std::to_string(sequence.size()) + " do not fit a context of " +
                            std::to_string(sequence.capacity()) + " in steps of " +
                            std::to_string(max_tokens()));
  }
  for (const int32_t id : ids) {
    if (id < 0 || id >= walk.program.shape.n_vocabulary) {
      return invalid_argument("token " + std::to_string(id) + " is outside the vocabulary of " +
                              std::to_string(walk.program.shape.n_vocabulary));
    }
  }
  walk.constants.kv_type = sequence.layout().type;
  walk.input = {.n_tokens = n,
                .first_position = sequence.size(),
                .first_output = n - 1,
                .n_outputs = 1,
                .ids = ids.data(),
                .pages = sequence.pages()};
  walk.sequence = &sequence;
  walk.cancel = &cancel;
  walk.on_share = on_share;
  std::unique_lock<std::recursive_mutex>
      lock;  // pages stay where they are until they are appended to
  if (walk.lane != nullptr) lock = std::unique_lock(walk.lane->mutex());
  TANDEM_RETURN_IF_ERROR(walk.choose_batch(n));
  TANDEM_RETURN_IF_ERROR(walk.run(walk.choose_schedule(want_logits)));
  if (walk.stopped) return cancelled("cancelled while evaluating " + std::to_string(n) + " tokens");
  sequence.append(n);
  if (sequence.device() != nullptr) sequence.device()->appended(sequence.size());
  return ok_status();
}

Status Executor::compute_logits(int64_t first, int64_t n, const CancelFlag& cancel) {
  Walk& walk = *walk_;
  TANDEM_ASSERT(walk.batch != nullptr && first >= 0 && n >= 1 && first + n <= walk.input.n_tokens);
  walk.input.first_output = first;
  walk.input.n_outputs = n;
  walk.cancel = &cancel;
  walk.on_share = nullptr;
  TANDEM_RETURN_IF_ERROR(walk.run(walk.batch->head));
  return walk.stopped ? cancelled("cancelled while computing logits") : ok_status();
}

ExpertCache::Counters Executor::expert_counters() const {
  if (walk_->lane == nullptr || walk_->lane->expert_slots() == nullptr) return {};
  const std::lock_guard lock(walk_->lane->mutex());
  return walk_->lane->expert_slots()->counters();
}

uint64_t Executor::expert_slots() const {
  if (walk_->lane == nullptr || walk_->lane->expert_slots() == nullptr) return 0;
  const std::lock_guard lock(walk_->lane->mutex());
  return walk_->lane->expert_slots()->n_slots();
}

void Executor::adopt(SequenceState& sequence) const {
  if (walk_->lane != nullptr) sequence.set_device(walk_->lane->make_kv(sequence.layout()));
}

Status Executor::Walk::choose_batch(int64_t n_tokens) {
  bool all_there = true;
  if (lane != nullptr) {
    TANDEM_ASSIGN_OR_RETURN(all_there, lane->prepare(*sequence, sequence->size() + n_tokens));
  }
  if (!all_there) {
    split_input = input;
    split_input.pages = lane->host_pages();
  }
  Batches& chosen = all_there ? whole : split;
  batch = n_tokens == 1 ? &chosen.decode : &chosen.prompt;
  return ok_status();
}

const Schedule& Executor::Walk::choose_schedule(bool want_logits) const {
  if (lane != nullptr && lane->chooses(input.n_tokens == 1)) {
    return want_logits ? batch->choosing_all : batch->choosing_body;
  }
  return want_logits ? batch->all : batch->body;
}

Status Executor::Walk::run(const Schedule& chosen) {
  std::unique_lock<std::recursive_mutex> lock;
  if (lane != nullptr) lock = std::unique_lock(lane->mutex());
  schedule = &chosen;
  lane_status = ok_status();
  choose_status = ok_status();
  stopped = false;
  if (recorder != nullptr) recorder->begin();
  run_lanes();
  if (recorder != nullptr && lane != nullptr) lane->device().tell_observer();
  if (recorder != nullptr) record_step();
  stopped = stopped || cancel->cancelled();
  return lane_status.code() == Code::kCancelled ? ok_status() : lane_status;
}

void Executor::Walk::run_lanes() {
  if (lane != nullptr) {
    lane_status = lane->submit({batch->program, schedule, &batch->lowered, batch->device_operations,
                                arena.get(), &input, sequence,
                                batch == &whole.decode && schedule != &batch->head});
  }
  const bool submitted = lane_status.ok();
  n_tasks_done = 0;
  if (submitted && !schedule->cpu.empty()) team.run(run_tasks, this);
  if (lane != nullptr) {
    if (n_tasks_done < schedule->cpu.size()) {
      abandon(n_tasks_done);  // also where a part was submitted before something was refused
    } else if (submitted) {
      lane_status = lane->submit_rest();
    }
    Status finished = lane->finish();
    if (lane_status.ok()) lane_status = std::move(choose_status);
    if (lane_status.ok()) lane_status = std::move(finished);
    if (schedule == &batch->body || schedule == &batch->choosing_body) return;
    // Whoever asked for logits reads them now.
    const ValueId logits = program.logits;
    const MemoryRange read{arena.get() + batch->lowered.offset[logits],
                           batch->lowered.value_bytes(program, logits)};
    lane->device().host_access({&read, 1}, {}, "logits");
  }
}

// The device goes on to the end of a step that the CPU gave up.  What it takes for indices has to be some: zeros are.  Waits
// are kept, for places are shared.
void Executor::Walk::abandon(uint32_t first_task) {
  lane->end_choices();
  lane->submit_no_more();
  for (uint32_t t = first_task; t < schedule->cpu.size(); ++t) {
    const CpuTask& task = schedule->cpu[t];
    if (task.wait > lane->n_submitted()) return;  // nor does the device need what follows
    if (task.wait > 0 && !lane->wait(task.wait, or_never(nullptr)).ok()) return;
    const Step& step = batch->lowered.steps[task.step];
    declare(step);
    for (uint32_t i = step.first_op; i < step.first_op + step.n_ops; ++i) {
      const ValueId value = batch->program->ops[i].out;
      if (value == kNoId) continue;
      const ValueType type = batch->program->values[value].type;
      if (type != ValueType::kI32 && type != ValueType::kExpertLists) continue;
      std::fill_n(arena.get() + batch->lowered.offset[value],
                  batch->lowered.value_bytes(*batch->program, value), std::byte{0});
    }
    if (task.announce) lane->announce(t + 1);
  }
}

void Executor::Walk::record_step() {
  StepSize size;
  size.n_tokens = input.n_tokens;
  size.n_outputs = input.n_outputs;
  size.n_context = input.first_position + input.n_tokens;
  size.kv_type = constants.kv_type;
  const std::string_view name = schedule == &batch->head ? "logits"
                                : input.n_tokens == 1    ? "decode"
                                                         : "prompt";
  recorder->finish({name, *batch->program, batch->lowered, *schedule, size});
}

// The lists of experts are read now: later steps reuse their place.
StepRecorder::CpuTimes Executor::Walk::begin_task(const Step& step) const {
  const Operation& first = batch->operations[step.first_op];
  StepRecorder::CpuTimes times;
  if (first.rows == RowSpace::kPairs) times.n_pairs = *first.n_pairs;
  if (step.kind == StepKind::kExpertMatmuls) {
    times.n_active_experts = *host::lists_in(first).n_active;
  }
  times.begin_ns = Trace::now_ns();
  return times;
}

void Executor::Walk::declare(const Step& step) const {
  for (uint32_t i = step.first_op; i < step.first_op + step.n_ops; ++i) {
    const Operation& operation = batch->operations[i];
    const OperationRanges ranges = ranges_of(operation);
    lane->device().host_access(ranges.all_reads(), ranges.all_writes(),
                               operation_name(operation.kind));
    declare_pages(operation);
  }
}

// Of the layer, keys and values lie side by side in a page group.
void Executor::Walk::declare_pages(const Operation& operation) const {
  const bool stores = operation.kind == OpKind::kStoreKv;
  if (!stores && operation.kind != OpKind::kAttend && operation.kind != OpKind::kAttendPages &&
      operation.kind != OpKind::kMergePages) {
    return;
  }
  const StepInput& step = *operation.step;
  const size_t bytes = 2 * constants.kv_page_bytes();
  const size_t offset = static_cast<size_t>(operation.kv_slot) * bytes;
  std::array<MemoryRange, 64> ranges;
  size_t n = 0;
  const auto tell = [&] {
    const std::span<const MemoryRange> touched(ranges.data(), std::exchange(n, 0));
    const std::span<const MemoryRange> none;
    lane->device().host_access(stores ? none : touched, stores ? touched : none,
                               operation_name(operation.kind));
  };
  const int64_t end = (step.first_position + step.n_tokens + kPageTokens - 1) / kPageTokens;
  const int64_t window = constants.sliding_window > 0 ? constants.sliding_window : INT64_MAX;
  const int64_t seen = std::max<int64_t>(0, step.first_position + 1 - window);
  const int64_t first = stores ? step.first_position : seen;
  for (int64_t page = first / kPageTokens; page < end; ++page) {
    const std::byte* const group = step.pages[page];
    if (group == nullptr) continue;  // the device has it
    if (n == ranges.size()) tell();
    ranges[n++] = {group + offset, bytes};
  }
  if (n > 0) tell();
}

// Every thread runs this.
void Executor::Walk::run_tasks(void* context, unsigned thread_index) noexcept {
  auto& walk = *static_cast<Walk*>(context);
  const std::vector<CpuTask>& tasks = walk.schedule->cpu;
  const auto n = static_cast<uint32_t>(tasks.size());
  if (thread_index == 0) {
    for (uint32_t t = 0; t < n; ++t) walk.counters[t].next.store(0, std::memory_order_relaxed);
  }
  walk.team.barrier(thread_index);
  for (uint32_t t = 0; t < n; ++t) {
    const CpuTask& task = tasks[t];
    if (task.wait > 0) {
      if (thread_index == 0) walk.lane_status = walk.lane->wait(task.wait, *walk.cancel);
      walk.team.barrier(thread_index);
      if (!walk.lane_status.ok()) break;
    }
    const Step& step = walk.batch->lowered.steps[task.step];
    if (walk.lane != nullptr && thread_index == 0) walk.declare(step);
    const bool recorded = walk.recorder != nullptr && thread_index == 0;
    StepRecorder::CpuTimes times;
    if (recorded) times = walk.begin_task(step);
    walk.work(step, walk.counters[t], thread_index);
    // All threads must agree on when to stop.  Two flags in turn: thread 0 can write one again only after everybody
    // has read it.
    bool& stop = walk.stop_after[t % 2];
    if (thread_index == 0) {
      stop = walk.cancel->cancelled();
      if (walk.on_share != nullptr) (*walk.on_share)(static_cast<double>(t + 1) / n);
    }
    walk.team.barrier(thread_index);
    if (recorded) {
      times.end_ns = Trace::now_ns();
      walk.recorder->cpu_task(t, times);
    }
    if (stop) break;
    if (thread_index == 0) {
      walk.n_tasks_done = t + 1;
      if (task.announce) walk.lane->announce(t + 1);
    }
  }
  // A thread that skipped items saw the flag before the last barrier, so this look sees it too.
  if (thread_index == 0) walk.stopped = walk.cancel->cancelled();
}

void Executor::Walk::work(const Step& step, ItemCounter& counter, unsigned thread_index) {
  const int64_t n = n_items(step);
  for (;;) {
    const int64_t index = counter.next.fetch_add(1, std::memory_order_relaxed);
    if (index >= n || cancel->cancelled()) return;
    item(step, index, thread_index);
  }
}

int64_t Executor::Walk::n_items(const Step& step) const {
  const Operation& first = batch->operations[step.first_op];
  switch (step.kind) {
    case StepKind::kRows:
      return host::n_rows(first);
    case StepKind::kMatmuls:
      return step.n_ranges;
    case StepKind::kAttend:
      return input.n_tokens * constants.n_kv_heads;
    case StepKind::kSerial:
      return 1;
    case StepKind::kExpertMatmuls:
      return step.n_ranges * *host::lists_in(first).n_active;
  }
  return 0;
}

namespace {

struct RowRange {
  const Operation* operation;
  int64_t begin, end;
};

// The index-th range of the outputs of a step's products.
RowRange range_of(const Operation* operation, int64_t rows_per_item, int64_t index) {
  for (;; ++operation) {
    const int64_t rows = operation->weight_rows;
    const int64_t ranges = (rows + rows_per_item - 1) / rows_per_item;
    if (index < ranges) {
      const int64_t begin = index * rows_per_item;
      return {operation, begin, std::min(begin + rows_per_item, rows)};
    }
    index -= ranges;
  }
}

}  // namespace

void Executor::Walk::choose_experts(const Operation& list) {
  const std::vector<bool>& choosing = schedule->choosing;
  const bool choose = !choosing.empty() && choosing[static_cast<size_t>(list.layer)];
  const auto* ids = reinterpret_cast<const int32_t*>(list.in[0].data);
  Status chosen = lane->choose_experts(list.layer, ids, input.n_tokens, choose);
  if (choose_status.ok()) choose_status = std::move(chosen);
}

void Executor::Walk::item(const Step& step, int64_t index, unsigned thread_index) {
  const Operation* first = &batch->operations[step.first_op];
  switch (step.kind) {
    case StepKind::kRows:
      for (uint32_t i = 0; i < step.n_ops; ++i) host::compute_row(first[i], kernels, index);
      return;
    case StepKind::kMatmuls: {
      const RowRange range = range_of(first, step.rows_per_item, index);
      return host::compute_product(*range.operation, kernels, range.begin, range.end);
    }
    case StepKind::kAttend:
      return host::compute_attend(
          *first, kernels, index / constants.n_kv_heads, index % constants.n_kv_heads,
          attend_scratch.data() + thread_index * attend_scratch_stride, *cancel);
    case StepKind::kSerial:
      if (lane != nullptr) choose_experts(*first);
      return host::list_pairs(*first);
    case StepKind::kExpertMatmuls: {
      const RowRange range = range_of(first, step.rows_per_item, index % step.n_ranges);
      const int32_t expert = host::lists_in(*range.operation).active[index / step.n_ranges];
      return host::compute_expert_product(*range.operation, kernels, expert, range.begin,
                                          range.end);
    }
  }
}

}  // namespace tandem
