#include "dispatch/executor.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <string>

#include "base/bytes.h"
#include "base/checked.h"
#include "dispatch/executor_walk.h"

namespace tandem {
namespace {

constexpr size_t kArenaAlignment = 4096;

LoweringOptions decode_shape(unsigned n_threads) { return {1, 1, n_threads}; }
LoweringOptions prompt_shape(unsigned n_threads, const Executor::Options& options) {
  return {options.max_tokens, options.max_outputs, n_threads};
}

}  // namespace

void FreeDeleter::operator()(void* memory) const { std::free(memory); }

Executor::~Executor() = default;

uint64_t Executor::work_bytes(const Program& program, unsigned n_threads, const Options& options) {
  const size_t decode = lower(program, decode_shape(n_threads)).arena_bytes;
  const size_t prompt = lower(program, prompt_shape(n_threads, options)).arena_bytes;
  const OperationConstants constants = operation_constants(program.shape, {}, KvType::kF16);
  return std::max(decode, prompt) +
         n_threads * host::attend_scratch_floats(constants) * sizeof(float);
}

Result<std::unique_ptr<Executor>> Executor::create(const Program& program, const BlockStore& store,
                                                   Team& team, const cpu::KernelTable& kernels,
                                                   const Options& options) {
  std::unique_ptr<Executor> executor(new Executor());
  executor->walk_.reset(new Walk{.program = program,
                                 .store = store,
                                 .team = team,
                                 .kernels = kernels,
                                 .rope = {},
                                 .constants = {},
                                 .experts = {},
                                 .decode = {lower(program, decode_shape(team.size())), {}},
                                 .prompt = {lower(program, prompt_shape(team.size(), options)), {}},
                                 .arena = nullptr,
                                 .attend_scratch = {},
                                 .counters = nullptr});
  Walk& walk = *executor->walk_;
  const LoweredProgram& decode = walk.decode.lowered;
  const LoweredProgram& prompt = walk.prompt.lowered;
  const size_t bytes = align_up(std::max(decode.arena_bytes, prompt.arena_bytes), kArenaAlignment);
  walk.arena.reset(static_cast<std::byte*>(std::aligned_alloc(kArenaAlignment, bytes)));
  if (walk.arena == nullptr) {
    return out_of_memory("work buffers need " + format_bytes(bytes)).with_bytes(bytes, 0);
  }
  std::fill_n(walk.arena.get(), bytes, std::byte{0});
  std::span<const float> factors;
  if (program.rope_factors != kNoId) {
    const Weight& weight = program.weights[program.rope_factors];
    factors = {reinterpret_cast<const float*>(store.data(weight.block, weight.extent)),
               static_cast<size_t>(program.shape.n_rot / 2)};
    TANDEM_RETURN_IF_ERROR(check_rope_factors(factors));
  }
  walk.rope = rope_frequencies(program.shape, factors);
  walk.constants = operation_constants(program.shape, walk.rope, KvType::kF16);
  const ProcessorMemory memory = walk.memory();
  walk.decode.operations = ready_operations(program, decode, memory);
  walk.prompt.operations = ready_operations(program, prompt, memory);
  walk.attend_scratch_stride = host::attend_scratch_floats(walk.constants);
  walk.attend_scratch.resize(walk.attend_scratch_stride * team.size());
  walk.counters =
      std::make_unique<ItemCounter[]>(std::max(decode.steps.size(), prompt.steps.size()));
  return executor;
}

ProcessorMemory Executor::Walk::memory() {
  ProcessorMemory result;
  result.arena = arena.get();
  result.weight = [this](WeightId id) {
    const Weight& weight = program.weights[id];
    return store.data(weight.block, weight.extent);
  };
  result.experts = [this](WeightId first) -> const std::byte* const* {
    std::vector<const std::byte*>& table = experts[first];
    for (WeightId e = static_cast<WeightId>(table.size()); e < program.shape.n_experts; ++e) {
      const Weight& weight = program.weights[first + e];
      table.push_back(store.data(weight.block, weight.extent));
    }
    return table.data();
  };
  result.rope_frequencies = rope.frequency.data();
  result.constants = &constants;
  result.step = &input;
  return result;
}

int64_t Executor::max_tokens() const { return walk_->prompt.lowered.options.max_tokens; }
int64_t Executor::max_outputs() const { return walk_->prompt.lowered.options.max_outputs; }

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
  walk.batch = n == 1 ? &walk.decode : &walk.prompt;
  walk.first_step = 0;
  walk.end_step = want_logits ? static_cast<uint32_t>(walk.batch->lowered.steps.size())
                              : walk.batch->lowered.first_output_step;
  walk.constants.kv_type = sequence.layout().type;
  walk.input = {.n_tokens = n,
                .first_position = sequence.size(),
                .first_output = n - 1,
                .n_outputs = 1,
                .ids = ids.data(),
                .pages = sequence.pages()};
  walk.cancel = &cancel;
  walk.on_share = on_share;
  walk.team.run(Walk::run_steps, &walk);
  if (walk.stopped) return cancelled("cancelled while evaluating " + std::to_string(n) + " tokens");
  sequence.append(n);
  return ok_status();
}

Status Executor::compute_logits(int64_t first, int64_t n, const CancelFlag& cancel) {
  Walk& walk = *walk_;
  TANDEM_ASSERT(walk.batch != nullptr && first >= 0 && n >= 1 && first + n <= walk.input.n_tokens);
  walk.first_step = walk.batch->lowered.first_output_step;
  walk.end_step = static_cast<uint32_t>(walk.batch->lowered.steps.size());
  walk.input.first_output = first;
  walk.input.n_outputs = n;
  walk.cancel = &cancel;
  walk.on_share = nullptr;
  walk.team.run(Walk::run_steps, &walk);
  return walk.stopped ? cancelled("cancelled while computing logits") : ok_status();
}

// Every thread runs this.
void Executor::Walk::run_steps(void* context, unsigned thread_index) noexcept {
  auto& walk = *static_cast<Walk*>(context);
  if (thread_index == 0) {
    for (uint32_t s = walk.first_step; s < walk.end_step; ++s) {
      walk.counters[s].next.store(0, std::memory_order_relaxed);
    }
  }
  walk.team.barrier(thread_index);
  for (uint32_t s = walk.first_step; s < walk.end_step; ++s) {
    walk.work(walk.batch->lowered.steps[s], walk.counters[s], thread_index);
    // All threads must agree on when to stop.  Two flags in turn: thread 0 can write one again only after everybody
    // has read it.
    bool& stop = walk.stop_after[s % 2];
    if (thread_index == 0) {
      stop = walk.cancel->cancelled();
      if (walk.on_share != nullptr) {
        (*walk.on_share)(static_cast<double>(s + 1 - walk.first_step) /
                         (walk.end_step - walk.first_step));
      }
    }
    walk.team.barrier(thread_index);
    if (stop) break;
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
