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

// Scores [R,64] and two partials of (maximum [R], sum [R], values [R,E]).
size_t attend_floats(const ModelShape& shape) {
  const size_t group = static_cast<size_t>(shape.n_heads / shape.n_kv_heads);
  const size_t width = static_cast<size_t>(shape.head_width);
  return align_up(group * kPageTokens + 2 * group * (2 + width), 32);
}

}  // namespace

void FreeDeleter::operator()(void* memory) const { std::free(memory); }

Executor::~Executor() = default;

uint64_t Executor::work_bytes(const Program& program, unsigned n_threads, const Options& options) {
  const size_t decode = lower(program, decode_shape(n_threads)).arena_bytes;
  const size_t prompt = lower(program, prompt_shape(n_threads, options)).arena_bytes;
  return std::max(decode, prompt) + n_threads * attend_floats(program.shape) * sizeof(float);
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
                                 .decode = lower(program, decode_shape(team.size())),
                                 .prompt = lower(program, prompt_shape(team.size(), options)),
                                 .arena = nullptr,
                                 .attend_work = {},
                                 .counters = nullptr});
  Walk& walk = *executor->walk_;
  const size_t bytes =
      align_up(std::max(walk.decode.arena_bytes, walk.prompt.arena_bytes), kArenaAlignment);
  walk.arena.reset(static_cast<std::byte*>(std::aligned_alloc(kArenaAlignment, bytes)));
  if (walk.arena == nullptr) {
    return out_of_memory("work buffers need " + format_bytes(bytes)).with_bytes(bytes, 0);
  }
  std::fill_n(walk.arena.get(), bytes, std::byte{0});
  std::span<const float> factors;
  if (program.rope_factors != kNoId) {
    factors = {walk.weight_vector(program.rope_factors),
               static_cast<size_t>(program.shape.n_rot / 2)};
    TANDEM_RETURN_IF_ERROR(check_rope_factors(factors));
  }
  walk.rope = rope_frequencies(program.shape, factors);
  walk.attend_work_stride = attend_floats(program.shape);
  walk.attend_work.resize(walk.attend_work_stride * team.size());
  walk.counters =
      std::make_unique<ItemCounter[]>(std::max(walk.decode.steps.size(), walk.prompt.steps.size()));
  return executor;
}

int64_t Executor::max_tokens() const { return walk_->prompt.options.max_tokens; }
int64_t Executor::max_outputs() const { return walk_->prompt.options.max_outputs; }

