// A lowered Program's operations made ready for one processor: places of values become addresses in its arena, weights
// addresses in its memory.
//
// Threading and ownership: functions are pure; what they return refers to the arguments' memory.
#pragma once

#include <functional>
#include <vector>

#include "device/operation.h"
#include "model/lowering.h"
#include "model/program.h"
#include "model/rope.h"

namespace tandem {

// Where a processor has what operations need.  All addresses are in its memory, but for the constants.
struct ProcessorMemory {
  std::byte* arena = nullptr;  // of at least the lowered Program's arena_bytes
  std::function<const std::byte*(WeightId)> weight;
  // Whether that matrix, or those of all the experts that this processor computes, lies in tiles; empty: none does.
  std::function<bool(WeightId)> in_tiles = {};
  // [X] matrices of the experts whose first weight is this one (Op::weight of a kExpertMatmul or kListPairs); null for
  // those that the other processor computes.
  std::function<const std::byte* const*(WeightId)> experts;
  const double* rope_frequencies = nullptr;  // [n_rot/2]
  const OperationConstants* constants = nullptr;
  const StepInput* step = nullptr;
};

OperationConstants operation_constants(const ModelShape& shape, const RopeFrequencies& rope,
                                       KvType kv_type);

// One per Op of the Program, in its order.
std::vector<Operation> ready_operations(const Program& program, const LoweredProgram& lowered,
                                        const ProcessorMemory& memory);

}  // namespace tandem
