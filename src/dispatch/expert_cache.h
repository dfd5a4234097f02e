// Which experts have a copy in device memory: slots, the table that finds them, who is loaded next and who makes room.
// Bookkeeping alone: memory, copies and the device's own table belong to whoever uses this.
//
//   cache.begin_step();                        // what arrived becomes visible
//   for each layer: cache.use(layer, ids, weights, n_tokens);   // pins what the step uses; misses are noted
//                   cache.place(layer, expert)                  // a miss that cannot wait: into a slot now
//   n = cache.end_step(loads);                 // unpins; evicts; says what to copy where
//   ... copy; cache.loaded(slot) or cache.failed(slot)
//
// The table changes in begin_step() and end_step() (and in resize(), which stands between steps), so that all of a step
// sees one version; place() changes it for a layer that has not been computed yet, and may take a slot from any other.
// A slot is overwritten only after it left the table.
//
// Threading: one thread at a time.  Ownership: owns its tables; allocates in create() alone.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"

namespace tandem {

enum class EvictionPolicy : uint8_t {
  // The expert whose router score, averaged over recent steps, is least; a miss is loaded only when it scores more.
  // HybriMoE's score cache: S <- alpha * s + (1 - alpha) * S.
  kMinusRecentScore,
  kLeastRecentlyUsed,
};

struct ExpertCacheOptions {
  int64_t n_layers = 0, n_experts = 0, n_experts_used = 0;
  uint32_t n_slots = 0;
  // All layers compete for all slots, their scores divided by their layer's sum; else slot s is layer s % n_layers'.
  bool shared_by_layers = true;
  EvictionPolicy policy = EvictionPolicy::kMinusRecentScore;
  // Replaying recorded routes of Qwen3-30B-A3B and gpt-oss-120b with 3 to 30 % of the experts cached, 0.1 hits up to 4
  // points more often than 0.5 (the released code's) at 8 loads a step, never more than 1.3 less at any number, and
  // loads less.
  float alpha = 0.1f;
};

class ExpertCache {
 public:
  enum class State : uint8_t { kFree, kLoading, kResident };
  // An expert to copy into a slot.
  struct Load {
    int32_t layer = 0, expert = 0;
    uint32_t slot = 0;
    bool operator==(const Load&) const = default;
  };
  struct Counters {
    uint64_t hits = 0, misses = 0;  // of distinct experts of a layer and step
    uint64_t loads = 0, evictions = 0;
    double hit_rate() const {
      return hits + misses == 0 ? 0
                                : static_cast<double>(hits) / static_cast<double>(hits + misses);
    }
  };

  // Errors: kInvalidArgument for counts below 1, more experts used than there are, or alpha outside (0, 1].
  static Result<ExpertCache> create(const ExpertCacheOptions& options);

  // ---- a step ----
  void begin_step();
  // The router's choice: ids [T,U] and weights [T,U] (or none: all 1/U).  With probabilities [X], the mean of the
  // router's scores over the tokens, the 2U largest of these are averaged instead, as experts that were nearly chosen
  // are often next.  Requires: between begin_step() and end_step(), 0 <= id < X.
  void use(int64_t layer, std::span<const int32_t> ids, std::span<const float> weights,
           int64_t n_tokens, std::span<const float> probabilities = {});
  // The slot of an expert that the step uses, in the table from now on, whoever had it before: `copy` it there.  -1: it is
  // on its way already, or no slot can be had, because this layer's experts or copies under way take all.  After use() of
  // its layer.
  struct Placed {
    int64_t slot = -1;
    bool copy = false;
  };
  Placed place(int64_t layer, int64_t expert);
  // The expert leaves the slot at once: its copy failed.  Requires: kResident.
  void drop(uint32_t slot);
  // Fills at most loads.size() and says how many; best first.  Each becomes kLoading.
  size_t end_step(std::span<Load> loads);

  // ---- copies ----
  // Visible from the next begin_step() on.  Requires: kLoading.
  void loaded(uint32_t slot);
  // The slot is free again.  Requires: kLoading.
  void failed(uint32_t slot);
  // A free slot for an expert that is not there: for filling before the first step.  False when there is none.
  bool reserve(int64_t layer, int64_t expert, Load* load);

  // Between steps: slots from n on are given up, or are there again, up to those of create().  Copies into given-up ones
  // may go on; loaded() then frees them.
  void resize(uint32_t n_slots);

  // ---- what stands ----
  // [X] slot of each of the layer's experts; -1: not in device memory.
  std::span<const int32_t> table(int64_t layer) const {
    return {table_.data() + layer * options_.n_experts, static_cast<size_t>(options_.n_experts)};
  }
  // Grows with every change of the table.
  uint64_t version() const { return version_; }
  State state(uint32_t slot) const { return slots_[slot].state; }
  // The step's uses of a slot.
  uint32_t uses(uint32_t slot) const { return slots_[slot].uses; }
  uint32_t n_slots() const { return n_slots_; }
  uint32_t n_resident() const;
  const Counters& counters() const { return counters_; }
  void reset_counters() { counters_ = {}; }
  float score(int64_t layer, int64_t expert) const { return score_[at(layer, expert)]; }

 private:
  struct Slot {
    State state = State::kFree;
    bool arrived = false;  // loaded, but not yet in the table
    uint32_t uses = 0;
    int32_t layer = -1, expert = -1;
  };
  struct Miss {
    int32_t layer, expert;
    double value;
  };

  explicit ExpertCache(const ExpertCacheOptions& options);
  size_t at(int64_t layer, int64_t expert) const {
    return static_cast<size_t>(layer * options_.n_experts + expert);
  }
  void count(int64_t layer, int64_t expert);
  void average_chosen(int64_t layer, std::span<const int32_t> ids, std::span<const float> weights,
                      int64_t n_tokens);
  void average_best(int64_t layer, std::span<const float> probabilities);
  void decay(int64_t layer);
  double value(int64_t layer, int64_t expert) const;
  double value_of_miss(int64_t layer, int64_t expert) const;
  int64_t find_slot(const Miss& miss) const;
  int64_t find_slot_now(int64_t layer) const;
  void evict(Slot& slot);
  void start_loading(uint32_t slot, int32_t layer, int32_t expert);

  ExpertCacheOptions options_;
  uint32_t n_slots_;
  std::vector<Slot> slots_;
  // [L,X]
  std::vector<int32_t> table_;
  std::vector<int32_t> coming_;  // slot that is kLoading for the expert, or -1
  std::vector<float> score_;
  std::vector<uint64_t> last_use_, use_before_;  // steps, from 1; 0: never
  std::vector<double> layer_score_;              // [L] sum of score_
  std::vector<int32_t> order_;                   // [X] scratch
  std::vector<Miss> misses_;                     // of this step, room for all
  uint64_t step_ = 0;
  uint64_t version_ = 0;
  Counters counters_;
};

}  // namespace tandem
