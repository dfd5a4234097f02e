// Computes a Program: walks the CPU's tasks of a Schedule with a thread team while the device, if there is one, does its
// own.
//
// Every thread walks the same tasks.  The step of a task is cut into items that the threads take from a counter; a barrier stands
// between steps.  Which thread computes an item never changes its result, so neither do the number of threads or their speed.
//
// Threading: one call at a time.
// Ownership: owns the arena of activations; refers to program, store, team and kernels, which must outlive it.
// Errors: kCancelled leaves the sequence as it was; kInvalidArgument when the context is full or a token is out of range.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>

#include "base/progress.h"
#include "base/result.h"
#include "device/device.h"
#include "dispatch/expert_cache.h"
#include "dispatch/placement.h"
#include "dispatch/step_recorder.h"
#include "dispatch/team.h"
#include "kernels_cpu/kernels.h"
#include "memory/block_store.h"
#include "memory/sequence_state.h"
#include "model/lowering.h"
#include "model/program.h"
#include "model/rope.h"

namespace tandem {

class Executor {
 public:
  struct Options {
    int64_t max_tokens = 128;  // of one call
    int64_t max_outputs = 8;   // rows of logits computed at once
    // A second processor and what it computes; null: none.  Both must outlive the executor.
    Device* device = nullptr;
    const Placement* placement = nullptr;
    int64_t max_context = 0;  // positions of the longest sequence that the device will see
    // Is told what each step's tasks took; null: nothing is measured.  The device's part only if it observes the device.
    // Must outlive the executor.
    StepRecorder* recorder = nullptr;
    // Experts that are chosen and not on the device are copied to it as far as there are slots, never computed beside it.
    bool fetch_experts = false;
    // Of weights on their way to the device.  Both must outlive create().
    const ProgressCallback* progress = nullptr;
    const CancelFlag* cancel = nullptr;
  };

  // Requires: every block of the store is resident.
  static Result<std::unique_ptr<Executor>> create(const Program& program, const BlockStore& store,
                                                  Team& team, const cpu::KernelTable& kernels,
                                                  const Options& options);
  ~Executor();

  int64_t max_tokens() const;
  int64_t max_outputs() const;
  // Bytes of activations that create() will take.
  static uint64_t work_bytes(const Program& program, unsigned n_threads, const Options& options);

  // Device memory that create() will take beside weights, keys and values, whatever the placement; options.max_context
  // counts, its device and placement do not.
  static uint64_t device_work_bytes(const Program& program, unsigned n_threads,
                                    const Options& options);

  // Told between steps how much of a call is done, 0..1; on the calling thread, must not throw.
  using ShareCallback = std::function<void(double share)>;

  // Evaluates ids [1..max_tokens] at the sequence's end and appends them.  With want_logits the logits of the last
  // token follow in last_logits().
  Status forward(std::span<const int32_t> ids, SequenceState& sequence, bool want_logits,
                 const CancelFlag& cancel, const ShareCallback* on_share = nullptr);
  std::span<const float> last_logits() const { return logits(0); }

  // Logits of the tokens [first, first+n) of the last forward.  Requires: n <= max_outputs().
  Status compute_logits(int64_t first, int64_t n, const CancelFlag& cancel);
  std::span<const float> logits(int64_t row) const;

  // Hits and misses of the expert cache so far; zeros without one.  Any thread, as of the last step.
  ExpertCache::Counters expert_counters() const;
  // Slots of the expert cache that there are now.
  uint64_t expert_slots() const;
  // Gives an empty sequence a place on the device; to be called before it is evaluated.  Any thread.
  void adopt(SequenceState& sequence) const;

 private:
  struct Walk;
  Executor() = default;
  std::unique_ptr<Walk> walk_;
};

}  // namespace tandem
