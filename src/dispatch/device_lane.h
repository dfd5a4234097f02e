// The device's side of a step: weights, activations and tables in its memory, and the tasks of a Schedule on its stream.
//
// Threading: one caller at a time, who holds mutex().
// Ownership: owns what it allocates on the device, which must outlive it; refers to program and store.
// Errors: kOutOfMemory when the budget does not hold what the placement wants; those of the device.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "device/device.h"
#include "dispatch/expert_chooser.h"
#include "dispatch/expert_slots.h"
#include "dispatch/expert_tables.h"
#include "dispatch/operations.h"
#include "dispatch/placement.h"
#include "dispatch/schedule.h"
#include "dispatch/stream_buffers.h"
#include "dispatch/weight_copier.h"
#include "memory/block_store.h"
#include "memory/sequence_state.h"

namespace tandem {

class DeviceLane {
 public:
  struct Sizes {
    int64_t max_tokens = 1;
    int64_t max_context = 0;  // positions of the longest sequence
    size_t arena_bytes = 0;
  };

  // Device memory that create() takes beside weights and slots.
  static uint64_t work_bytes(const Program& program, const Sizes& sizes);

  // Told that the device, or the CPU again, computes an expert from now on: between steps, or in choose_experts().
  using MoveExpert = std::function<void(int64_t layer, int64_t expert, bool to_device)>;

  // Who computes the experts that are not on the device for good.
  struct Experts {
    bool all_on_device = false;  // those chosen are copied to it
    const Predictor* predictor =
        nullptr;  // else those that are done sooner there; null: those it has
  };

  // How far the copying of weights is; and what stops it.
  struct Loading {
    const ProgressCallback& progress;
    const CancelFlag& cancel;
  };

  // Copies the weights that the placement puts on the device and waits for it.  Requires: the store is resident.
  static Result<std::unique_ptr<DeviceLane>> create(Device& device, const Program& program,
                                                    const Placement& placement,
                                                    const BlockStore& store, const Sizes& sizes,
                                                    const Experts& experts, const Loading& loading,
                                                    MoveExpert move);
  ~DeviceLane();
  DeviceLane(const DeviceLane&) = delete;
  DeviceLane& operator=(const DeviceLane&) = delete;

  Device& device() const { return device_; }
  // For sequences that this lane will work on; null when the device computes no attention.
  std::unique_ptr<DeviceKv> make_kv(const KvLayout& layout);
  // Held by whoever submits to the device.
  std::recursive_mutex& mutex() { return kv_pool_->mutex(); }

  // Operations ready for the device; `constants` must stay where they are.
  std::vector<Operation> ready(const Program& program, const LoweredProgram& lowered,
                               const OperationConstants& constants);
  // Does this block's weight, an expert's, belong to the device?
  bool has(BlockId block) const { return !addresses_[block].empty(); }

  // Before the step that evaluates the sequence's positions from size() to below n_wanted: brings keys and values to where
  // they will be read.  False: some of the pages stay in DRAM, host_pages() says which.
  Result<bool> prepare(const SequenceState& sequence, int64_t n_wanted);
  // [pages] of layers whose keys and values may be on both sides: where those are that lie in DRAM; null: on the device.
  std::byte* const* host_pages() const { return host_pages_.data(); }

  // What a step consists of; all of it must live until finish().
  struct Work {
    const Program* program = nullptr;
    const Schedule* schedule = nullptr;
    const LoweredProgram* lowered = nullptr;
    std::span<const Operation> operations;  // of ready()
    std::byte* host_arena = nullptr;        // from Device::allocate_host
    const StepInput* input = nullptr;       // the host's
    SequenceState* sequence = nullptr;
    bool repeats =
        false;  // the same again and again, but for what memory holds: is captured and replayed
  };
  // Submits a step's tasks, as many as the device's stream takes.  The device begins at once and waits where the schedule
  // says so.
  Status submit(const Work& work);
  // Waits until this many tasks of the device are done, or until cancelled; then submits as many more as the stream takes
  // behind them.
  Status wait(uint32_t progress, const CancelFlag& cancel);
  // The CPU's tasks are done: submits the rest.
  Status submit_rest() { return submitted_ ? submit_until(n_tasks_) : ok_status(); }
  // No more tasks are submitted in this step.
  void submit_no_more() { n_tasks_ = n_submitted_; }
  // Tasks of the device that have been submitted in this step.
  uint32_t n_submitted() const { return n_submitted_; }
  // The CPU has done this many tasks.
  void announce(uint32_t progress) { device_.set_flag(cpu_progress_, progress); }
  // Layers [L] where choose_experts() may be called with `choose`; empty: none.
  std::vector<bool> choosing_layers() const;
  // Whether the next step should choose.
  bool chooses(bool decode) const {
    return chooser_ != nullptr && (!decode || chooser_->pays_in_decode());
  }
  // Before the CPU lists a layer's experts: what its router chose, ids [T,U].  For the expert cache; with `choose`, says
  // who computes them.
  Status choose_experts(int64_t layer, const int32_t* ids, int64_t n_tokens, bool choose);
  // The CPU makes no more choices in this step: the device need not wait for them.  What went wrong is told by finish().
  void end_choices();
  // Null: there is no expert cache.
  const ExpertSlots* expert_slots() const { return slots_.get(); }
  // Waits until nothing is left of the step, even one whose CPU tasks were not all done.
  Status finish();

