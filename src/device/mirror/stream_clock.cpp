#include "device/mirror/stream_clock.h"

#include <sched.h>
#include <time.h>

#include <algorithm>

namespace tandem::mirror {
namespace {

// A sleeping thread wakes up to this much late.
constexpr auto kWakeUp = std::chrono::microseconds(70);

}  // namespace

void StreamClock::sleep() {
  const auto early = at_ - kWakeUp;
  if (early > SteadyClock::now()) {
    const auto since_epoch =
        std::chrono::duration_cast<std::chrono::nanoseconds>(early.time_since_epoch()).count();
    const timespec until{.tv_sec = static_cast<time_t>(since_epoch / 1'000'000'000),
                         .tv_nsec = static_cast<long>(since_epoch % 1'000'000'000)};
    while (::clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, nullptr) != 0) {
    }
  }
  while (SteadyClock::now() < at_) ::sched_yield();
}

Link::Passage Link::pass(SteadyClock::time_point earliest, size_t bytes) {
  const double seconds = gb_per_s_ > 0 ? static_cast<double>(bytes) / (gb_per_s_ * 1e9) : 0;
  const std::lock_guard lock(mutex_);
  const auto begin = std::max(free_at_, earliest);
  free_at_ = begin + StreamClock::to_duration(seconds);
  const auto told = std::max(begin, arrived_);
  arrived_ = std::max(told, free_at_ + StreamClock::to_duration(latency_us_ * 1e-6));
  return {told, arrived_};
}

}  // namespace tandem::mirror
