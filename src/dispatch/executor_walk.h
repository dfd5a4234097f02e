// What the threads of one Executor share during a step.  Private to the executor's files.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <vector>

#include "device/host_compute.h"
#include "dispatch/device_lane.h"
#include "dispatch/executor.h"
#include "dispatch/operations.h"
#include "dispatch/schedule.h"
#include "dispatch/step_recorder.h"
#include "model/split_attention.h"

namespace tandem {

// A counter alone on its cache line.
struct alignas(64) ItemCounter {
  std::atomic<int64_t> next{0};
};

// Activations lie in memory that the device sees too, where there is one.
struct FreeArena {
  Device* device = nullptr;
  void operator()(std::byte* memory) const;
};

// A Program lowered for a capacity, and ready.
struct Batch {
  const Program* program = nullptr;
  LoweredProgram lowered = {};
  std::vector<Operation> operations = {};         // the CPU's
  std::vector<Operation> device_operations = {};  // none without a device
  // Of all, of all but the logits, and of the logits after either of these.
  Schedule all = {}, body = {}, head = {};
  // The first two where the CPU chooses in the middle of the step who computes experts.
  Schedule choosing_all = {}, choosing_body = {};
};

// One token, and up to max_tokens.
struct Batches {
  Batch decode, prompt;
};

struct Executor::Walk {
  const Program& program;
  const BlockStore& store;
  Team& team;
  const cpu::KernelTable& kernels;
  RopeFrequencies rope = {};
  OperationConstants constants = {};
  // By the first weight of the experts: [X] where each one's matrix lies; null: on the device.
  std::map<WeightId, std::vector<const std::byte*>> experts = {};
  Batches whole = {};  // each layer's attention is of one processor
  // For sequences whose keys and values lie on both sides.
  std::unique_ptr<SplitAttention> split_attention = nullptr;  // null: the device attends to nothing
  Batches split = {};
  std::unique_ptr<std::byte, FreeArena> arena = nullptr;
  std::unique_ptr<DeviceLane> lane = nullptr;         // null: none
  StepRecorder* recorder = nullptr;                   // null: none
  std::vector<float> attend_scratch = {};             // per thread
  size_t attend_scratch_stride = 0;                   // floats
  std::unique_ptr<ItemCounter[]> counters = nullptr;  // one per task

  // The step being computed; written before the team runs, constant while it does.
  const Batch* batch = nullptr;
  const Schedule* schedule = nullptr;
  StepInput input = {};
  StepInput split_input = {};  // the same with the pages that the device does not have
  SequenceState* sequence = nullptr;
  const CancelFlag* cancel = nullptr;
  const ShareCallback* on_share = nullptr;  // may be null; called by thread 0
  bool stop_after[2] = {false,
                        false};  // written by thread 0 before a barrier, read by all after it
  uint32_t n_tasks_done = 0;     // thread 0's
  bool stopped = false;          // written by thread 0 when the tasks have ended
  Status lane_status = {};       // thread 0's: why the device's lane cannot be waited for
  Status choose_status = {};     // of whoever lists experts; looked at when the tasks have ended

  ProcessorMemory memory();
  bool in_tiles(WeightId id) const;
  void lower_all(unsigned n_threads, const Options& options);
  std::vector<Batch*> batches();
  void prepare(Batch& made);
  // Between steps: who computes an expert from now on.
  void move_expert(int64_t layer, int64_t expert, bool to_device);
  // Brings the sequence's pages to where the step reads them.
  Status choose_batch(int64_t n_tokens);
  const Schedule& choose_schedule(bool want_logits) const;
  // Runs the schedule on both processors; `stopped` says whether it was cancelled.
  Status run(const Schedule& chosen);
  // Both lanes of the schedule, to their ends.
  void run_lanes();
  // Instead of the CPU's tasks from this one on, so that the device's may end.
  void abandon(uint32_t first_task);
  StepRecorder::CpuTimes begin_task(const Step& step) const;
  void record_step();
  // For a device's checker: what a step of the CPU reads and writes.
  void declare(const Step& step) const;
  void declare_pages(const Operation& operation) const;
  // The body of the team: walks the CPU's tasks of the Walk behind `context`.
  static void run_tasks(void* context, unsigned thread_index) noexcept;
  // Computes items of a step until there are none left, for one thread.
  void work(const Step& step, ItemCounter& counter, unsigned thread_index);
  int64_t n_items(const Step& step) const;
  void item(const Step& step, int64_t index, unsigned thread_index);
  // Before the pairs of a layer are listed: tells the lane what the router chose.
  void choose_experts(const Operation& list);
};

}  // namespace tandem
