// When what a mirror does would be over: deadlines that a stream's thread keeps.
//
// A stream adds up what its commands take and sleeps only where somebody can see the difference, so that neither short
// operations nor late wake-ups add up to wrong times.
// Threading: a StreamClock belongs to its stream's thread; a Link is shared.
// Ownership and errors: none.
#pragma once

#include <algorithm>
#include <chrono>
#include <mutex>

namespace tandem::mirror {

using SteadyClock = std::chrono::steady_clock;

class StreamClock {
 public:
  // Work that takes `seconds` begins where the work before ended, or now if that has long been over.
  void add(double seconds) { at_ = begin() + to_duration(seconds); }
  void move_to(SteadyClock::time_point time) { at_ = std::max(at_, time); }
  SteadyClock::time_point begin() const { return std::max(at_, SteadyClock::now()); }
  SteadyClock::time_point end() const { return at_; }
  // Returns when all work would be over.
  void sleep();

  static SteadyClock::duration to_duration(double seconds) {
    return std::chrono::duration_cast<SteadyClock::duration>(
        std::chrono::duration<double>(seconds));
  }

 private:
  SteadyClock::time_point at_{};
};

// One direction of a link: copies pass one after the other.
class Link {
 public:
  Link(double gb_per_s, double latency_us) : gb_per_s_(gb_per_s), latency_us_(latency_us) {}
  struct Passage {
    SteadyClock::time_point begin, end;
  };
  // Of a copy that may begin at `earliest`.  What is told follows the passage before: the latency of one copy may pass
  // under the transfer of another.
  Passage pass(SteadyClock::time_point earliest, size_t bytes);

 private:
  const double gb_per_s_, latency_us_;
  std::mutex mutex_;
  SteadyClock::time_point free_at_{}, arrived_{};
};

}  // namespace tandem::mirror
