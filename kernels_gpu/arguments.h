// What every kernel is given: a ready operation and the model's numbers, by value, so that a captured graph holds
// both.  What varies from step to step is read from op.step, in device memory.
#pragma once

#include "device/operation.h"
#include "kernels_gpu/portable.h"

namespace tandem::gpu {

struct Arguments {
  Operation op;  // op.constants is host memory: not to be followed in a kernel
  OperationConstants c;
};

template <typename T>
TANDEM_DEVICE T* row_of(const Operand& operand, int64_t row) {
  return reinterpret_cast<T*>(operand.data + static_cast<size_t>(row) * operand.row_bytes);
}

// Rows of the operation's row space in this step.
TANDEM_DEVICE int64_t n_rows(const Arguments& a) {
  switch (a.op.rows) {
    case RowSpace::kTokens:
      return a.op.step->n_tokens;
    case RowSpace::kPairs:
      return *a.op.n_pairs;
    case RowSpace::kOutputs:
      return a.op.step->n_outputs;
    case RowSpace::kStep:
      return 1;
  }
  return 0;
}

// ExpertLists::over() for device code.
TANDEM_DEVICE ExpertLists lists_over(const Arguments& a, const Operand& operand) {
  const int64_t n_pairs = a.op.step->n_tokens * a.c.n_experts_used;
  ExpertLists lists;
  lists.n_active = reinterpret_cast<int32_t*>(operand.data);
  lists.active = lists.n_active + 1;
  lists.begin = lists.active + a.c.n_experts;
  lists.pair_at = lists.begin + a.c.n_experts + 1;
  lists.row_of = lists.pair_at + n_pairs;
  return lists;
}

}  // namespace tandem::gpu
