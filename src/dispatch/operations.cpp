#include "dispatch/operations.h"

namespace tandem {
namespace {

Operand operand_of(const Program& program, const LoweredProgram& lowered,
                   const ProcessorMemory& memory, ValueId value) {
  if (value == kNoId) return {};
  return {memory.arena + lowered.offset[value], lowered.row_bytes[value],
          lowered.value_bytes(program, value)};
}

// Where the other processor's share of a value comes to.
Operand other_of(const Program& program, const LoweredProgram& lowered,
                 const ProcessorMemory& memory, ValueId value) {
  if (lowered.other_offset[value] == LoweredProgram::kNoOffset) return {};
  return {memory.arena + lowered.other_offset[value], lowered.row_bytes[value],
          lowered.value_bytes(program, value)};
}

void set_weight(const Program& program, const Op& op, const ProcessorMemory& memory,
                Operation& ready) {
  if (op.kind == OpKind::kRopeAngles) {
    ready.weight = reinterpret_cast<const std::byte*>(memory.rope_frequencies);
    return;
  }
  if (op.weight == kNoId) return;
  const Weight& weight = program.weights[op.weight];
  ready.weight_type = weight.type;
  ready.weight_rows = weight.rows;
  ready.weight_cols = weight.cols;
  ready.weight_row_bytes = weight.row_bytes();
  if (op.kind == OpKind::kExpertMatmul || op.kind == OpKind::kListPairs) {
    ready.experts = memory.experts(op.weight);
  } else {
    ready.weight = memory.weight(op.weight);
  }
  ready.weight_in_tiles = memory.in_tiles && memory.in_tiles(op.weight);
}

}  // namespace

OperationConstants operation_constants(const ModelShape& shape, const RopeFrequencies& rope,
                                       KvType kv_type) {
  OperationConstants c;
  c.n_heads = shape.n_heads;
  c.n_kv_heads = shape.n_kv_heads;
  c.head_width = shape.head_width;
  c.n_rot = shape.n_rot;
  c.n_experts = shape.n_experts;
  c.n_experts_used = shape.n_experts_used;
  c.sliding_window = shape.sliding_window;
  c.norm_epsilon = shape.norm_epsilon;
  c.rope = shape.architecture->rope;
  c.rope_magnitude = rope.magnitude;
  c.kv_type = kv_type;
  return c;
}

std::vector<Operation> ready_operations(const Program& program, const LoweredProgram& lowered,
                                        const ProcessorMemory& memory) {
  std::vector<Operation> result;
  result.reserve(program.ops.size());
  const int32_t* n_pairs = nullptr;  // of the layer's lists
  for (const Op& op : program.ops) {
    Operation ready;
    ready.kind = op.kind;
    ready.index = static_cast<int32_t>(result.size());
    ready.layer = ready.kv_slot = op.layer;
    const Value& shaped = program.values[op.out != kNoId ? op.out : op.in[0]];
    ready.rows = shaped.rows;
    ready.width = shaped.width;
    for (int i = 0; i < 3; ++i) ready.in[i] = operand_of(program, lowered, memory, op.in[i]);
    ready.out = operand_of(program, lowered, memory, op.out);
    ready.out2 = operand_of(program, lowered, memory, op.out2);
    if (op.kind == OpKind::kCombine) {
      ready.other_rows = other_of(program, lowered, memory, op.in[0]);
      ready.other_lists = other_of(program, lowered, memory, op.in[1]);
    }
    set_weight(program, op, memory, ready);
    if (op.kind == OpKind::kListPairs) {
      n_pairs =
          ExpertLists::over(reinterpret_cast<int32_t*>(ready.out.data), program.shape.n_experts, 0)
              .begin +
          program.shape.n_experts;
    }
    if (ready.rows == RowSpace::kPairs) ready.n_pairs = n_pairs;
    ready.constants = memory.constants;
    ready.step = memory.step;
    result.push_back(ready);
  }
  return result;
}

}  // namespace tandem
