// The expert cache in device memory: copies of experts that live in DRAM, in slots that the routing fills.
//
// ExpertCache keeps the books; here are the memory, the copies (on a stream of their own, so that they pass while the
// device computes) and the tables that say who computes an expert.  Both processors' tables change between steps, or for a
// layer before either of them lists its experts, so that each expert of a step is computed by exactly one of them.
//
// Threading: one caller at a time, who holds the lane's mutex; use(), fetch() and leave() from one thread of the step's.
// Ownership: owns the slots; device, program and store outlive it.
// Errors: those of the device.  Slots that the budget has no room for are left out.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "device/device.h"
#include "dispatch/expert_cache.h"
#include "dispatch/placement.h"
#include "memory/block_store.h"
#include "model/program.h"

namespace tandem {

class ExpertSlots {
 public:
  // Called with the addresses of an expert's matrices [extents] on the device, or none: the CPU computes it from now on.
  using MoveExpert =
      std::function<void(int64_t layer, int64_t expert, std::span<std::byte* const> addresses)>;

  // Null where the placement has no slots.
  static Result<std::unique_ptr<ExpertSlots>> create(Device& device, const Program& program,
                                                     const Placement& placement,
                                                     const BlockStore& store, MoveExpert move);
  ~ExpertSlots();
  ExpertSlots(const ExpertSlots&) = delete;
  ExpertSlots& operator=(const ExpertSlots&) = delete;

  // What arrived is the device's from now on; slots follow the budget, of which others will want so much.  The step's work
  // is submitted after it, and so after the copies that it sees.
  Status begin_step(uint64_t wanted_bytes);
  // The router's choice ids [T,U] of a layer.
  void use(int64_t layer, const int32_t* ids, int64_t n_tokens);
  // After use(), before the layer's experts are listed: the device computes these of them in this step, as many as slots
  // can be had for.  What it lacks is copied; a flag is raised to `value` when all is there, soon if nothing was copied.
  Status fetch(int64_t layer, std::span<const int32_t> experts, FlagId flag, uint32_t value);
  // The CPU computes these in this step although the device has them.
  void leave(int64_t layer, std::span<const int32_t> experts);
  // Waits until nothing that fetch() began is under way.
  Status finish_fetches() { return fetched_.empty() ? ok_status() : device_.synchronize(stream_); }
  // Requires: the step's work is done.  Begins to copy what was missed most, if any of it is to be.  `failed`: what was
  // fetched in it may not be there.
  Status end_step(bool load_misses, bool failed);

  bool caches(int64_t layer) const { return cached_[static_cast<size_t>(layer)]; }
  const std::vector<bool>& cached_layers() const { return cached_; }
  // [X] not negative: in a slot.
  std::span<const int32_t> slots_of(int64_t layer) const { return cache_.table(layer); }
  // Whatever the device may read of the slots in this step: all but those that copies are under way to.
  std::span<const MemoryRange> readable() const { return readable_; }

  // Gives one slot's memory back to the budget, for what matters more.  False when there is none left.  Requires: before
  // begin_step().
  bool give_up_one();

  const ExpertCache::Counters& counters() const { return cache_.counters(); }
  uint32_t n_slots() const { return static_cast<uint32_t>(memory_.size()); }
  uint32_t n_resident() const { return cache_.n_resident(); }
  uint64_t slot_bytes() const { return slot_bytes_; }

 private:
  struct Occupant {
    int64_t layer = -1, expert = -1;
    EventId arrived{};
    uint64_t failures = 0;  // of the device, when the copy that is under way was submitted
    bool visible = false;   // in the tables
  };

  ExpertSlots(Device& device, const Program& program, const BlockStore& store, MoveExpert move,
              ExpertCache cache)
      : device_(device),
        program_(program),
        store_(store),
        move_(std::move(move)),
        cache_(std::move(cache)) {}
  Status allocate(uint64_t n_slots);
  void shrink_to_budget();
  // At most n_most more slots, as far as the budget has room for them and for what others want.
  void grow(size_t n_most, uint64_t wanted_bytes);
  Status load(const ExpertCache::Load& load);
  // Those that were not begun, or not to their end.
  void give_up(std::span<const ExpertCache::Load> loads);
  // An expert's matrices, on the slots' stream.
  Status copy_to(uint32_t slot, int64_t layer, int64_t expert);
  Status copy_in_pieces(std::byte* to, const std::byte* from, size_t bytes);
  BlockId block_of(int64_t layer, int64_t expert) const;
  // Who computes it: the device from now on, or the CPU again.
  void show(uint32_t slot);
  void hide(Occupant& occupant);
  void drop_fetched();
  // Waits until no copy is under way, whatever becomes of them; what failed is for the next step.
  void settle();

  Device& device_;
  const Program& program_;
  const BlockStore& store_;
  const MoveExpert move_;
  ExpertCache cache_;
  uint64_t slot_bytes_ = 0;
  size_t piece_bytes_ = 0;
  StreamId stream_{};
  std::vector<WeightId> first_;  // [L] a weight of the layer's expert 0
  std::vector<bool> cached_;     // [L]
  std::vector<std::byte*> memory_;
  std::vector<Occupant> occupants_;  // [most slots]
  std::vector<MemoryRange> readable_;
  std::vector<uint32_t> fetched_;  // slots, in this step
  bool in_step_ = false;
  Status told_;  // to a wait for copies that were given up, and not yet to a step
};

}  // namespace tandem
