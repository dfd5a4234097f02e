// A Program for a batch capacity: which operations run together between two barriers, and where in one arena each
// value lies.  Flat arrays; the executor walks them and allocates nothing.
//
// Threading and ownership: plain data, immutable once made; refers to the Program it was made from.
#pragma once

#include <cstdint>
#include <vector>

#include "model/program.h"

namespace tandem {

enum class StepKind : uint8_t {
  kRows,           // row-wise operations, all of them on one row before the next
  kMatmuls,        // products, cut into row ranges of their outputs
  kAttend,         // (token, key-value head) pairs, of any kind of attention
  kSerial,         // one thread
  kExpertMatmuls,  // products of routed experts, cut by expert and row range
};

struct Step {
  StepKind kind = StepKind::kRows;
  Processor processor = Processor::kCpu;
  RowSpace rows = RowSpace::kTokens;  // of kRows
  uint32_t first_op = 0, n_ops = 0;
  // Products: each operation's outputs are cut into ranges of rows_per_item rows.
  int64_t rows_per_item = 0;
  int64_t n_ranges = 0;  // of all operations of the step together (per expert for kExpertMatmuls)
};

struct LoweringOptions {
  int64_t max_tokens = 1;   // T
  int64_t max_outputs = 1;  // R
  unsigned n_threads = 1;
  std::vector<Processor> processors = {};  // [ops]; empty: all on the CPU
  int64_t n_partial_slots = 1;             // of kPartials
};

// Values lie at the same offsets in the arena of every processor; those that only the CPU has lie behind the others.
struct LoweredProgram {
  LoweringOptions options;
  std::vector<Step> steps;
  uint32_t first_output_step = 0;
  std::vector<size_t> offset;     // [values] byte offset in the arena, 64-byte aligned
  std::vector<size_t> row_bytes;  // [values]
  // [values] where one processor keeps what the other computed of a value that both compute a share of and only this
  // one sums up; kNoOffset: nobody does.
  std::vector<size_t> other_offset;
  size_t arena_bytes = 0;      // of every processor
  size_t cpu_arena_bytes = 0;  // the CPU's, with what lies behind

  // Bytes of the arena that a value takes at its capacity.
  size_t value_bytes(const Program& program, ValueId value) const;
  // Of a step of n_tokens tokens that wants logits of n_outputs.
  size_t step_bytes(const Program& program, ValueId value, int64_t n_tokens,
                    int64_t n_outputs) const;
  // Does one begin where the other ends, but for padding?
  bool are_neighbours(const Program& program, ValueId a, ValueId b) const;

  static constexpr size_t kNoOffset = SIZE_MAX;
};

LoweredProgram lower(const Program& program, const LoweringOptions& options);

// Bytes of one row of a value: the whole value for kExpertLists, one slot for kPartials.
size_t value_row_bytes(const Program& program, const Value& value, int64_t max_tokens);

}  // namespace tandem
