// How far something long has come: "loading  ######......  61 %  10.6 of 17.4 GB  2.1 GB/s  ETA
// 0:03".
//
// On a terminal only, and only for what takes longer than a moment (0.3 s); a pipe sees nothing.
// Threading: update() and finish() from one thread at a time, any thread.
// Ownership: the Console must outlive it. Clears its line when it goes.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

#include "console.h"

namespace tandem::cli {

class ProgressBar {
 public:
  enum class Unit { kBytes, kTokens };

  ProgressBar(Console& console, std::string label, Unit unit);
  ~ProgressBar() { clear(); }
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  void set_label(std::string_view label) { label_ = label; }
  // total 0: unknown. eta_seconds 0: worked out here from the rate so far.
  void update(uint64_t done, uint64_t total, double eta_seconds = 0);
  void clear();

  uint64_t done() const { return done_; }
  uint64_t total() const { return total_; }
  // "3.1 of 17.4 GB", for the line that says what an interrupt left.
  std::string amount() const;

 private:
  std::string line_of(double seconds, double eta_seconds) const;

  Console& console_;
  std::string label_;
  Unit unit_;
  std::chrono::steady_clock::time_point start_, drawn_;
  uint64_t done_ = 0, total_ = 0;
  bool visible_ = false;
};

}  // namespace tandem::cli