 private:
  DeviceLane(Device& device, const Program& program, const Experts& experts, MoveExpert move)
      : device_(device), program_(program), experts_(experts), move_(std::move(move)) {}
  Status allocate(const Placement& placement, const BlockStore& store, const Sizes& sizes,
                  const Loading& loading);
  std::vector<BlockId> blocks_to_load(const Placement& placement) const;
  Status load_block(BlockId block, const BlockStore& store, WeightCopier& copier);
  Status pin_weights(const Placement& placement, const BlockStore& store);
  Status load_weights(const Placement& placement, const BlockStore& store, const Loading& loading);
  Status make_experts(const Placement& placement, const BlockStore& store);
  Status upload_input(const Work& work);
  // Up to this task at least, and further as far as the stream has room.
  Status submit_until(uint32_t end);
  bool has_room() const;
  Status submit_first();
  Status submit_numbered(uint32_t i);
  Status submit_task(const Work& work, const DeviceTask& task);
  // The tasks as a graph that is made the first time.
  Status submit_graph();
  Result<GraphId> graph_of(const Work& work);
  // What operations reach through the tables of pages and experts; captured ones are told when they are replayed.
  std::span<const MemoryRange> pages() const;
  std::span<const MemoryRange> matrices(const Work& work, const Op& op) const;
  Status submit_copy(const Work& work, const DeviceTask& task);
  Status submit_launch(const Work& work, const DeviceTask& task);
  Status launch_experts(const Work& work, const DeviceTask& task);
  Status launch_streamed(const Operation& operation, const Weight& weight);
  Result<std::byte*> take(size_t bytes, std::string_view what);

  Device& device_;
  const Program& program_;
  const Experts experts_;
  const MoveExpert move_;
  std::unique_ptr<ExpertTables> tables_;
  std::unique_ptr<ExpertSlots> slots_;
  std::unique_ptr<ExpertChooser> chooser_;  // null: nothing is chosen in the middle of a step
  std::unique_ptr<StreamBuffers> streamed_;
  std::vector<bool> is_streamed_;  // [blocks]
  std::unique_ptr<DeviceKvPool> kv_pool_;
  std::vector<std::byte*> allocated_;
  const std::byte* pinned_ = nullptr;  // the store's weights; null: not pinned
  std::byte* arena_ = nullptr;
  size_t arena_bytes_ = 0;
  std::vector<std::vector<std::byte*>> addresses_;  // [blocks][extents]; none: not here
  std::byte* input_ = nullptr;                      // StepInput, ids [T], pages
  std::byte* host_input_ = nullptr;                 // the same on its way
  int64_t max_tokens_ = 0;
  size_t max_pages_ = 0;
  StreamId stream_{};
  FlagId cpu_progress_{}, device_progress_{};
  FlagId experts_arrived_{};  // the layer + 1 whose experts are where the CPU has chosen them to be
  int64_t arriving_layer_ = -1;         // while submitting: whose experts have not been waited for
  std::vector<MemoryRange> pages_;      // of the step's sequence, on the device
  std::vector<std::byte*> host_pages_;  // [max_pages_]
  struct Captured {
    const Schedule* schedule;
    KvType kv_type;
    GraphId graph;
  };
  std::vector<Captured> graphs_;
  bool can_capture_ = true, capturing_ = false;
  Status fetches_;       // why the copies of a step that was given up failed
  bool loaded_ = false;  // allocate() went well
  bool submitted_ = false;
  bool failed_ = false;       // something of the step
  Work work_;                 // of the step that is submitted
  uint32_t n_tasks_ = 0;      // of the device in it
  uint32_t n_submitted_ = 0;  // of these
  uint32_t reached_ = 0;      // of which the CPU has waited for so many
};

}  // namespace tandem
