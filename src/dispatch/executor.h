// Computes a Program on the CPU: walks the arrays of a LoweredProgram with a thread team.
//
// Every thread walks the same steps.  A step is cut into items that the threads take from a counter; a barrier stands
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

 private:
  struct Walk;
  Executor() = default;
  std::unique_ptr<Walk> walk_;
};

}  // namespace tandem
