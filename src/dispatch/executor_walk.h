// What the threads of one Executor share during a step.  Private to the executor's files.
#pragma once

#include <atomic>
#include <memory>
#include <vector>

#include "dispatch/executor.h"

namespace tandem {

// A counter alone on its cache line.
struct alignas(64) ItemCounter {
  std::atomic<int64_t> next{0};
};

struct FreeDeleter {
  void operator()(void* memory) const;
};

struct Executor::Walk {
  const Program& program;
  const BlockStore& store;
  Team& team;
  const cpu::KernelTable& kernels;
  RopeFrequencies rope;
  LoweredProgram decode;  // one token
  LoweredProgram prompt;  // up to max_tokens
  std::unique_ptr<std::byte, FreeDeleter> arena;
  std::vector<float> attend_work;           // per thread: scores, two partials
  size_t attend_work_stride = 0;            // floats
  std::unique_ptr<ItemCounter[]> counters;  // one per step

  // The step being computed; written before the team runs, constant while it does.
  const LoweredProgram* lowered = nullptr;
  uint32_t first_step = 0, end_step = 0;
  const int32_t* ids = nullptr;
  int64_t n_tokens = 0;
  int64_t first_position = 0;
  int64_t first_output = 0;  // logits: row of the last body that output row 0 shows
  int64_t n_outputs = 0;
  SequenceState* sequence = nullptr;
  const CancelFlag* cancel = nullptr;
  const ShareCallback* on_share = nullptr;  // may be null; called by thread 0
  bool stop_after[2] = {false,
                        false};  // written by thread 0 before a barrier, read by all after it
  bool stopped = false;          // written by thread 0 when the steps have ended

  std::byte* row(ValueId value, int64_t row_index) const {
    return arena.get() + lowered->offset[value] +
           static_cast<size_t>(row_index) * lowered->row_bytes[value];
  }
  template <typename T>
  T* row_as(ValueId value, int64_t row_index) const {
    return reinterpret_cast<T*>(row(value, row_index));
  }
  const void* weight_data(const Weight& weight) const {
    return store.data(weight.block, weight.extent);
  }
  const float* weight_vector(WeightId id) const {
    return static_cast<const float*>(weight_data(program.weights[id]));
  }
  ExpertLists lists(ValueId value) const {
    return ExpertLists::over(row_as<int32_t>(value, 0), program.shape.n_experts,
                             n_tokens * program.shape.n_experts_used);
  }
  int64_t n_rows(RowSpace rows) const;

  // The body of the team: walks steps [first_step, end_step) of the Walk behind `context`.
  static void run_steps(void* context, unsigned thread_index) noexcept;
  // Computes items of a step until there are none left, for one thread.
  void work(const Step& step, ItemCounter& counter, unsigned thread_index);
  int64_t n_items(const Step& step) const;
  void item(const Step& step, int64_t index, unsigned thread_index);

  void row_item(const Step& step, int64_t row_index);
  void row_op(const Op& op, int64_t row_index);
  void matmul_item(const Step& step, int64_t index);
  void expert_item(const Step& step, int64_t index);
  void attend_item(const Op& op, int64_t index, unsigned thread_index);
  void list_pairs(const Op& op);
  void product(const Op& op, const Weight& weight, int64_t first_row, int64_t row_begin,
               int64_t row_end, int64_t n_input_rows);
};

}  // namespace tandem
