// Progress of long work, and the flag that stops it.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>

#include "base/clock.h"
#include "base/status.h"

namespace tandem {

// Set from any thread; long work looks at it at least every 50 ms and returns kCancelled.
class CancelFlag {
 public:
  void cancel() { flag_.store(true, std::memory_order_release); }
  void reset() { flag_.store(false, std::memory_order_release); }
  bool cancelled() const { return flag_.load(std::memory_order_acquire); }

 private:
  std::atomic<bool> flag_{false};
};

// For callers that may leave the flag out.
inline const CancelFlag& or_never(const CancelFlag* cancel) {
  static const CancelFlag never;
  return cancel != nullptr ? *cancel : never;
}

enum class Stage : int { kLoad = 0, kPrompt = 1, kWrite = 2, kCheck = 3, kCopy = 4, kPack = 5 };

struct Progress {
  Stage stage = Stage::kLoad;
  uint64_t done = 0;       // tokens for kPrompt, bytes otherwise
  uint64_t total = 0;      // 0 when unknown
  double eta_seconds = 0;  // from the average rate so far; 0 when unknown
};

using ProgressCallback = std::function<void(const Progress&)>;

// Passes on at most ten reports per second, and always the last one.  One thread at a time.
class ProgressMeter {
 public:
  ProgressMeter(Stage stage, uint64_t total, ProgressCallback callback)
      : stage_(stage), total_(total), callback_(std::move(callback)) {}

  void report(uint64_t done) {
    if (!callback_) return;
    const double elapsed = seconds_since(start_);
    if (done < total_ && elapsed < next_report_seconds_) return;
    next_report_seconds_ = elapsed + 0.1;
    const double eta =
        done == 0 ? 0.0 : elapsed * static_cast<double>(total_ - done) / static_cast<double>(done);
    callback_(Progress{stage_, done, total_, eta});
  }

 private:
  Stage stage_;
  uint64_t total_;
  ProgressCallback callback_;
  Clock::time_point start_ = Clock::now();
  double next_report_seconds_ = 0;
};

}  // namespace tandem
