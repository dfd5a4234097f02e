#include "base/wait_word.h"

#include <immintrin.h>  // _mm_pause
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <climits>

namespace tandem {

void WaitWord::raise(uint32_t value) {
  uint32_t old = value_.load(std::memory_order_relaxed);
  while (static_cast<int32_t>(value - old) > 0 &&
         !value_.compare_exchange_weak(old, value, std::memory_order_seq_cst)) {
  }
  // Ordered against the sleeper, which counts itself before it looks at the value.
  if (n_sleepers_.load(std::memory_order_seq_cst) > 0) {
    ::syscall(SYS_futex, &value_, FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0);
  }
}

bool WaitWord::wait(uint32_t value, std::chrono::microseconds spin,
                    std::chrono::nanoseconds timeout) const {
  using Clock = std::chrono::steady_clock;
  if (reached(value)) return true;
  const Clock::time_point begin = Clock::now();
  for (int i = 0; i % 16 != 0 || Clock::now() - begin < spin; ++i) {
    if (reached(value)) return true;
    _mm_pause();
  }
  const Clock::time_point end = Clock::now() + timeout;
  n_sleepers_.fetch_add(1, std::memory_order_seq_cst);
  bool there = false;
  for (;;) {
    const uint32_t now = value_.load(std::memory_order_seq_cst);
    there = static_cast<int32_t>(now - value) >= 0;
    const auto left = std::chrono::duration_cast<std::chrono::nanoseconds>(end - Clock::now());
    if (there || left.count() <= 0) break;
    const timespec relative{.tv_sec = static_cast<time_t>(left.count() / 1'000'000'000),
                            .tv_nsec = static_cast<long>(left.count() % 1'000'000'000)};
    // Spurious and interrupted returns are fine: the loop looks again.
    ::syscall(SYS_futex, &value_, FUTEX_WAIT_PRIVATE, now, &relative, nullptr, 0);
  }
  n_sleepers_.fetch_sub(1, std::memory_order_seq_cst);
  return there;
}

}  // namespace tandem