std::span<const float> Executor::logits(int64_t row) const {
  return {walk_->row_as<float>(walk_->program.logits, row),
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
  walk.lowered = n == 1 ? &walk.decode : &walk.prompt;
  walk.first_step = 0;
  walk.end_step = want_logits ? static_cast<uint32_t>(walk.lowered->steps.size())
                              : walk.lowered->first_output_step;
  walk.ids = ids.data();
  walk.n_tokens = n;
  walk.first_position = sequence.size();
  walk.first_output = n - 1;
  walk.n_outputs = 1;
  walk.sequence = &sequence;
  walk.cancel = &cancel;
  walk.on_share = on_share;
  walk.team.run(Walk::run_steps, &walk);
  if (walk.stopped) return cancelled("cancelled while evaluating " + std::to_string(n) + " tokens");
  sequence.append(n);
  return ok_status();
}

Status Executor::compute_logits(int64_t first, int64_t n, const CancelFlag& cancel) {
  Walk& walk = *walk_;
  TANDEM_ASSERT(walk.lowered != nullptr && first >= 0 && n >= 1 && first + n <= walk.n_tokens);
  walk.first_step = walk.lowered->first_output_step;
  walk.end_step = static_cast<uint32_t>(walk.lowered->steps.size());
  walk.first_output = first;
  walk.n_outputs = n;
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
    walk.work(walk.lowered->steps[s], walk.counters[s], thread_index);
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

int64_t Executor::Walk::n_rows(RowSpace rows) const {
  switch (rows) {
    case RowSpace::kTokens:
      return n_tokens;
    case RowSpace::kPairs:
      return n_tokens * program.shape.n_experts_used;
    case RowSpace::kOutputs:
      return n_outputs;
    case RowSpace::kStep:
      return 1;
  }
  return 0;
}

int64_t Executor::Walk::n_items(const Step& step) const {
  switch (step.kind) {
    case StepKind::kRows:
      return n_rows(step.rows);
    case StepKind::kMatmuls:
      return step.n_ranges;
    case StepKind::kAttend:
      return n_tokens * program.shape.n_kv_heads;
    case StepKind::kSerial:
      return 1;
    case StepKind::kExpertMatmuls:
      return step.n_ranges * *lists(program.ops[step.first_op].in[1]).n_active;
  }
  return 0;
}

void Executor::Walk::item(const Step& step, int64_t index, unsigned thread_index) {
  const Op& first = program.ops[step.first_op];
  switch (step.kind) {
    case StepKind::kRows:
      return row_item(step, index);
    case StepKind::kMatmuls:
      return matmul_item(step, index);
    case StepKind::kAttend:
      return attend_item(first, index, thread_index);
    case StepKind::kSerial:
      return list_pairs(first);
    case StepKind::kExpertMatmuls:
      return expert_item(step, index);
  }
}

namespace {

struct RowRange {
  const Op* op;
  int64_t begin, end;
};

// The index-th range of the outputs of a step's products.
RowRange range_of(const Program& program, const Step& step, int64_t index) {
  for (uint32_t i = step.first_op;; ++i) {
    const Op& op = program.ops[i];
    const int64_t rows = program.weights[op.weight].rows;
    const int64_t ranges = (rows + step.rows_per_item - 1) / step.rows_per_item;
    if (index < ranges) {
      const int64_t begin = index * step.rows_per_item;
      return {&op, begin, std::min(begin + step.rows_per_item, rows)};
    }
    index -= ranges;
  }
}

}  // namespace

void Executor::Walk::matmul_item(const Step& step, int64_t index) {
  const RowRange range = range_of(program, step, index);
  const int64_t n = n_rows(program.values[range.op->out].rows);
  product(*range.op, program.weights[range.op->weight], 0, range.begin, range.end, n);
}

void Executor::Walk::expert_item(const Step& step, int64_t index) {
  const RowRange range = range_of(program, step, index % step.n_ranges);
  const ExpertLists pairs = lists(range.op->in[1]);
  const int32_t expert = pairs.active[index / step.n_ranges];
  const int64_t first = pairs.begin[expert];
  const Weight& weight = program.weights[range.op->weight + static_cast<WeightId>(expert)];
  product(*range.op, weight, first, range.begin, range.end, pairs.begin[expert + 1] - first);
}

// Rows [row_begin,row_end) of the weight times n input rows from first_row on.
void Executor::Walk::product(const Op& op, const Weight& weight, int64_t first_row,
                             int64_t row_begin, int64_t row_end, int64_t n_input_rows) {
  const void* w = weight_data(weight);
  const size_t row_bytes = weight.row_bytes();
  float* y = row_as<float>(op.out, first_row);
  const size_t y_stride = lowered->row_bytes[op.out] / sizeof(float);
  const ValueId in = op.in[0];
  const auto with_floats = [&](cpu::KernelTable::MatmulFloat* matmul) {
    matmul(w, row_bytes, row_as<const float>(in, first_row), lowered->row_bytes[in] / sizeof(float),
           y, y_stride, row_begin, row_end, weight.cols, n_input_rows);
  };
  const auto with_blocks = [&](cpu::KernelTable::MatmulQ8A* matmul) {
    matmul(w, row_bytes, row_as<const BlockQ8A>(in, first_row),
           lowered->row_bytes[in] / sizeof(BlockQ8A), y, y_stride, row_begin, row_end, weight.cols,
           n_input_rows);
  };
  switch (weight.type) {
    case DType::kF32:
      return with_floats(kernels.matmul_f32);
    case DType::kF16:
      return with_floats(kernels.matmul_f16);
    case DType::kBF16:
      return with_floats(kernels.matmul_bf16);
    case DType::kQ4_0:
      return with_blocks(kernels.matmul_q4_0);
    case DType::kQ8_0:
      return with_blocks(kernels.matmul_q8_0);
    case DType::kQ4_K:
      return with_blocks(kernels.matmul_q4_k);
    case DType::kQ6_K:
      return with_blocks(kernels.matmul_q6_k);
  }
}

void Executor::Walk::row_item(const Step& step, int64_t row_index) {
  for (uint32_t i = step.first_op; i < step.first_op + step.n_ops; ++i)
    row_op(program.ops[i], row_index);
}

// A counting sort of the (token, expert) pairs by expert; pairs of one expert keep the order of the tokens.
void Executor::Walk::list_pairs(const Op& op) {
  const int64_t n_experts = program.shape.n_experts;
  const int64_t n_pairs = n_tokens * program.shape.n_experts_used;
  const int32_t* expert_of = row_as<const int32_t>(op.in[0], 0);  // [T,U], contiguous
  const ExpertLists pairs = lists(op.out);
  std::fill_n(pairs.begin, n_experts + 1, 0);
  for (int64_t p = 0; p < n_pairs; ++p) ++pairs.begin[expert_of[p] + 1];
  *pairs.n_active = 0;
  for (int32_t e = 0; e < n_experts; ++e) {
    if (pairs.begin[e + 1] > 0) pairs.active[(*pairs.n_active)++] = e;
    pairs.begin[e + 1] += pairs.begin[e];
  }
  // begin[e] serves as the next free row of expert e, then is put back by one expert's worth.
  for (int64_t p = 0; p < n_pairs; ++p) {
    const int32_t row_index = pairs.begin[expert_of[p]]++;
    pairs.pair_at[row_index] = static_cast<int32_t>(p);
    pairs.row_of[p] = row_index;
  }
  for (int64_t e = n_experts; e > 0; --e) pairs.begin[e] = pairs.begin[e - 1];
  pairs.begin[0] = 0;
}

void Executor::Walk::attend_item(const Op& op, int64_t index, unsigned thread_index) {
  const ModelShape& shape = program.shape;
  const int64_t token = index / shape.n_kv_heads;
  const int64_t head = index % shape.n_kv_heads;
  const int64_t group = shape.n_heads / shape.n_kv_heads;
  const int64_t width = shape.head_width;
  const int64_t n_keys = first_position + token + 1;
  const int64_t first_key =
      shape.sliding_window > 0 ? std::max<int64_t>(0, n_keys - shape.sliding_window) : 0;
  const KvLayout& layout = sequence->layout();
  const size_t head_offset = static_cast<size_t>(head) * layout.head_bytes();
  const size_t row_bytes = layout.head_bytes() / static_cast<size_t>(kPageTokens);
  const float scale = 1.0f / std::sqrt(static_cast<float>(width));

  const float* q = row_as<const float>(op.in[0], token) + head * group * width;
  float* scores = attend_work.data() + thread_index * attend_work_stride;
  float* maximum = scores + group * kPageTokens;
  float* sum = maximum + group;
  float* acc = sum + group;
  float* page_maximum = acc + group * width;
  float* page_sum = page_maximum + group;
  float* page_acc = page_sum + group;
  cpu::KernelTable::AttendPage* attend =
      layout.type == KvType::kF16 ? kernels.attend_page_f16 : kernels.attend_page_f32;

  const int64_t first_page = first_key / kPageTokens;
  for (int64_t page = first_page; page * kPageTokens < n_keys; ++page) {
    const bool first = page == first_page;
    const int64_t skipped = first ? first_key % kPageTokens : 0;
    const int64_t n = std::min(kPageTokens, n_keys - page * kPageTokens) - skipped;
    const size_t offset = head_offset + static_cast<size_t>(skipped) * row_bytes;
    attend(q, sequence->keys(op.layer, page) + offset, sequence->values(op.layer, page) + offset, n,
           group, width, scale, scores, first ? maximum : page_maximum, first ? sum : page_sum,
           first ? acc : page_acc);
    if (!first)
      kernels.merge_partials(maximum, sum, acc, page_maximum, page_sum, page_acc, group, width);
  }
  float* out = row_as<float>(op.out, token) + head * group * width;
  for (int64_t r = 0; r < group; ++r) {
    const float inverse = 1.0f / sum[r];
    for (int64_t i = 0; i < width; ++i) out[r * width + i] = acc[r * width + i] * inverse;
  }
}

}  // namespace tandem
