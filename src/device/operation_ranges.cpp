#include "device/operation_ranges.h"

namespace tandem {
namespace {

void add(const void* begin, size_t bytes, MemoryRange* ranges, size_t& n) {
  if (begin == nullptr || bytes == 0) return;
  ranges[n++] = {static_cast<const std::byte*>(begin), bytes};
}

}  // namespace

OperationRanges ranges_of(const Operation& op) {
  OperationRanges r;
  const auto reads = [&](const void* begin, size_t bytes) {
    add(begin, bytes, r.reads, r.n_reads);
  };
  for (const Operand* operand :
       {&op.in[0], &op.in[1], &op.in[2], &op.other_rows, &op.other_lists}) {
    reads(operand->data, operand->bytes);
  }
  for (const Operand* operand : {&op.out, &op.out2}) {
    add(operand->data, operand->bytes, r.writes, r.n_writes);
  }
  reads(op.weight, static_cast<size_t>(op.weight_rows) * op.weight_row_bytes);
  const auto n_experts = static_cast<size_t>(op.constants->n_experts);
  reads(op.experts, op.experts == nullptr ? 0 : n_experts * sizeof(std::byte*));
  reads(op.step, sizeof(StepInput));
  reads(op.n_pairs, sizeof(int32_t));
  return r;
}

}  // namespace tandem
