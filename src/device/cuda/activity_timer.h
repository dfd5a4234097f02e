// What a card's work took, for a DeviceObserver: an event before and one behind each activity.
//
// A card tells how far apart two of its events are, not when they were.  tell() looks at those that have passed and takes
// the newest of them to have passed now: whoever waited for it calls tell() next.  Work inside a graph is not measured one
// by one; its replay is.
//
// Threading: the submitting thread's.  Ownership: owns its events, made by set().  Memory: for kCapacity activities; those
// that find no room before tell() are left out.  Errors: those of making events.
#pragma once

#include <vector>

#include "device/cuda/owners.h"
#include "device/device.h"

namespace tandem::cuda {

class ActivityTimer {
 public:
  static constexpr size_t kCapacity = 4096;

  // From now on, or no longer: null.
  Status set(DeviceObserver* observer);
  bool listens() const { return observer_ != nullptr; }

  // Around the submission of an activity.
  void begin(cudaStream_t stream);
  void end(cudaStream_t stream, const DeviceActivity& activity);
  // Tells what is over, in the order of submission.
  void tell();

 private:
  struct Timed {
    EventOwner before, behind;
    DeviceActivity activity;
  };
  bool passed(const Timed& timed) const;

  DeviceObserver* observer_ = nullptr;
  std::vector<Timed> timed_;  // a circle
  size_t first_ = 0, n_ = 0;
  bool begun_ = false;
};

}  // namespace tandem::cuda
