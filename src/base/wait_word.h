// A counter that threads wait on until it is large enough: they spin for a while, then sleep.
//
// Raising makes no system call while nobody sleeps.
// Threading: all functions from any thread.  What was written before a raise is visible after the wait that it ends.
// Ownership: none.  Errors: none.  Values may wrap around: a counter must not be waited for from 2^31 away.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>

namespace tandem {

class alignas(64) WaitWord {
 public:
  uint32_t load() const { return value_.load(std::memory_order_acquire); }
  bool reached(uint32_t value) const { return static_cast<int32_t>(load() - value) >= 0; }

  // To at least `value`.
  void raise(uint32_t value);
  // Requires: nobody waits.
  void reset() { value_.store(0, std::memory_order_release); }

  // True once it is at least `value`; false when `timeout` of sleeping has passed without.
  bool wait(uint32_t value, std::chrono::microseconds spin, std::chrono::nanoseconds timeout) const;
  void wait(uint32_t value, std::chrono::microseconds spin) const {
    while (!wait(value, spin, std::chrono::seconds(1))) {
    }
  }

 private:
  std::atomic<uint32_t> value_{0};
  mutable std::atomic<uint32_t> n_sleepers_{0};
};

}  // namespace tandem
