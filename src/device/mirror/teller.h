// Tells a DeviceObserver what streams have done.
//
// Threading: any thread; the observer hears one call at a time.
// Ownership: refers to the observer.  Errors: none.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <mutex>

#include "device/device.h"
#include "device/mirror/stream_clock.h"

namespace tandem::mirror {

class Teller {
 public:
  void set(DeviceObserver* observer) { observer_.store(observer, std::memory_order_release); }
  bool listens() const { return observer_.load(std::memory_order_relaxed) != nullptr; }

  void tell(StreamId stream, DeviceActivity activity, SteadyClock::time_point begin,
            SteadyClock::time_point end) {
    DeviceObserver* const observer = observer_.load(std::memory_order_acquire);
    if (observer == nullptr) return;
    activity.stream = stream;
    activity.begin_ns = ns(begin);
    activity.end_ns = std::max(ns(end), activity.begin_ns);
    const std::lock_guard lock(telling_);
    observer->observed(activity);
  }

 private:
  static int64_t ns(SteadyClock::time_point time) {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(time.time_since_epoch()).count();
  }

  std::atomic<DeviceObserver*> observer_{nullptr};
  std::mutex telling_;  // held alone
};

}  // namespace tandem::mirror
