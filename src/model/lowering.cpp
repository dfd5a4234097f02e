#include "model/lowering.h"

#include <algorithm>
#include <span>

#include "base/blocks.h"
#include "base/checked.h"

namespace tandem {
namespace {

constexpr size_t kAlignment = 64;
constexpr int64_t kItemsPerThread = 16;
// One item is at most this many multiply-adds, so that cancelling takes a millisecond with vector kernels and a tenth of a
// second with the scalar ones.  Fewer would be better shared, but activations come from far away for each item.
constexpr int64_t kMaxItemWork = int64_t{1} << 27;
constexpr int64_t kRowMultiple = 16;  // of a tile, see kernels_cpu/tiles.h

StepKind step_kind(OpKind kind) {
  switch (kind) {
    case OpKind::kMatmul:
      return StepKind::kMatmuls;
    case OpKind::kExpertMatmul:
      return StepKind::kExpertMatmuls;
    case OpKind::kAttend:
    case OpKind::kAttendPages:
    case OpKind::kMergePages:
      return StepKind::kAttend;
    case OpKind::kListPairs:
      return StepKind::kSerial;
    default:
      return StepKind::kRows;
  }
}

RowSpace op_rows(const Program& program, const Op& op) {
  const ValueId value = op.out != kNoId ? op.out : op.in[0];
  return program.values[value].rows;
}

// Products may only share a step when none reads what another writes.
bool independent_of_step(const Program& program, const Step& step, const Op& op) {
  for (uint32_t i = step.first_op; i < step.first_op + step.n_ops; ++i) {
    const ValueId written = program.ops[i].out;
    if (std::find(std::begin(op.in), std::end(op.in), written) != std::end(op.in)) return false;
  }
  return true;
}

// These read rows of others than the one they write, so they cannot share a step with what makes their input.
bool reads_other_rows(OpKind kind) {
  return kind == OpKind::kGatherPairs || kind == OpKind::kCombine || kind == OpKind::kGatherOutputs;
}

bool joins(const Program& program, const Step& step, const Op& op, Processor processor) {
  if (step.n_ops == 0 || step_kind(op.kind) != step.kind || processor != step.processor)
    return false;
  switch (step.kind) {
    case StepKind::kRows:
      return step.rows == op_rows(program, op) &&
             (!reads_other_rows(op.kind) || independent_of_step(program, step, op));
    case StepKind::kMatmuls:
    case StepKind::kExpertMatmuls:
      return independent_of_step(program, step, op);
    case StepKind::kAttend:
    case StepKind::kSerial:
      return false;
  }
  return false;
}

std::vector<Step> group_ops(const Program& program, std::span<const Processor> processors,
                            uint32_t& first_output_step) {
  std::vector<Step> steps;
  for (uint32_t i = 0; i < program.ops.size(); ++i) {
    const Op& op = program.ops[i];
    const Processor processor = processors.empty() ? Processor::kCpu : processors[i];
    const bool boundary = i == program.first_output_op;
    if (boundary) first_output_step = static_cast<uint32_t>(steps.size());
    if (boundary || steps.empty() || !joins(program, steps.back(), op, processor)) {
      steps.push_back({step_kind(op.kind), processor, op_rows(program, op), i, 0, 0, 0});
    }
    ++steps.back().n_ops;
  }
  return steps;
}

void cut_products(const Program& program, const LoweringOptions& options, Step& step) {
  int64_t total_rows = 0;
  int64_t longest = 1;
  for (uint32_t i = step.first_op; i < step.first_op + step.n_ops; ++i) {
    const Weight& weight = program.weights[program.ops[i].weight];
    total_rows += weight.rows;
    longest = std::max(longest, weight.cols);
  }
  // All active experts of a step share its items; a single token has U of them.
  const bool experts = step.kind == StepKind::kExpertMatmuls;
  const int64_t parts = experts ? std::max<int64_t>(1, program.shape.n_experts_used) : 1;
  const int64_t items = std::max<int64_t>(1, kItemsPerThread * options.n_threads / parts);
  const int64_t rows_of_work = std::max<int64_t>(1, kMaxItemWork / (longest * options.max_tokens));
  int64_t rows = std::min((total_rows + items - 1) / items, rows_of_work);
  rows = std::max<int64_t>(kRowMultiple, rows / kRowMultiple * kRowMultiple);
  step.rows_per_item = rows;
  step.n_ranges = 0;
  for (uint32_t i = step.first_op; i < step.first_op + step.n_ops; ++i) {
    const Weight& weight = program.weights[program.ops[i].weight];
    step.n_ranges += (weight.rows + rows - 1) / rows;
  }
}

int64_t rows_in(const Program& program, RowSpace rows, int64_t n_tokens, int64_t n_outputs) {
  switch (rows) {
    case RowSpace::kTokens:
      return n_tokens;
    case RowSpace::kPairs:
      return n_tokens * std::max<int64_t>(1, program.shape.n_experts_used);
    case RowSpace::kOutputs:
      return n_outputs;
    case RowSpace::kStep:
      return 1;
  }
  return 1;
}

// First and last step that touch each value.
struct Lifetime {
  uint32_t first = UINT32_MAX, last = 0;
  void touch(uint32_t step) {
    first = std::min(first, step);
    last = std::max(last, step);
  }
};

std::vector<Lifetime> lifetimes(const Program& program, const LoweredProgram& lowered) {
  std::vector<Lifetime> result(program.values.size());
  for (uint32_t s = 0; s < lowered.steps.size(); ++s) {
    const Step& step = lowered.steps[s];
    for (uint32_t i = step.first_op; i < step.first_op + step.n_ops; ++i) {
      const Op& op = program.ops[i];
      for (ValueId value : {op.in[0], op.in[1], op.in[2], op.out, op.out2}) {
        if (value != kNoId) result[value].touch(s);
      }
    }
  }
  // The head may run several times after one body, so what it reads must survive to the end.
  const uint32_t end = static_cast<uint32_t>(lowered.steps.size());
  for (Lifetime& life : result) {
    if (life.first < lowered.first_output_step && life.last >= lowered.first_output_step)
      life.last = end;
  }
  if (program.logits != kNoId) result[program.logits].last = end;
  return result;
}

bool computed_by_both(const Program& program, const LoweredProgram& lowered, ValueId value) {
  const auto& processors = lowered.options.processors;
  for (size_t i = 0; i < processors.size(); ++i) {
    if (program.ops[i].out == value && processors[i] == Processor::kBoth) return true;
  }
  return false;
}

struct Placed {
  size_t begin, end;
  uint32_t last;
};

// First fit among what is live; values come in order of their first step.
size_t place(std::vector<Placed>& live, uint32_t first, size_t bytes) {
  std::erase_if(live, [first](const Placed& p) { return p.last < first; });
  std::sort(live.begin(), live.end(),
            [](const Placed& a, const Placed& b) { return a.begin < b.begin; });
  size_t offset = 0;
  for (const Placed& p : live) {
    if (offset + bytes <= p.begin) break;
    offset = std::max(offset, p.end);
  }
  return offset;
}

// What needs a place: a value, or the other processor's share of one.
struct Wish {
  ValueId value;
  bool other;
  Lifetime life;
  ValueId behind = kNoId;  // wants the place right behind it
};

// What a router chose and what the experts read go from one processor to the other at the same time: side by side, one
// copy is enough.
void put_choice_behind_rows(const Program& program, std::vector<Wish>& wishes) {
  const auto wish_of = [&](ValueId value) {
    return std::find_if(wishes.begin(), wishes.end(),
                        [=](const Wish& wish) { return wish.value == value; });
  };
  for (const Op& list : program.ops) {
    if (list.kind != OpKind::kListPairs) continue;
    const auto gather = std::find_if(program.ops.begin(), program.ops.end(), [&](const Op& op) {
      return op.kind == OpKind::kGatherPairs && op.in[1] == list.out;
    });
    if (gather == program.ops.end()) continue;
    const auto rows = wish_of(gather->in[0]);
    const auto choice = wish_of(list.in[0]);
    if (rows == wishes.end() || choice == wishes.end() || rows->behind != kNoId) continue;
    rows->behind = choice->value;
    rows->life.touch(choice->life.first);
    rows->life.touch(choice->life.last);
    wishes.erase(choice);
  }
}

// Shares come to the processor that sums them from when the lists are made until the sum.
void add_other_shares(const Program& program, const LoweredProgram& lowered,
                      const std::vector<Lifetime>& lives, std::vector<Wish>& wishes) {
  for (uint32_t s = 0; s < lowered.steps.size(); ++s) {
    const Step& step = lowered.steps[s];
    if (step.processor == Processor::kBoth) continue;
    for (uint32_t i = step.first_op; i < step.first_op + step.n_ops; ++i) {
      const Op& op = program.ops[i];
      if (op.kind != OpKind::kCombine || !computed_by_both(program, lowered, op.in[0])) continue;
      for (const ValueId value : {op.in[0], op.in[1]}) {
        wishes.push_back({value, true, {lives[op.in[1]].first, s}});
      }
    }
  }
}

// Places those values that only the CPU has, or the others, from `base` on; returns where they end.
size_t place_all(const Program& program, LoweredProgram& lowered, const std::vector<Wish>& wishes,
                 bool cpu_only, size_t base) {
  std::vector<Placed> live;
  size_t end = base;
  const auto bytes_of = [&](ValueId value) {
    return align_up(lowered.value_bytes(program, value), kAlignment);
  };
  for (const Wish& wish : wishes) {
    if ((program.values[wish.value].type == ValueType::kPartials) != cpu_only) continue;
    const bool pair = wish.behind != kNoId;
    const size_t bytes = bytes_of(wish.value) + (pair ? bytes_of(wish.behind) : 0);
    const size_t offset = place(live, wish.life.first, bytes);
    (wish.other ? lowered.other_offset : lowered.offset)[wish.value] = base + offset;
    if (pair) lowered.offset[wish.behind] = base + offset + bytes_of(wish.value);
    live.push_back({offset, offset + bytes, wish.life.last});
    end = std::max(end, base + offset + bytes);
  }
  return end;
}

std::vector<size_t> bytes_of_rows(const Program& program, const LoweringOptions& options) {
  std::vector<size_t> bytes;
  for (const Value& value : program.values) {
    bytes.push_back(value_row_bytes(program, value, options.max_tokens));
    if (value.type == ValueType::kPartials) {
      bytes.back() *= static_cast<size_t>(options.n_partial_slots);
    }
  }
  return bytes;
}

void place_values(const Program& program, LoweredProgram& lowered) {
  const std::vector<Lifetime> lives = lifetimes(program, lowered);
  const size_t n = program.values.size();
  std::vector<Wish> wishes;
  for (ValueId v = 0; v < n; ++v) {
    if (lives[v].first != UINT32_MAX) wishes.push_back({v, false, lives[v]});
  }
  put_choice_behind_rows(program, wishes);
  add_other_shares(program, lowered, lives, wishes);
  std::stable_sort(wishes.begin(), wishes.end(),
                   [](const Wish& a, const Wish& b) { return a.life.first < b.life.first; });
  lowered.offset.assign(n, 0);
  lowered.row_bytes = bytes_of_rows(program, lowered.options);
  lowered.other_offset.assign(n, LoweredProgram::kNoOffset);
  lowered.arena_bytes = place_all(program, lowered, wishes, /*cpu_only=*/false, 0);
  lowered.cpu_arena_bytes =
      place_all(program, lowered, wishes, /*cpu_only=*/true, lowered.arena_bytes);
}

}  // namespace

size_t value_row_bytes(const Program& program, const Value& value, int64_t max_tokens) {
  const size_t width = static_cast<size_t>(value.width);
  switch (value.type) {
    case ValueType::kF32:
    case ValueType::kPartials:
      return width * sizeof(float);
    case ValueType::kI32:
      return width * sizeof(int32_t);
    case ValueType::kQ8A:
      return width / 32 * sizeof(BlockQ8A);
    case ValueType::kExpertLists:
      return sizeof(int32_t) *
             ExpertLists::count(program.shape.n_experts, max_tokens * program.shape.n_experts_used);
  }
  return 0;
}

size_t LoweredProgram::value_bytes(const Program& program, ValueId value) const {
  return step_bytes(program, value, options.max_tokens, options.max_outputs);
}

size_t LoweredProgram::step_bytes(const Program& program, ValueId value, int64_t n_tokens,
                                  int64_t n_outputs) const {
  const Value& v = program.values[value];
  if (v.type == ValueType::kExpertLists) return value_row_bytes(program, v, n_tokens);
  return row_bytes[value] * static_cast<size_t>(rows_in(program, v.rows, n_tokens, n_outputs));
}

bool LoweredProgram::are_neighbours(const Program& program, ValueId a, ValueId b) const {
  const auto end = [&](ValueId value) {
    return align_up(offset[value] + value_bytes(program, value), kAlignment);
  };
  return end(a) == offset[b] || end(b) == offset[a];
}

LoweredProgram lower(const Program& program, const LoweringOptions& options) {
  LoweredProgram lowered;
  lowered.options = options;
  lowered.steps = group_ops(program, options.processors, lowered.first_output_step);
  for (Step& step : lowered.steps) {
    if (step.kind == StepKind::kMatmuls || step.kind == StepKind::kExpertMatmuls) {
      cut_products(program, options, step);
    }
  }
  place_values(program, lowered);
  return lowered;
}

}  // namespace tandem
